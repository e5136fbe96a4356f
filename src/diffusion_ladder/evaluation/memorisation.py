"""Does a model make something new, or does it repeat what it was trained on?

Everything here rests on distances to training data in pixel space: of images, the root mean square difference of their
pixel values (0 to 255), of points the Euclidean distance in data units. They are exact: bytes are multiplied such that
no sum is ever rounded, so that neither chunks nor threads change a number. Training data that repeat each other count
once.

The floor is held-out data in the samples' place, which can't have been copied; the ceiling is training data in their
place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from diffusion_ladder.evaluation.bounds import ROLES, GeneratorOf, between_bounds, by_seed, subsets
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.params.evaluation import Memorisation

Numbers = dict[str, float]

CHUNK = 1024  # rows of either side in memory at once
EXACT_FEATURES = 1024  # float32 holds every sum of so many products of numbers from -128 to 127: they stay below 2^24
BYTES_SPACE = "pixel values from 0 to 255, root mean square difference"
POINTS_SPACE = "Euclidean distance in units of the data"


@dataclass(frozen=True)
class Nearest:
    """Where N queries lie among the references.

    Attributes:
        distances: (N, 2) float64, to the nearest and to the second nearest reference; infinite where there is none.
        index: (N,) int64, of the nearest; the first of several at the same distance.
    """

    distances: Tensor
    index: Tensor


def nearest(queries: Tensor, references: Tensor, chunk: int = CHUNK) -> Nearest:
    """The nearest references of each query.

    Args:
        queries, references: (N, ...) and (M, ...), both uint8 or both float32.
        chunk: rows of either side that are compared at once; changes memory, not results.
    """
    parts = [nearest_of_chunk(rows, references, chunk) for rows in queries.flatten(1).split(chunk)]
    values = queries[0].numel() if queries.dtype == torch.uint8 else 1
    distances = torch.cat([part.distances for part in parts])  # squared
    return Nearest((distances / values).sqrt(), torch.cat([part.index for part in parts]))


def nearest_of_chunk(queries: Tensor, references: Tensor, chunk: int) -> Nearest:
    """As `nearest`, with squared distances, and with all queries at once: (N, D)."""
    infinite = torch.full((len(queries), 2), math.inf, dtype=torch.float64)
    found = Nearest(infinite, torch.zeros(len(queries), dtype=torch.int64))
    for start in range(0, len(references), chunk):
        block = references[start : start + chunk].flatten(1)
        other = two_smallest(squared_distances(queries, block))
        closer = other.distances[:, 0] < found.distances[:, 0]
        both = torch.cat([found.distances, other.distances], dim=1).sort(dim=1).values
        found = Nearest(both[:, :2], torch.where(closer, other.index + start, found.index))
    return found


def squared_distances(queries: Tensor, references: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M), float64, of rows (N, D) and (M, D), both uint8 or both floats.

    Of bytes by |a|^2 + |b|^2 - 2 ab, whose terms are integers that no step rounds; of floats from the differences,
    which lose no digits where rows are close.
    """
    if queries.dtype != torch.uint8:
        return torch.cdist(queries.double(), references.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    products = torch.zeros(len(queries), len(references), dtype=torch.float64)
    squares = [torch.zeros(len(rows), dtype=torch.float64) for rows in (queries, references)]
    for parts in zip(queries.split(EXACT_FEATURES, 1), references.split(EXACT_FEATURES, 1), strict=True):
        first, second = (part.float() - 128 for part in parts)
        products += first @ second.T
        squares = [total + part.square().sum(1) for total, part in zip(squares, (first, second), strict=True)]
    return squares[0][:, None] + squares[1] - 2 * products


def two_smallest(distances: Tensor) -> Nearest:
    """The two smallest values of each row (N, M), and where the first of the smallest stands."""
    smallest = distances.amin(1, keepdim=True)
    columns = torch.arange(distances.shape[1])
    index = torch.where(distances == smallest, columns, len(columns)).amin(1, keepdim=True)
    second = distances.scatter(1, index, math.inf).amin(1, keepdim=True)
    return Nearest(torch.cat([smallest, second], dim=1), index[:, 0])


def distinct(rows: Tensor) -> Tensor:
    """The rows (N, ...) without repetitions, in their order."""
    import numpy  # here, like SciPy below, to keep the start of other stages short

    flat = numpy.ascontiguousarray(rows.flatten(1).numpy())
    whole_rows = flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0]
    return rows[torch.from_numpy(numpy.sort(numpy.unique(whole_rows, return_index=True)[1]))]


