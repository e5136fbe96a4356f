"""Nested mappings of parameters: laid over each other, and flattened to dotted keys."""

import functools
import json
import re
from typing import Any

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import WHOLE, merge

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # texts that Hydra takes without quotes
WORDS = ("null", "true", "false", "nan", "inf")  # which it takes for something else
SPACED_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*( [A-Za-z_][A-Za-z0-9_-]*)*")
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def flatten(overlay: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys and their values; lists, and mappings by the user's own keys, are values."""
    flat: dict[str, Any] = {}
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, path + ".") if key not in WHOLE and has_plain_keys(value) else {path: value}
    return flat


def within(overlay: Any, values: Any) -> Any:
    """What `overlay` says of the keys that `values` has, too."""
    if not (isinstance(overlay, dict) and isinstance(values, dict)):
        return overlay
    return {key: within(value, values[key]) for key, value in overlay.items() if key in values}


def for_each_rung(preset: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A preset with what it says of every rung said of each, as far as the rung has a value of its own there.

    So a preset fits rungs that it doesn't name. What it says of one by its name counts more.

    Args:
        preset: an overlay; its `every_rung` may have all keys that a rung can have.
        values: params.yaml.

    Raises:
        ParameterError: neither `every_rung` nor any rung of `values` has one of those keys.
    """
    shared, named = preset.get("every_rung", {}), preset.get("rungs", {})
    known = functools.reduce(merge, [values["every_rung"], *values["rungs"].values()])
    laid_over({"every_rung": known}, {"every_rung": shared})
    rungs = {key: merge(within(shared, block), named.get(key, {})) for key, block in values["rungs"].items()}
    return preset | {"every_rung": within(shared, values["every_rung"]), "rungs": named | rungs}


def has_plain_keys(value: Any) -> bool:
    """Whether a value is a mapping, not empty, whose keys can stand in a dotted path."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and PLAIN_KEY.fullmatch(key) for key in value)
    )


def laid_over(values: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `overlay` in their place.

    Raises:
        ParameterError: the overlay has a key that `values` does not have.
    """
    known = flatten(values)
    for key in flatten(overlay):
        if not any(have == key or have.startswith(f"{key}.") or key.startswith(f"{have}.") for have in known):
            raise ParameterError(f"preset: params.yaml has no {key}")
    return merge(values, overlay)  # type: ignore[no-any-return]


def in_hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, which DVC's `-S` reads."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key_in_hydra(key)}:{in_hydra(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_hydra, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    # Backslashes count only before a quote; ${ would begin an interpolation.
    text = re.sub(r'(\\*)"', lambda found: found[1] * 2 + '\\"', value.replace("${", "\\${"))
    return f'"{text}{trailing_backslashes(text)}"'


def key_in_hydra(key: Any) -> str:
    """A key of a mapping in that grammar, which knows no quotes there.

    Raises:
        ParameterError: it can't be written.
    """
    if isinstance(key, int):
        return json.dumps(key)
    if SPACED_KEY.fullmatch(key) and key.lower() not in WORDS:
        return str(key)
    raise ParameterError(f"{key!r} can't be the key of a mapping that DVC's -S is given: write it into params.yaml")


def trailing_backslashes(text: str) -> str:
    """Those at the end of a text, to be doubled before the closing quote."""
    return text[len(text.rstrip("\\")) :]
