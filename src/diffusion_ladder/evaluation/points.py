"""How good 2D samples are: their exact Wasserstein distance from held-out points, and the noise-free curve as a judge.

All distances are in data units (those of the noise-free figure), not standardised.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import GeneratorOf, averages, equal_sets, noise_like, over_seeds, rounded
from diffusion_ladder.evaluation.findings import Findings

TUBE_DEVIATIONS = 3  # the tube's radius, in standard deviations of the data's noise


def wasserstein_2(first: Tensor, second: Tensor) -> float:
    """The 2-Wasserstein distance of two point sets: the root of the least mean squared distance that a transport needs.

    Computed exactly, by the network simplex method on the full cost matrix (Bonneel et al. 2011, as POT has it).

    Args:
        first, second: (N, D) and (M, D), in any common unit, which is also the result's.
    """
    from ot import emd2  # here because importing it takes over a second

    cost = torch.cdist(first.double(), second.double(), compute_mode="donot_use_mm_for_euclid_dist").square()  # (N, M)
    # The default limit of iterations can stop short of the optimum from a few thousand points on.
    return float(emd2([], [], cost.numpy(), numItermax=100_000_000)) ** 0.5


def circle_distances(points: Tensor, factor: float) -> Tensor:
    """Distances of points (N, 2) to scikit-learn's two noise-free circles, radius 1 and `factor`: (N, 2), float64."""
    radius = points.double().norm(dim=1, keepdim=True)  # (N, 1)
    return (radius - torch.tensor([1.0, factor], dtype=torch.float64)).abs()


def moon_distances(points: Tensor) -> Tensor:
    """Distances of points (N, 2) to scikit-learn's two noise-free half circles: (N, 2), float64.

    The upper one is the unit half circle above the origin. The lower one is the same turned by 180 degrees about
    (0.5, 0.25), so that its centre is (1, 0.5).
    """
    upper = points.double()
    lower = torch.tensor([1.0, 0.5], dtype=torch.float64) - upper
    return torch.stack([half_circle_distance(upper), half_circle_distance(lower)], dim=1)


def half_circle_distance(points: Tensor) -> Tensor:
    """Distances (N,) of points (N, 2) to the half of the unit circle with y >= 0: below it, an end is nearest."""
    to_circle = (points.norm(dim=1) - 1).abs()
    nearest_end = torch.stack([points[:, 0].abs() - 1, points[:, 1]], dim=1)  # by symmetry, the end at (+-1, 0)
    return torch.where(points[:, 1] >= 0, to_circle, nearest_end.norm(dim=1))


def curve_distances(points: Tensor, card: Mapping[str, Any]) -> Tensor:
    """Distances of points (N, 2) to the two noise-free curves that the data card describes: (N, 2), float64.

    Args:
        points: in data units.
        card: data/raw/D/card.json; its `source` names the curves, its `parameters` hold the circles' `factor`.

    Raises:
        ValueError: the source has no known curve.
    """
    if card["source"] == "make_circles":
        return circle_distances(points, card["parameters"]["factor"])
    if card["source"] == "make_moons":
        return moon_distances(points)
    raise ValueError(f"no noise-free curve is known for the source {card['source']!r}")


def evaluate_points(
    samples: Sequence[Tensor],
    data: Mapping[str, Tensor],
    normalisation: Normalisation,
    card: Mapping[str, Any],
    sample_count: int,
    generator_of: GeneratorOf,
) -> Findings:
    """Everything that is measured of 2D samples; each number with its floor and ceiling (see evaluation/bounds.py).

    - wasserstein_2: from held-out points, in data units.
    - outside_tube_share: of samples farther than three standard deviations of the data's noise from both noise-free
      curves; left out where the data have no noise.
    - first_curve_share: of samples nearer to the first curve (outer circle, upper moon) than to the second. It is about
      a half in the data, not 0: a good model comes close to the floor.

    Args:
        samples: by sampling seed, each (N, 2) in data units.
        data: `train` and `test`, (N, 2) in data units.
        card: data/raw/D/card.json.
        sample_count: members of each set that a distance compares.
    """
    noise = noise_like(data["test"], sample_count * len(samples), normalisation, generator_of("noise"))
    sets = equal_sets(samples, data["train"], noise, data["test"], sample_count, generator_of)
    numbers: dict[str, Any] = over_seeds("distances", distances, sets)
    numbers |= shares([*samples, data["test"], noise], card)
    return Findings(numbers | {"judge": f"noise-free curves of {card['source']}"})


def distances(samples: Tensor, held_out: Tensor) -> dict[str, float]:
    """The distances between two sets of points (N, 2) in data units."""
    return {"wasserstein_2": wasserstein_2(samples, held_out)}


def shares(groups: Sequence[Tensor], card: Mapping[str, Any]) -> dict[str, float]:
    """What share of points is where.

    Args:
        groups: the samples by sampling seed, then held-out points, then noise; each (N, 2) in data units.
        card: data/raw/D/card.json.
    """
    from_curves = [curve_distances(points, card) for points in groups]  # each (N, 2)
    *samples, floor, ceiling = [distance[:, 0] < distance[:, 1] for distance in from_curves]
    found = averages("first_curve_share", samples, floor, ceiling)
    tube_radius = TUBE_DEVIATIONS * card["parameters"]["noise"]
    if tube_radius:
        *samples, floor, ceiling = [distance.amin(dim=1) > tube_radius for distance in from_curves]
        found |= averages("outside_tube_share", samples, floor, ceiling)
    return found | {"tube_radius": rounded(tube_radius)}
