"""Nested mappings of parameters: laid over each other, and flattened to dotted keys."""

from typing import Any

from diffusion_ladder.errors import ParameterError
from diffusion_ladder.params.section import merge


def flatten(overlay: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys and their values; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, path + ".") if isinstance(value, dict) else {path: value}
    return flat


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
