"""What is wrong with an answer, found by comparing it with the right one and with what typical mistakes give."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-5  # relative to the largest value: float32 rounds at 1e-7


class Fault(Exception):  # noqa: N818 (a finding about an answer, not about the program)
    """What is wrong with an answer: one sentence in words."""


def expect(
    found: Any, expected: Tensor, where: str, mistakes: Mapping[str, Tensor] | None = None, tolerance: float = TOLERANCE
) -> None:
    """Raise a Fault unless an answer is the expected tensor.

    Args:
        found: what the function gave.
        expected: of the shape and dtype that are wanted.
        where: what was tried, before a colon.
        mistakes: what a typical mistake gives in place of `expected`, by the words that name it.
        tolerance: up to which two tensors are equal, as a share of the largest value.
    """
    if not isinstance(found, Tensor):
        raise Fault(f"{where}: {described(found)} came back where a tensor {tuple(expected.shape)} is wanted")
    if not agree(found, expected, tolerance):
        for words, wrong in (mistakes or {}).items():
            if agree(found, wrong, tolerance):
                raise Fault(words)
    if found.shape != expected.shape:
        raise Fault(f"{where}: the shape is {tuple(found.shape)}, wanted is {tuple(expected.shape)}")
    if not found.isfinite().all():
        raise Fault(f"{where}: {int((~found.isfinite()).sum())} of {found.numel()} values are NaN or infinite")
    if not agree(found, expected, tolerance):
        raise Fault(f"{where}: {worst(found, expected)}")
    if found.dtype != expected.dtype:
        raise Fault(f"{where}: the values are right, but {found.dtype}; wanted is {expected.dtype}")


def described(found: Any) -> str:
    """An answer that is no tensor, in words."""
    return "nothing (is a `return` missing?)" if found is None else f"a {type(found).__name__}"


def agree(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors have one shape and, up to the tolerance, the same finite values."""
    if found.shape != expected.shape or not found.isfinite().all():
        return False
    found, expected = found.detach().double(), expected.detach().double()
    return bool((found - expected).abs().max() <= tolerance * max(1e-3, expected.abs().max().item()))


def differ(once: Any, again: Any) -> bool:
    """Whether two tensors that should be the same are not."""
    both = isinstance(once, Tensor) and isinstance(again, Tensor)
    return both and not torch.equal(once.nan_to_num(), again.nan_to_num())


def worst(found: Tensor, expected: Tensor) -> str:
    """The value that is farthest off, in words."""
    place = int((found.double() - expected.double()).abs().argmax())
    index = [int(part) for part in torch.unravel_index(torch.tensor(place), expected.shape)]
    values = f"{found.flatten()[place].item():.5g}, right is {expected.flatten()[place].item():.5g}"
    return f"the value at {index} is {values}" if index else f"it is {values}"


def unchanged(now: Tensor, before: Tensor, name: str) -> None:
    """Raise a Fault where a function has written into its argument."""
    if not torch.equal(now, before):
        raise Fault(f"{name} is changed in place: whoever called still needs it; make a new tensor")
