"""How good 2D samples are: distances between point sets, a classifier as a test, the noise-free curves as a judge.

All distances are in data units (those of the noise-free figure), not standardised.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import (
    ROLES,
    GeneratorOf,
    averages,
    by_size,
    equal_sets,
    noise_like,
    over_seeds,
    rounded,
)
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.labels import Answers, label_findings
from diffusion_ladder.params.evaluation import PointEvaluation

TUBE_DEVIATIONS = 3  # the tube's radius, in standard deviations of the data's noise


def wasserstein_2(first: Tensor, second: Tensor) -> float:
    """The 2-Wasserstein distance of two point sets: the root of the least mean squared distance that a transport needs.

    Computed exactly, by the network simplex method on the full cost matrix (Bonneel et al. 2011, as POT has it).

    Args:
        first, second: (N, D) and (M, D), in any common unit, which is also the result's.
    """
    from ot import emd2  # here because importing it takes over a second

    # The default limit of iterations can stop short of the optimum from a few thousand points on.
    return float(emd2([], [], pairwise_distances(first, second).square().numpy(), numItermax=100_000_000)) ** 0.5


def pairwise_distances(first: Tensor, second: Tensor) -> Tensor:
    """The distances between points (N, D) and (M, D): (N, M), float64, of differences and not of dot products."""
    return torch.cdist(first.double(), second.double(), compute_mode="donot_use_mm_for_euclid_dist")


def random_directions(count: int, draws: Generator) -> Tensor:
    """Unit vectors of the plane, uniform over all directions: (2, count), float64."""
    directions = torch.randn(2, count, generator=draws, dtype=torch.float64)
    return directions / directions.norm(dim=0)


def sliced_wasserstein_2(first: Tensor, second: Tensor, directions: Tensor) -> float:
    """The 2-Wasserstein distance of the shadows that two point sets throw on a line, over the lines' directions.

    Root of the mean of the squares (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters", as POT has it).

    Args:
        first, second: (N, D) and (M, D).
        directions: (D, L) unit vectors, float64.
    """
    from ot import sliced_wasserstein_distance

    arrays = [values.double().numpy() for values in (first, second, directions)]
    return float(sliced_wasserstein_distance(arrays[0], arrays[1], projections=arrays[2], p=2))


def energy_distance(first: Tensor, second: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|: nought for equal distributions alone (Szekely and Rizzo 2013, eq. 2.1).

    Unbiased: a point's distance from itself is left out of the means. So it is as often below nought as above it where
    the distributions are the same, and does not depend on N. Some authors give its root.

    Args:
        first, second: (N, D) and (M, D), N and M of two or more.
    """
    within = [
        pairwise_distances(points, points).sum() / (len(points) * (len(points) - 1)) for points in (first, second)
    ]
    return float(2 * pairwise_distances(first, second).mean() - sum(within))


def two_sample_accuracy(first: Tensor, second: Tensor, draws: Generator) -> float:
    """How often a classifier can tell which of two sets a point is from: a half where they have one distribution.

    The classifier two-sample test of Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", with their
    nearest-neighbour classifier: the set that most of the nearest floor(sqrt(training points)) points are from, or of
    one fewer where that is even, so that no vote is a tie. A random half of each set is for training, and the accuracy
    is that of the other halves.

    Args:
        first, second: (N, D) each, N of four or more.
    """
    from sklearn.neighbors import KNeighborsClassifier

    points = torch.cat([first, second]).double().numpy()  # (2 N, D)
    of_second = (torch.arange(len(points)) >= len(first)).numpy()
    halves = [torch.randperm(len(values), generator=draws).chunk(2) for values in (first, second)]
    training, testing = (torch.cat([own, len(first) + other]) for own, other in zip(*halves, strict=True))
    neighbours = (math.isqrt(len(training)) - 1) // 2 * 2 + 1
    classifier = KNeighborsClassifier(neighbours).fit(points[training], of_second[training])
    return float(classifier.score(points[testing], of_second[testing]))


def two_sample_p_value(accuracy: float, count: int) -> float:
    """How often guessing for `count` points of two equal sets gets so many right, or more: a binomial tail."""
    from scipy.stats import binom

    return float(binom.sf(round(accuracy * count) - 1, count, 0.5))


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
    settings: PointEvaluation,
    generator_of: GeneratorOf,
) -> Findings:
    """Everything that is measured of 2D samples; each number with its floor and ceiling (see evaluation/bounds.py).

    - wasserstein_2, sliced_wasserstein_2, energy_distance: from held-out points, in data units.
    - two_sample_accuracy: of a classifier that tells samples from held-out points; two_sample_p_value is how likely so
      good a one is by chance, over the test points of all seeds.
    - class_balance_distance: from the held-out points, total variation between the shares of points that are nearer to
      the one noise-free curve and to the other.
    - first_curve_share: of samples nearer to the first curve (outer circle, upper moon) than to the second. It is about
      a half in the data, not 0: a good model comes close to the floor.
    - outside_tube_share: of samples farther than three standard deviations of the data's noise from both noise-free
      curves; left out where the data have no noise.

    The table `sample_size` has the distances and the accuracy for smaller sets as well.

    Args:
        samples: by sampling seed, each (N, 2) in data units.
        data: `train` and `test`, (N, 2) in data units.
        card: data/raw/D/card.json.
    """
    count = settings.sample_count
    noise = noise_like(data["test"], count * len(samples), normalisation, generator_of("noise"))
    sets = equal_sets(samples, data["train"], noise, data["test"], count, generator_of)
    directions = random_directions(settings.projections, generator_of("projections"))

    def distances(some: Tensor, held_out: Tensor) -> dict[str, float]:
        return {
            "wasserstein_2": wasserstein_2(some, held_out),
            "sliced_wasserstein_2": sliced_wasserstein_2(some, held_out, directions),
            "energy_distance": energy_distance(some, held_out),
            "two_sample_accuracy": two_sample_accuracy(some, held_out, generator_of("two_sample")),
        }

    curve = by_size("distances", distances, sets, [*settings.smaller_counts, count])
    numbers = {key: value for key, value in curve[-1].items() if key != "size"}
    numbers |= p_values(numbers, count * len(samples))
    numbers |= over_seeds("balance", curve_balance(card), sets) | shares([*samples, data["test"], noise], card)
    facts = {"two_sample_null_std": rounded(0.5 / math.sqrt(count)), "judge": f"noise-free curves of {card['source']}"}
    return Findings(numbers | facts, tables={"sample_size": curve})


