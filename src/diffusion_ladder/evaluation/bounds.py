"""A metric between its bounds: every number beside what real data and what pure noise would score.

The floor is real data in the samples' place, the ceiling is noise in their place: standard normal in the network's
units, which is where every sampler starts. Both are measured like the samples, against the same held-out data.

A rung's samples are drawn several times over, each time from another sampling seed. What is measured is measured once
for each seed; mean and standard deviation are those over the seeds. Two kinds of metric need two kinds of care:

- a distance between sets is biased by their sizes: it falls as they grow. So all sets have the same size. Sampling seed
  s meets the held-out subset s, and so do the training subset s (the floor) and the noise s (the ceiling); subsets of
  one split have no member in common as far as the split suffices;
- an average over single samples has no such bias. So it uses every sample of a seed, its floor is the average of all
  held-out data, and the deviation of a bound is its standard error.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation, unnormalise
from diffusion_ladder.evaluation.findings import Rows

GeneratorOf = Callable[..., Generator]  # called with the words and numbers of a purpose
Measure = Callable[[Tensor, Tensor], Mapping[str, float]]  # some set and the held-out one to numbers by name

ROLES = {"samples": "", "floor": "_floor", "ceiling": "_ceiling"}  # and what they add to a metric's key


@dataclass(frozen=True)
class EqualSets:
    """What one sampling seed drew, its bounds and what all three are held against; (N, ...) of the same N each."""

    samples: Tensor
    floor: Tensor
    ceiling: Tensor
    held_out: Tensor

    def first(self, count: int) -> "EqualSets":
        """The first `count` members of each: as random as the whole, and as equal in size."""
        return EqualSets(self.samples[:count], self.floor[:count], self.ceiling[:count], self.held_out[:count])


def by_seed(values: Tensor, sampling_seed: Tensor) -> list[Tensor]:
    """Values (S N, ...) in groups of one sampling seed, in the order of the seeds; sampling_seed: (S N,)."""
    return [values[sampling_seed == seed] for seed in sampling_seed.unique().tolist()]


def subsets(values: Tensor, size: int, count: int, draws: Generator) -> list[Tensor]:
    """`count` random subsets (size, ...) of `values` (N, ...), cut from one shuffled row of them after the other.

    So subsets have members in common only where N is less than size times count.

    Raises:
        ValueError: fewer than `size` values are there.
    """
    if len(values) < size:
        raise ValueError(f"a subset of {size} was asked for, but there are only {len(values)}")
    found: list[Tensor] = []
    while len(found) < count:
        row = torch.randperm(len(values), generator=draws)
        found += [values[members] for members in row.split(size) if len(members) == size]
    return found[:count]


def noise_like(example: Tensor, count: int, normalisation: Normalisation, generator: Generator) -> Tensor:
    """Pure noise in data units, (count, ...) like `example` (N, ...): standard normal in the network's units."""
    return unnormalise(torch.randn(count, *example.shape[1:], generator=generator), normalisation)


def equal_sets(
    samples: Sequence[Tensor], train: Tensor, noise: Tensor, held_out: Tensor, size: int, generator_of: GeneratorOf
) -> list[EqualSets]:
    """The sets that are compared, `size` members each, for every sampling seed.

    The same for whatever is known of the same data in the same order: of images, of their features, of their classes.

    Args:
        samples: by sampling seed, each (N, ...) with N of `size` or more.
        train, noise, held_out: (M, ...) with M of `size` or more.
        generator_of: gives the generator for a purpose.
    """
    drawn = [subsets(of_seed, size, 1, generator_of("samples", s))[0] for s, of_seed in enumerate(samples)]
    pools = {"floor": train, "ceiling": noise, "held_out": held_out}
    chosen = {role: subsets(pool, size, len(samples), generator_of(role)) for role, pool in pools.items()}
    return [EqualSets(*sets) for sets in zip(drawn, *chosen.values(), strict=True)]


def over_seeds(what: str, measure: Measure, sets: Sequence[EqualSets]) -> dict[str, float]:
    """Mean and standard deviation over the sampling seeds, for the samples and for their bounds.

    Args:
        what: is measured, for the progress bar.
        measure: holds a set against the held-out one of the same size.
        sets: of each sampling seed, of which there are two or more.

    Returns:
        by flat key: NAME, NAME_std, NAME_floor and so on, for every NAME that `measure` gives.
    """
    measured: dict[str, list[Mapping[str, float]]] = {role: [] for role in ROLES}
    for of_seed in tqdm(sets, desc=what, unit=" seeds"):
        for role in ROLES:
            measured[role].append(measure(getattr(of_seed, role), of_seed.held_out))
    return between_bounds(measured)


def between_bounds(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Mean and deviation of every number by flat key.

    Args:
        measured: by role, for each sampling seed the numbers by name.
    """
    flat: dict[str, float] = {}
    for name in measured["samples"][0]:
        for role, suffix in ROLES.items():
            flat |= entry(name + suffix, *mean_and_deviation([values[name] for values in measured[role]]))
    return flat


def by_size(what: str, measure: Measure, sets: Sequence[EqualSets], sizes: Sequence[int]) -> Rows:
    """The same for the first so many members of all sets: a row for each size, with `size` before the flat keys."""
    rows: Rows = []
    for size in sizes:
        smaller = [of_seed.first(size) for of_seed in sets]
        rows.append({"size": size, **over_seeds(f"{what} of {size}", measure, smaller)})
    return rows


def averages(
    name: str, samples: Sequence[Tensor], floor: Tensor | None = None, ceiling: Tensor | None = None
) -> dict[str, float]:
    """The average of one number a sample, with its deviation over the sampling seeds, and the averages of the bounds.

    Args:
        name: of the metric.
        samples: by sampling seed, each (N,) numbers or booleans; of two seeds or more.
        floor, ceiling: (M,) of all held-out data, of noise; their deviation is the standard error of the average.
    """
    flat = entry(name, *mean_and_deviation([float(of_seed.double().mean()) for of_seed in samples]))
    for suffix, values in (("_floor", floor), ("_ceiling", ceiling)):
        flat |= {} if values is None else entry(name + suffix, *mean_and_error(values.double()))
    return flat


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divided by n - 1) over two or more sampling seeds."""
    std, mean = torch.std_mean(torch.tensor(values, dtype=torch.float64), correction=1)
    return float(mean), float(std)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values (N,) and its standard error, s / sqrt(N); 0 where all values are the same."""
    std, mean = torch.std_mean(values, correction=0)
    return float(mean), float(std) / math.sqrt(len(values))


def entry(key: str, value: float, deviation: float) -> dict[str, float]:
    """A number and its deviation under their keys."""
    return {key: rounded(value), f"{key}_std": rounded(deviation)}


def rounded(value: float) -> float:
    """Six significant digits: more than any of these numbers deserves, and the same on every machine."""
    return float(f"{value:.6g}")
