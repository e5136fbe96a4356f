"""What all sections of params.yaml share: their base, reading YAML, and one line for what can't be.

An unknown key, a wrong type or an impossible value is refused in one line that names the key. A feature that is off is
absent; no other value has a default in the schema: what DVC can't see in params.yaml, it couldn't see change.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from diffusion_ladder.foundation.errors import ParameterError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[int, Field(ge=0)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
ClosedShare = Annotated[float, Field(ge=0, le=1)]
Spacing = Literal["leading", "linspace", "trailing"]
StepCount = Positive | Literal["all"]


class Section(BaseModel):
    """A part of params.yaml: immutable, without conversions, without unknown keys, its numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def load_yaml(path: str | Path) -> Any:
    """Read a YAML file as DVC does: YAML 1.2.

    Raises:
        ParameterError: the file is missing, is not UTF-8, is not YAML, or gives a key twice.
    """
    try:
        return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ParameterError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ParameterError(f"{path}: not UTF-8 in line {line}: save it as UTF-8") from None
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}") from None


T = TypeVar("T")


def validated(kind: type[T], value: Any, key: str, origin: str = "params.yaml") -> T:
    """A part of the parsed parameters as its type.

    Args:
        kind: a section, or any other type that pydantic knows.
        key: the part's dotted key, for complaints.
        origin: where the parameters come from, for complaints.

    Raises:
        ParameterError: one line with the origin, the key, what was found and what is allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise ParameterError(f"{origin}: {describe(error, value, key)}") from None


def describe(error: ValidationError, values: Any = None, key: str = "") -> str:
    """The first complaint of a validation as one line: key, what is wrong, what was found."""
    first, *others = error.errors(include_url=False)
    place = ".".join([*([key] if key else []), *location_in(values, first)])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    found = first["input"]
    shown = "" if isinstance(found, dict | BaseModel) or first["type"] == "missing" else f" (found {found!r})"
    more = f"; and {len(others)} more" if others else ""
    return f"{place}: {message}{shown}{more}".removeprefix(": ")


def location_in(values: Any, complaint: Mapping[str, Any]) -> list[str]:
    """The keys of a complaint's location, without the names of a union's branches, which pydantic adds to them."""
    keys: list[str] = []
    for part in complaint["loc"]:
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            keys.append(str(part))
            values = values[part]
    return [*keys, str(complaint["loc"][-1])] if complaint["type"] == "missing" else keys


def look_up(values: Any, key: str) -> Any:
    """The part of a parsed parameter tree at a dotted key, for example `rungs.circles.schedule.T`; "" is the whole."""
    for part in key.split(".") if key else ():
        values = values[part] if isinstance(values, dict) else getattr(values, part)
    return values


def merge(values: Any, overlay: Any) -> Any:
    """A nested mapping with another laid over it: the overlay's values in the place of those with the same keys."""
    if not (isinstance(values, dict) and isinstance(overlay, dict)):
        return overlay
    return values | {key: merge(values[key], value) if key in values else value for key, value in overlay.items()}


def rung_section(values: Any, rung: str, section: str) -> Any:
    """A section of a rung over what stands under `every_rung`; None where the rung doesn't have it."""
    shared, own = (look_up_or_none(values, f"{place}.{section}") for place in ("every_rung", f"rungs.{rung}"))
    return own if own is None or shared is None else merge(shared, own)


def look_up_or_none(values: Any, key: str) -> Any:
    """The part at a dotted key; None where there is none."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
