"""A metric between its bounds: every number beside what real data and what pure noise would score.

The floor is real data in the samples' place, the ceiling is noise in their place: standard normal in the network's
units, which is where every sampler starts. Both are measured like the samples, against the same held-out data.

Two kinds of metric need two kinds of care:

- a distance between sets is biased by their sizes: it falls as they grow. So all sets have the same size, mean and
  standard deviation are those over draws of the subsets (of a set that has no more members than that, all are taken
  every time), and the floor is the training split's distance from the held-out one;
- an average over single samples has no such bias. So it uses every sample there is, its deviation is its standard
  error, and the floor is the held-out data's average.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation, unnormalise

GeneratorOf = Callable[..., Generator]  # called with the words and numbers of a purpose

FLOOR, CEILING, COMPARISON = "floor", "ceiling", "comparison"


@dataclass(frozen=True)
class Sizes:
    """How much a distance compares.

    Attributes:
        sample_count: members of each set.
        repetitions: draws of all sets, two or more.
    """

    sample_count: int
    repetitions: int


def random_subset(values: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` different members of `values` (N, ...), or all of them in random order where there are no more.

    Raises:
        ValueError: fewer than `count` are there.
    """
    if len(values) < count:
        raise ValueError(f"a subset of {count} was asked for, but there are only {len(values)}")
    return values[torch.randperm(len(values), generator=generator)[:count]]


def noise_like(example: Tensor, count: int, normalisation: Normalisation, generator: Generator) -> Tensor:
    """Pure noise in data units, (count, ...) like `example` (N, ...): standard normal in the network's units."""
    return unnormalise(torch.randn(count, *example.shape[1:], generator=generator), normalisation)


def repeated_distances(
    name: str,
    distance: Callable[[Tensor, Tensor], float],
    sets: Mapping[str, Tensor],
    held_out: Tensor,
    sizes: Sizes,
    generator_of: GeneratorOf,
) -> dict[str, float]:
    """A distance from the held-out data, for the samples and for their bounds, over repeated draws of equal subsets.

    Within a repetition all sets are held against the same held-out subset.

    Args:
        name: of the metric.
        distance: of two sets of `sizes.sample_count` members.
        sets: by role ("samples", "comparison", "floor", "ceiling"), each (N, ...). A comparison with fewer than
            `sizes.sample_count` members is left out: its distance would be biased differently from its bounds.
        generator_of: gives the generator for a purpose.

    Returns:
        mean and standard deviation over the repetitions by flat key: NAME, NAME_std, NAME_floor and so on.
    """
    roles = [role for role in sets if role != COMPARISON or len(sets[role]) >= sizes.sample_count]
    values: dict[str, list[float]] = {role: [] for role in roles}
    for repetition in tqdm(range(sizes.repetitions), desc=name, unit=" draws"):
        reference = random_subset(held_out, sizes.sample_count, generator_of("held_out", repetition))
        for role in roles:
            members = random_subset(sets[role], sizes.sample_count, generator_of(role, repetition))
            values[role].append(distance(members, reference))
    return flatten(name, {role: mean_and_deviation(distances) for role, distances in values.items()})


def averages(name: str, sets: Mapping[str, Tensor]) -> dict[str, float]:
    """The average of one number a sample, with its standard error, and the same average of the bounds.

    Args:
        name: of the metric.
        sets: by role, each (N,) numbers or booleans.
    """
    flat = flatten(name, {role: mean_and_error(values.double()) for role, values in sets.items()})
    return {key: value for key, value in flat.items() if not key.endswith(("_floor_std", "_ceiling_std"))}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divided by n - 1) of two or more repetitions."""
    std, mean = torch.std_mean(torch.tensor(values, dtype=torch.float64), correction=1)
    return float(mean), float(std)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values (N,) and its standard error, s / sqrt(N); 0 where all values are the same."""
    std, mean = torch.std_mean(values, correction=0)
    return float(mean), float(std) / math.sqrt(len(values))


def flatten(name: str, measured: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Value and deviation by role to flat keys: NAME, comparison_NAME, NAME_floor, NAME_ceiling, and each with _std."""
    keys = {FLOOR: f"{name}_floor", CEILING: f"{name}_ceiling", COMPARISON: f"comparison_{name}"}
    flat: dict[str, float] = {}
    for role, (value, deviation) in measured.items():
        key = keys.get(role, name)
        flat[key], flat[f"{key}_std"] = rounded(value), rounded(deviation)
    return flat


def rounded(value: float) -> float:
    """Six significant digits: more than any of these numbers deserves, and the same on every machine."""
    return float(f"{value:.6g}")
