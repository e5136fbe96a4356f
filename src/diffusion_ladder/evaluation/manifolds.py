"""Whether samples lie where real data lie, and whether they lie everywhere there: two questions, not one distance.

A set's manifold is taken to be the union of balls around its members, each as large as the distance to the member's
k-th nearest neighbour in the set. The balls of real data say which samples are good ones (precision, density), and
which part of the data is reached (coverage); the balls of samples say it the other way round (recall).
"""

import torch
from torch import Tensor


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances between features (N, D) and (M, D): (N, M), float64, of differences and not of products."""
    return torch.cdist(first.double(), second.double(), compute_mode="donot_use_mm_for_euclid_dist")


def radii(features: Tensor, neighbours: int) -> Tensor:
    """The distance of each feature of (N, D) to its k-th nearest neighbour among the others: (N,)."""
    return distances(features, features).kthvalue(neighbours + 1, dim=1).values  # the nearest is the feature itself


def manifold_metrics(samples: Tensor, real: Tensor, neighbours: int) -> dict[str, float]:
    """Precision, recall, density and coverage of samples.

    - precision: the share of samples that lie in a ball of the real data, and recall: the share of real data that lie
      in a ball of the samples (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 2 and 3);
    - density: in how many balls of the real data a sample lies, over k, which an outlier among the real data sways
      less; it can exceed 1. And coverage: the share of the real data with a sample in their ball (Naeem et al. 2020,
      arXiv 2002.09797, eq. 3 and 4).

    Args:
        samples, real: (N, D) and (M, D) features, N and M above `neighbours`.
        neighbours: k.
    """
    between = distances(real, samples)  # (M, N)
    in_real = between <= radii(real, neighbours)[:, None]
    in_samples = between <= radii(samples, neighbours)
    return {
        "precision": float(in_real.any(dim=0).double().mean()),
        "recall": float(in_samples.any(dim=1).double().mean()),
        "density": float(in_real.double().sum(dim=0).mean() / neighbours),
        "coverage": float(in_real.any(dim=1).double().mean()),
    }