def p_values(numbers: Mapping[str, Any], count: int) -> dict[str, float]:
    """two_sample_p_value with its bounds, from the accuracies over `count` test points."""
    return {
        f"two_sample_p_value{suffix}": rounded(two_sample_p_value(numbers[f"two_sample_accuracy{suffix}"], count))
        for suffix in ROLES.values()
    }


def curve_balance(card: Mapping[str, Any]) -> Callable[[Tensor, Tensor], dict[str, float]]:
    """The measure of how differently two sets of points (N, 2) share themselves out between the two curves."""

    def first_share(points: Tensor) -> float:
        return float(nearer_to_first(curve_distances(points, card)).double().mean())

    def measure(some: Tensor, held_out: Tensor) -> dict[str, float]:
        return {"class_balance_distance": abs(first_share(some) - first_share(held_out))}

    return measure


def nearest_curve(points: Tensor, card: Mapping[str, Any]) -> Tensor:
    """The class of each point (N, 2) as the curves judge: 0 nearer to the first curve, 1 to the second; (N,) int64."""
    return (~nearer_to_first(curve_distances(points, card))).long()


def evaluate_point_labels(
    samples: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    normalisation: Normalisation,
    card: Mapping[str, Any],
    class_names: Sequence[str],
    generator_of: GeneratorOf,
) -> Findings:
    """label_accuracy with its bounds, and the table confusion, of a rung that was asked for classes.

    The judge is the nearer noise-free curve: data with much noise lie nearer to the other one now and then, which the
    floor shows.

    Args:
        samples: `samples` (S N, 2) in data units, `labels` (S N,) and `sampling_seed` (S N,).
        data: `test` (M, 2) and `test_labels` (M,).
        card: data/raw/D/card.json.
        class_names: of the first curve and of the second.
    """
    noise = noise_like(data["test"], len(samples["samples"]), normalisation, generator_of("noise"))
    points = {"samples": samples["samples"], "held_out": data["test"], "noise": noise}
    meant = {"samples": samples["labels"], "held_out": data["test_labels"]}
    meant["noise"] = torch.arange(len(noise)) % len(class_names)
    found = {name: nearest_curve(some, card) for name, some in points.items()}
    return label_findings(Answers(meant, found, samples["sampling_seed"]), class_names)


def nearer_to_first(from_curves: Tensor) -> Tensor:
    """Whether points with these distances from the two curves, (N, 2), belong to the first: (N,)."""
    return from_curves[:, 0] < from_curves[:, 1]


def shares(groups: Sequence[Tensor], card: Mapping[str, Any]) -> dict[str, float]:
    """What share of points is where.

    Args:
        groups: the samples by sampling seed, then held-out points, then noise; each (N, 2) in data units.
        card: data/raw/D/card.json.
    """
    from_curves = [curve_distances(points, card) for points in groups]  # each (N, 2)
    *samples, floor, ceiling = [nearer_to_first(distance) for distance in from_curves]
    found = averages("first_curve_share", samples, floor, ceiling)
    tube_radius = TUBE_DEVIATIONS * card["parameters"]["noise"]
    if tube_radius:
        *samples, floor, ceiling = [distance.amin(dim=1) > tube_radius for distance in from_curves]
        found |= averages("outside_tube_share", samples, floor, ceiling)
    return found | {"tube_radius": rounded(tube_radius)}
