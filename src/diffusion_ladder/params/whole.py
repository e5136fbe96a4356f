"""The whole of params.yaml, for the stages that read everything."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from diffusion_ladder.errors import ParameterError
from diffusion_ladder.params.classifier import Classifier
from diffusion_ladder.params.datasets import Digits, Points, Portraits
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.runtime import Checkpoints, Runtime
from diffusion_ladder.params.scheduler_comparison import SchedulerComparison
from diffusion_ladder.params.section import NotNegative, Section, describe, load_yaml, look_up_or_none, rung_section

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # of a rung or data set: part of paths and DVC's names


class Parameters(Section):
    """The whole of params.yaml, each rung with what `every_rung` says."""

    seed: NotNegative
    runtime: Runtime
    checkpoints: Checkpoints
    datasets: dict[Name, Annotated[Points | Digits | Portraits, Field(discriminator="kind")]]
    classifiers: dict[Name, Classifier]
    rungs: dict[Name, RungParameters]
    scheduler_comparison: SchedulerComparison


def load_parameters(path: str | Path = "params.yaml") -> Parameters:
    """Read and validate params.yaml.

    Raises:
        ParameterError: one line with the file, the key, what was found and what is allowed.
    """
    return validate(load_yaml(path), str(path))


def validate(values: Any, origin: str = "params.yaml") -> Parameters:
    """The typed parameters of a parsed tree that came from `origin`.

    Raises:
        ParameterError: one line with the origin, the key, what was found and what is allowed.
    """
    whole = with_every_rung(values)
    try:
        return Parameters.model_validate(whole)
    except ValidationError as error:
        raise ParameterError(f"{origin}: {described(error, values, whole)}") from None


def with_every_rung(values: Any) -> Any:
    """The parsed tree with the values of `every_rung` in the sections that each rung has, and without that key."""
    if not all(isinstance(look_up_or_none(values, key) or {}, dict) for key in ("rungs", "every_rung")):
        return values
    rungs = {
        name: {section: rung_section(values, name, section) for section in block} if isinstance(block, dict) else block
        for name, block in (look_up_or_none(values, "rungs") or {}).items()
    }
    return {key: rungs if key == "rungs" else value for key, value in values.items() if key != "every_rung"}


def described(error: ValidationError, values: Any, whole: Any) -> str:
    """The first complaint as one line, under `every_rung` where the value that is complained of stands there."""
    complaint, (first, *place) = describe(error, whole), error.errors(include_url=False)[0]["loc"]
    if first != "rungs" or not place:
        return complaint
    rung, *key = (".".join(map(str, place))).split(".")
    section = ".".join(key)
    shared = look_up_or_none(values, f"every_rung.{section}") is not None
    own = look_up_or_none(values, f"rungs.{rung}.{section}") is not None
    return complaint.replace(f"rungs.{rung}.", "every_rung.", 1) if shared and not own else complaint
