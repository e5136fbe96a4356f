"""The whole of params.yaml, for the stages that read everything."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import NotNegative, Section, describe, load_yaml, location_in, rung_section
from diffusion_ladder.params.classifier import Classifier
from diffusion_ladder.params.datasets import Digits, Points, Portraits
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.runtime import Checkpoints, Runtime
from diffusion_ladder.params.scheduler_comparison import SchedulerComparison

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
    refuse_unshareable(values, origin)
    whole = with_every_rung(values)
    try:
        parameters = Parameters.model_validate(whole)
    except ValidationError as error:
        raise ParameterError(f"{origin}: {described(error, values, whole)}") from None
    refuse_mixed_keys(values, origin)
    return parameters


def refuse_mixed_keys(values: Any, origin: str, place: str = "") -> None:
    """Refuse a mapping whose keys are numbers and text: DVC sorts them, and ends in an error of Python's."""
    if not isinstance(values, dict):
        return
    if len({isinstance(key, str) for key in values}) > 1:
        text, other = (next(key for key in values if isinstance(key, str) == kind) for kind in (True, False))
        raise ParameterError(
            f"{origin}: {place}: has the number {other} and the text {text!r} for keys, which DVC can't sort: write all"
            f' of them as text, such as "{other}", or all as numbers'
        )
    for key, value in values.items():
        refuse_mixed_keys(value, origin, f"{place}.{key}".removeprefix("."))


def refuse_unshareable(values: Any, origin: str) -> None:
    """Refuse what is no mapping at all, and under `every_rung` what is no section of a rung."""
    if not isinstance(values, dict):
        raise ParameterError(f"{origin}: holds no keys (found {values!r})")
    shared = values.get("every_rung", {})
    if not isinstance(shared, dict):
        raise ParameterError(f"{origin}: every_rung: must hold sections (found {shared!r})")
    for name, section in shared.items():
        if name not in RungParameters.model_fields:
            raise ParameterError(f"{origin}: every_rung.{name}: unknown key")
        if not isinstance(section, dict):
            raise ParameterError(f"{origin}: every_rung.{name}: must be a section (found {section!r})")


def with_every_rung(values: dict[str, Any]) -> dict[str, Any]:
    """The parsed tree with the values of `every_rung` in the sections that each rung has, and without that key."""

    def merged(name: str, block: Any) -> Any:
        sections = block if isinstance(block, dict) else {}
        return {section: rung_section(values, name, section) for section in sections} if sections else block

    rungs = values.get("rungs")
    whole = {key: value for key, value in values.items() if key != "every_rung"}
    return whole | {"rungs": {name: merged(name, rungs[name]) for name in rungs}} if isinstance(rungs, dict) else whole


def described(error: ValidationError, values: Any, whole: Any) -> str:
    """The first complaint as one line, under `every_rung` where the value that is complained of stands there."""
    complaint, place = describe(error, whole), location_in(whole, error.errors(include_url=False)[0])
    shared = ["every_rung", *place[2:]]
    moved = place[:1] == ["rungs"] and len(place) > 2 and stands(values, shared) and not stands(values, place)
    return complaint.replace(".".join(place), ".".join(shared), 1) if moved else complaint


def stands(values: Any, keys: list[str]) -> bool:
    """Whether there is a value at these keys and places of lists, be it null."""
    for key in keys:
        parts = {str(number): part for number, part in enumerate(values)} if isinstance(values, list) else values
        if not isinstance(parts, dict) or key not in parts:
            return False
        values = parts[key]
    return True
