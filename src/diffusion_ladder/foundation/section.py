"""What all sections of params.yaml share: their base, reading YAML, and one line for what can't be.

An unknown key, a wrong type or an impossible value is refused in one line that names the key. A feature that is off is
absent; no other value has a default in the schema: what DVC can't see in params.yaml, it couldn't see change.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

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
PLAIN_TEXT = re.compile(r"[A-Za-z][\w./]*([ -][\w./]+)*", re.ASCII)
SPECIAL_TEXTS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # in YAML 1.1 or 1.2
WHOLE = ("labels", "gender_weights")  # mappings by the user's own keys: a value, which another one replaces


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
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ParameterError(f"{path}: not UTF-8 in line {line}: save it as UTF-8") from None
    except (YAMLError, ValueError) as error:  # a ValueError for a date or a number that can't be
        raise ParameterError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}") from None


class Representer(SafeRepresenter):
    """Writes what no dialect of YAML takes for anything else: most texts in quotes."""

    def represent_str(self, text: str) -> ScalarNode:
        """A text as a node."""
        plain = PLAIN_TEXT.fullmatch(text) and text.lower() not in SPECIAL_TEXTS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')

    def represent_float(self, number: float) -> ScalarNode:
        """A number as a node: with a point, without which YAML 1.1 takes 1e-05 for a text."""
        node = super().represent_float(number)
        if "e" in node.value and "." not in node.value:
            node.value = node.value.replace("e", ".0e")
        return node

    def represent_sequence(self, tag: Any, sequence: Any, flow_style: bool | None = None) -> SequenceNode:
        """A list as a node: in one line, where it holds no other list or mapping."""
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = all(isinstance(entry, ScalarNode) for entry in node.value)
        return node

    def represent_mapping(self, tag: Any, mapping: Any, flow_style: bool | None = None) -> MappingNode:
        """A mapping as a node: in one line, where it holds no list or other mapping."""
        node = super().represent_mapping(tag, mapping, flow_style)
        node.flow_style = all(isinstance(entry, ScalarNode) for _, entry in node.value)
        return node


Representer.add_representer(str, Representer.represent_str)
Representer.add_representer(float, Representer.represent_float)


def dump_yaml(values: Any, width: int = 110) -> str:
    """YAML that `load_yaml` reads as these values, the keys in their order; only the innermost in one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.width, yaml.allow_unicode = width, True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(values, text := io.StringIO())
    return text.getvalue()


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
    place = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in place)
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
    nested = {key for key in overlay if key in values and key not in WHOLE}
    return values | {key: merge(values[key], value) if key in nested else value for key, value in overlay.items()}


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
