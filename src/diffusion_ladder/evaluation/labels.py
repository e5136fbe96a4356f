"""Requested classes against those that a judge finds: of images a classifier, of points the noise-free curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from diffusion_ladder.evaluation.bounds import averages, by_seed, entry, mean_and_deviation
from diffusion_ladder.evaluation.findings import Findings, Rows

MOST_CONFUSED_CLASSES = 3  # with more classes, the confusion matrix is too long for a list of metrics


@dataclass(frozen=True)
class Answers:
    """The classes that were meant, and those that a judge finds; by "samples", "held_out" and "noise", (N,) indices.

    Attributes:
        meant: of samples the requested class, of held-out data their own, of noise every class equally often.
        found: what the judge says.
        seeds: (N,) the sampling seeds of the samples.
    """

    meant: Mapping[str, Tensor]
    found: Mapping[str, Tensor]
    seeds: Tensor


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Class indices (N,) as one-hot rows (N, count), float64."""
    return functional.one_hot(classes, count).double()


def confusion(predictions: Tensor, requested: Tensor, num_classes: int) -> Tensor:
    """The share of each requested class (K rows) that was judged to be each class (K columns), float64.

    The row of a class that was never requested is nought.

    Args:
        predictions, requested: (N,) class indices.
    """
    counts = one_hot(requested, num_classes).T @ one_hot(predictions, num_classes)
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def confusion_rows(answers: Answers, class_names: Sequence[str]) -> Rows:
    """The confusion matrix of the samples, with its deviation over the seeds, beside that of held-out data."""
    found, asked = (by_seed(part["samples"], answers.seeds) for part in (answers.found, answers.meant))
    count = len(class_names)
    matrices = [confusion(*of_seed, count) for of_seed in zip(found, asked, strict=True)]
    std, mean = torch.std_mean(torch.stack(matrices), dim=0)
    real = confusion(answers.found["held_out"], answers.meant["held_out"], count)
    return [
        {
            "requested": class_names[row],
            "judged": class_names[column],
            "share": float(mean[row, column]),
            "share_std": float(std[row, column]),
            "held_out": float(real[row, column]),
        }
        for row, column in product(range(count), repeat=2)
    ]


def label_findings(answers: Answers, class_names: Sequence[str]) -> Findings:
    """How often the judge finds the class that was asked for, and what else it finds.

    Among the numbers, a rate of confusion has a key such as requested_female_judged_male; with more than three classes
    all of them stand in the table alone.
    """
    right = {name: found == answers.meant[name] for name, found in answers.found.items()}
    rows = confusion_rows(answers, class_names)
    numbers = averages("label_accuracy", by_seed(right["samples"], answers.seeds), right["held_out"], right["noise"])
    if len(class_names) <= MOST_CONFUSED_CLASSES:
        for row in rows:
            if row["requested"] != row["judged"]:
                key = f"requested_{row['requested']}_judged_{row['judged']}"
                numbers |= entry(key, float(row["share"]), float(row["share_std"]))
    return Findings(numbers, {"confusion": rows})


def label_accuracy(found: Tensor, requested: Tensor, sampling_seed: Tensor) -> dict[str, float]:
    """label_accuracy and its deviation over the sampling seeds: the share in which the requested class is found."""
    right = (found == requested).double()  # (N,)
    return entry("label_accuracy", *mean_and_deviation([float(part.mean()) for part in by_seed(right, sampling_seed)]))
