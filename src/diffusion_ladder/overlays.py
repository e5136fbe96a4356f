"""Nested mappings of parameters: laid over each other, and flattened to dotted keys."""

from typing import Any

from diffusion_ladder.errors import ParameterError


def flatten(overlay: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys and their values; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, path + ".") if isinstance(value, dict) else {path: value}
    return flat


def merge(values: dict[str, Any], overlay: dict[str, Any], path: str = "") -> dict[str, Any]:
    """`values` with those of `overlay` in their place.

    Raises:
        ParameterError: the overlay has a key that `values` does not have.
    """
    unknown = [str(key) for key in overlay if key not in values]
    if unknown:
        raise ParameterError(f"preset: params.yaml has no {path}{unknown[0]}")
    merged = dict(values)
    for key, value in overlay.items():
        merged[key] = merge(values[key], value, f"{path}{key}.") if isinstance(value, dict) else value
    return merged
