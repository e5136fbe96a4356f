"""Train and test splits by content, so that equal rows never straddle the two, and what a split data set holds."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.errors import UserError


@dataclass(frozen=True)
class Splits:
    """A processed data set.

    Attributes:
        train, test: uint8 (N, C, H, W) images in [0, 255], or float32 (N, 2) points in data units.
        train_labels, test_labels: int64 (N,), indices into class_names.
        normalisation: how the networks see the data.
        facts: what else the data card should say.
    """

    train: Tensor
    test: Tensor
    train_labels: Tensor
    test_labels: Tensor
    class_names: Sequence[str]
    normalisation: Normalisation
    facts: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
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
            "duplicates": count_duplicates(self.train, self.test),
            "normalisation": self.normalisation.as_metadata(),
            **self.facts,
        }


def row_digests(rows: Tensor) -> list[bytes]:
    """The SHA-256 of each row's bytes, (N, ...)."""
    return [hashlib.sha256(row.tobytes()).digest() for row in rows.contiguous().numpy()]


def is_held_out(rows: Tensor, test_fraction: float) -> Tensor:
    """Which rows belong to the test split: those whose hash, read as a number in [0, 1), is below test_fraction.

    A row's side depends on its content alone: not on the order, the other rows or a seed. So duplicates stay together,
    and a row stays where it is when others are added. The share of the test split is test_fraction on average.

    Returns:
        bool (N,)

    Raises:
        UserError: one of the splits would be empty.
    """
    numbers = [int.from_bytes(digest[:8], "big") / 2**64 for digest in row_digests(rows)]
    held_out = torch.tensor([number < test_fraction for number in numbers], dtype=torch.bool)
    if held_out.all() or not held_out.any():
        share = f"{int(held_out.sum())} of {len(held_out)} rows"
        raise UserError(f"preprocess.test_fraction: {test_fraction} puts {share} into the test split; use more rows")
    return held_out


def stands_in(rows: Tensor, others: Tensor) -> Tensor:
    """Which rows, (N, ...), are equal to one of `others`, (M, ...): bool (N,)."""
    known = set(row_digests(others))
    return torch.tensor([digest in known for digest in row_digests(rows)], dtype=torch.bool)


def count_rows(labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Rows in all and by class name."""
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    return {"rows": len(labels), "by_class": dict(zip(class_names, counts, strict=True))}


def count_duplicates(train: Tensor, test: Tensor) -> dict[str, int]:
    """Rows that repeat an earlier row of their split, and test rows that stand in the training split too."""
    train_counts, test_counts = Counter(row_digests(train)), Counter(row_digests(test))
    return {
        "in_train": len(train) - len(train_counts),
        "in_test": len(test) - len(test_counts),
        "between_splits": sum(count for digest, count in test_counts.items() if digest in train_counts),
    }
