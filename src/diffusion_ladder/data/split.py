"""Train and test splits by content, so that equal rows never straddle the two, and what a split data set holds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy
import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.foundation.artifacts import StoredTensor
from diffusion_ladder.foundation.errors import UserError


@dataclass(frozen=True)
class Splits:
    """A processed data set.

    Attributes:
        train, test: uint8 (N, C, H, W) images in [0, 255], perhaps on the disk, or float32 (N, 2) points in data units.
        train_labels, test_labels: int64 (N,), indices into class_names.
        normalisation: how the networks see the data.
        duplicates: what `count_duplicates` found; None where the rows in memory are to be counted.
        facts: what else the data card should say.
    """

    train: Tensor | StoredTensor
    test: Tensor | StoredTensor
    train_labels: Tensor
    test_labels: Tensor
    class_names: Sequence[str]
    normalisation: Normalisation
    facts: dict[str, Any] = field(default_factory=dict)
    duplicates: Mapping[str, int] | None = None

    def count_duplicates(self) -> dict[str, int]:
        """Repeated rows of splits in memory."""
        return count_duplicates(*(row_numbers(cast(Tensor, rows)) for rows in (self.train, self.test)))

    def tensors(self) -> dict[str, Tensor | StoredTensor]:
        """What `data/processed/D.safetensors` holds."""
        return {name: getattr(self, name) for name in ("train", "test", "train_labels", "test_labels")}

    def metadata(self, dataset: str, kind: str) -> dict[str, Any]:
        """The metadata of `data/processed/D.safetensors`."""
        return {
            "dataset": dataset,
            "kind": kind,
            "class_names": list(self.class_names),
            "normalisation": self.normalisation.as_metadata(),
        }

    def card(self) -> dict[str, Any]:
        """The data card's part about this split: rows by split and class, duplicates, normalisation."""
        return {
            "class_names": list(self.class_names),
            "sample_shape": list(self.train.shape[1:]),
            "splits": {
                "train": count_rows(self.train_labels, self.class_names),
                "test": count_rows(self.test_labels, self.class_names),
            },
            "duplicates": dict(self.duplicates or self.count_duplicates()),
            "normalisation": self.normalisation.as_metadata(),
            **self.facts,
        }


def row_number(row: numpy.ndarray) -> int:
    """The first eight bytes of the SHA-256 of a row's bytes, as a number in [0, 2^64)."""
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big")


def row_numbers(rows: Tensor) -> numpy.ndarray:
    """The `row_number` of each row of (N, ...): (N,) uint64."""
    return numpy.array([row_number(row) for row in rows.contiguous().numpy()], dtype=numpy.uint64)


def in_test(number: int, test_fraction: float) -> bool:
    """Whether a row belongs to the test split: whether its number, scaled to [0, 1), is below test_fraction.

    A row's side depends on its content alone: not on the order, the other rows or a seed. So duplicates stay together,
    and a row stays where it is when others are added. The share of the test split is test_fraction on average.
    """
    return number / 2**64 < test_fraction


def is_held_out(rows: Tensor, test_fraction: float) -> Tensor:
    """Which rows belong to the test split (see `in_test`).

    Returns:
        bool (N,)

    Raises:
        UserError: one of the splits would be empty.
    """
    held_out = torch.tensor([in_test(int(number), test_fraction) for number in row_numbers(rows)], dtype=torch.bool)
    refuse_empty_split(int(held_out.sum()), int((~held_out).sum()), test_fraction)
    return held_out


def refuse_empty_split(test_rows: int, train_rows: int, test_fraction: float) -> None:
    """Raise UserError if there is nothing to train on, or nothing to hold against it."""
    if not (test_rows and train_rows):
        share = f"{test_rows} of {test_rows + train_rows} rows"
        raise UserError(f"preprocess.test_fraction: {test_fraction} puts {share} into the test split; use more rows")


def stands_in(rows: Tensor, others: Tensor) -> Tensor:
    """Which rows, (N, ...), are equal to one of `others`, (M, ...): bool (N,)."""
    return torch.from_numpy(numpy.isin(row_numbers(rows), row_numbers(others)))


def count_rows(labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Rows in all and by class name."""
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    return {"rows": len(labels), "by_class": dict(zip(class_names, counts, strict=True))}


def count_duplicates(train: numpy.ndarray, test: numpy.ndarray) -> dict[str, int]:
    """Rows that repeat an earlier row of their split, and test rows that stand in the training split too.

    Args:
        train, test: the `row_numbers` of the two splits.
    """
    return {
        "in_train": len(train) - len(numpy.unique(train)),
        "in_test": len(test) - len(numpy.unique(test)),
        "between_splits": int(numpy.isin(test, train).sum()),
    }
