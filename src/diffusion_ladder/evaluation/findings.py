"""What an evaluation found out about a rung, in the three forms that are written down."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Rows = list[dict[str, float | str]]


@dataclass(frozen=True)
class Findings:
    """Parts of an evaluation; `|` puts two of them together.

    Attributes:
        numbers: flat, by name: NAME, NAME_std, NAME_floor, NAME_floor_std, NAME_ceiling, NAME_ceiling_std, and facts.
        tables: rows of the same columns by the table's name: curves, and whatever is no single number.
        tensors: by name, what figures are drawn from.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Rows] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __or__(self, other: "Findings") -> "Findings":
        return Findings(self.numbers | other.numbers, self.tables | other.tables, self.tensors | other.tensors)
