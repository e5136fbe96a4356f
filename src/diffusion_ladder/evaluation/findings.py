"""What an evaluation found out about a rung, in the three forms that are written down."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_ladder.foundation.artifacts import (
    read_json,
    read_table,
    read_tensors,
    write_json,
    write_table,
    write_tensors,
)

TEXT_COLUMNS = {"sampler", "class", "requested", "judged"}  # of tables; all others hold numbers

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


def write_findings(model: str, findings: Findings) -> None:
    """Write each form into its place; the folder of the tables is there even if it stays empty."""
    tables = Path("reports/tables", model)
    tables.mkdir(parents=True, exist_ok=True)
    for name, rows in findings.tables.items():
        write_table(tables / f"{name}.tsv", rows)
    write_tensors(f"data/evaluation/{model}.safetensors", findings.tensors, {"model": model})
    write_json(f"reports/metrics/{model}.json", findings.numbers)


def read_findings(model: str) -> Findings:
    """Read what `write_findings` wrote."""
    return Findings(
        read_json(f"reports/metrics/{model}.json"),
        {path.stem: read_table(path, TEXT_COLUMNS) for path in sorted(Path("reports/tables", model).glob("*.tsv"))},
        read_tensors(f"data/evaluation/{model}.safetensors"),
    )