def copied(distances: Tensor, ratio: float) -> Tensor:
    """Which samples count as copies: nearer to one training example than `ratio` times the distance to any other.

    The criterion of Yoon et al. 2023 and of Gu et al. 2023 (arXiv 2310.02664), with a ratio of 1/3.

    Args:
        distances: (N, 2) to the nearest and the second nearest.
    """
    return (distances[:, 0] == 0) | (distances[:, 0] < ratio * distances[:, 1])


def copying_score(samples: Tensor, held_out: Tensor) -> float:
    """The Mann-Whitney z of distances to the nearest training example, (N,) of samples and (M,) of held-out data.

    Z_U of Meehan, Chaudhuri and Dasgupta 2020 (arXiv 2004.05675, section 3): below zero where samples are nearer to the
    training data than held-out data are. It would be standard normal if both came from the same distribution.
    """
    from scipy.stats import mannwhitneyu

    n, m = len(samples), len(held_out)
    farther = mannwhitneyu(samples.numpy(), held_out.numpy(), method="asymptotic").statistic  # pairs; ties are halves
    return float((farther - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def c_t(samples: Tensor, held_out: Tensor, sample_cells: Tensor, held_out_cells: Tensor) -> float:
    """The statistic C_T (arXiv 2004.05675, eq. 3): the mean z over the cells of a partition, by their held-out share.

    Cells keep a model that draws too many of the easy examples, which lie close to each other, from looking like a
    copyist. A cell that one of the two sets doesn't reach says nothing; where all are such, there is one cell.

    Args:
        samples, held_out: (N,) and (M,) distances to the nearest training example.
        sample_cells, held_out_cells: (N,) and (M,) int64, the cell of each.
    """
    shared = [cell for cell in held_out_cells.unique().tolist() if (sample_cells == cell).any()]
    if not shared:
        return copying_score(samples, held_out)
    inside = [(samples[sample_cells == cell], held_out[held_out_cells == cell]) for cell in shared]
    weights = [len(part) for _, part in inside]
    scores = [copying_score(*parts) for parts in inside]
    return sum(weight * score for weight, score in zip(weights, scores, strict=True)) / sum(weights)


def cells_of(sets: Mapping[str, Tensor], train: Tensor, count: int, draws: Generator) -> dict[str, Tensor]:
    """The cell of each row (N,): that of the nearest of `count` centres, which k-means finds in training rows."""
    from scipy.cluster.vq import kmeans2, vq

    seed = int(torch.randint(2**31, (), generator=draws))
    centres, _ = kmeans2(train.flatten(1).double().numpy(), count, minit="++", rng=seed)

    def cells(rows: Tensor) -> Tensor:
        return torch.cat([torch.from_numpy(vq(part.double().numpy(), centres)[0]) for part in rows.split(CHUNK)])

    return {role: cells(rows.flatten(1)) for role, rows in sets.items()}


def verdict(numbers: Numbers, settings: Memorisation) -> str:
    """In words, whether the samples are copies.

    A sign of it is more exact duplicates than among held-out data, a share of copies above theirs by more than
    `copied_excess`, or a C_T below -`c_t_limit`.
    """
    share, usual = numbers["copied_share"], numbers["copied_share_floor"]
    duplicates, score = numbers["exact_duplicates"], numbers["c_t"]
    compared = f"{share:.1%} of the samples are far closer to one training example than to any other"
    nearer = f"samples lie closer to the training data than held-out data (C_T = {score:.1f})"
    signs = {
        f"{duplicates:.2%} of the samples equal a training example": duplicates > numbers["exact_duplicates_floor"],
        f"{compared}, of held-out data {usual:.1%}": share - usual > settings.copied_excess,
        nearer: score < -settings.c_t_limit,
    }
    if any(signs.values()):
        return f"Signs of memorisation: {'; '.join(words for words, seen in signs.items() if seen)}."
    place = "farther from the training data than" if score > settings.c_t_limit else "as far from the training data as"
    return (
        f"No sign of memorisation: {compared}, of held-out data {usual:.1%}; samples lie {place} "
        f"held-out data (C_T = {score:.1f}); exact copies are no more frequent."
    )


def suspects(distances: Tensor, count: int) -> Tensor:
    """The rows that look most like copies, (count,): by the nearest distance over the second nearest, then the nearest.

    Args:
        distances: (N, 2) to both.
    """
    nearest_first = distances[:, 0].argsort(stable=True)
    ratios = torch.where(distances[:, 0] == 0, 0.0, distances[:, 0] / distances[:, 1])
    return nearest_first[ratios[nearest_first].argsort(stable=True)][:count]


def lineup(samples: Tensor, found: Nearest, train: Tensor, held_out: Tensor, count: int) -> dict[str, Tensor]:
    """The samples that look most like copies, each beside its nearest training example and its nearest held-out one."""
    worst = suspects(found.distances, count)
    elsewhere = nearest(samples[worst], held_out)
    return {
        "neighbours.samples": samples[worst],
        "neighbours.training": train[found.index[worst]],
        "neighbours.held_out": held_out[elsewhere.index],
        "neighbours.training_distances": found.distances[worst],  # (count, 2): nearest and second nearest
        "neighbours.held_out_distances": elsewhere.distances[:, 0].clone(),
    }


@dataclass(frozen=True)
class Located:
    """Where N rows lie: their distances (N, 2) to the training data, and their cells (N,)."""

    distances: Tensor
    cells: Tensor

    def rows(self, chosen: Tensor) -> "Located":
        """Some of them."""
        return Located(self.distances[chosen], self.cells[chosen])


def measure(rows: Located, held_out: Located, ratio: float) -> dict[str, float]:
    """What is measured of a set of rows beside other ones, held out."""
    closest = rows.distances[:, 0]
    return {
        "copied_share": float(copied(rows.distances, ratio).double().mean()),
        "exact_duplicates": float((closest == 0).double().mean()),
        "nearest_training_distance": float(closest.mean()),
        "c_t": c_t(closest, held_out.distances[:, 0], rows.cells, held_out.cells),
    }


def over_seeds(sets: Mapping[str, Located], members: Sequence[Tensor], ratio: float, draws: Generator) -> Numbers:
    """Mean and deviation over the sampling seeds, for the samples and their bounds.

    For each seed the held-out rows are halved anew: one half is the floor, all are measured beside the other one.

    Args:
        sets: `samples`, `floor` (2 N rows) and `ceiling` (N rows).
        members: for each seed, which samples are its own; N of them are taken.
    """
    size = len(sets["ceiling"].cells)
    halves = subsets(torch.arange(2 * size), size, 2 * len(members), draws)
    measured: dict[str, list[Numbers]] = {role: [] for role in ROLES}
    for of_seed, half, other in zip(members, halves[::2], halves[1::2], strict=True):
        held_out = sets["floor"].rows(other)
        rows = {"samples": subsets(of_seed, size, 1, draws)[0], "floor": half, "ceiling": torch.arange(size)}
        for role, chosen in rows.items():
            measured[role].append(measure(sets[role].rows(chosen), held_out, ratio))
    return between_bounds(measured)


def evaluate_memorisation(
    samples: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    settings: Memorisation,
    sample_count: int,
    generator_of: GeneratorOf,
) -> Findings:
    """Whether samples are copies of training data; each number with its floor and its ceiling.

    - copied_share: of samples whose nearest training example is nearer than `settings.ratio` times the second nearest.
      That happens by chance too, the more so the fewer dimensions there are: the floor tells how often.
    - exact_duplicates: the share of samples that equal a training example.
    - nearest_training_distance: the mean distance to the nearest training example.
    - c_t: see there.
    - memorisation_verdict: in words.

    Args:
        samples: `samples` (S N, ...), `sampling_seed` (S N,).
        data: `train`, `test` (M, ...).
        sample_count: rows of each set; less where half of the held-out data are fewer.
    """

    def draws(purpose: str) -> Generator:
        return generator_of("memorisation", purpose)

    train, drawn = distinct(data["train"]), samples["samples"]
    size = min(sample_count, len(data["test"]) // 2, len(train))
    held_out = subsets(data["test"], 2 * size, 1, draws("held_out"))[0]
    sets = {"samples": drawn, "floor": held_out, "ceiling": subsets(train, size, 1, draws("ceiling"))[0]}
    found = {role: nearest(rows, train) for role, rows in sets.items()}
    cells = cells_of(sets, sets["ceiling"], min(settings.cells, size), draws("cells"))
    located = {role: Located(found[role].distances, cells[role]) for role in sets}
    members = by_seed(torch.arange(len(drawn)), samples["sampling_seed"])
    numbers = over_seeds(located, members, settings.ratio, draws("halves"))
    facts = {
        "memorisation_verdict": verdict(numbers, settings),
        "memorisation_space": BYTES_SPACE if drawn.dtype == torch.uint8 else POINTS_SPACE,
        "memorisation_count": size,
        "training_repetitions": len(data["train"]) - len(train),
    }
    tensors = {
        "neighbours.distances": found["samples"].distances,
        "neighbours.distances_of_held_out": found["floor"].distances,
    }
    shown = lineup(drawn, found["samples"], train, data["test"], settings.shown)
    return Findings(numbers | facts, tensors=tensors | shown)
