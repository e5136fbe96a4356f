"""Copies light up every test of memorisation, new data none; and each number is what its definition says."""

import math
import re

import numpy
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm
from torch import Tensor

from diffusion_ladder.evaluation.memorisation import (
    c_t,
    copied,
    copying_score,
    distinct,
    evaluate_memorisation,
    nearest,
    suspects,
)
from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.memorisation import exhibits
from diffusion_ladder.params.evaluation import Memorisation
from diffusion_ladder.randomness import generator

SETTINGS = Memorisation(ratio=1 / 3, copied_excess=0.05, c_t_limit=3.0, cells=3, shown=4)
SEEDS, COUNT = 3, 150
NUMBERS = ("copied_share", "exact_duplicates", "nearest_training_distance", "c_t")


def blobs(count: int, seed: int, side: int = 6) -> Tensor:
    """Grey images (count, 1, side, side): a bright square at a random place, with noise."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=random) * (side - 1)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    squared = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    noise = 12 * torch.randn(count, side, side, generator=random)
    return (200 * torch.exp(-squared / 4) + noise + 25).clamp(0, 255).to(torch.uint8)[:, None]


def points(count: int, seed: int) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def evaluate(draw, samples: Tensor, seed: int = 0):
    data = {"train": draw(600, 1000 + seed), "test": draw(2 * COUNT, 2000 + seed)}
    drawn = {"samples": samples, "sampling_seed": torch.arange(SEEDS).repeat_interleave(COUNT)}
    return evaluate_memorisation(drawn, data, SETTINGS, COUNT, lambda *purpose: generator(seed, "test", *purpose))


@pytest.mark.parametrize("draw", [blobs, points])
@pytest.mark.parametrize("seed", range(4))
def test_new_data_light_up_nothing(draw, seed):
    numbers = evaluate(draw, draw(SEEDS * COUNT, 3000 + seed), seed).numbers
    assert numbers["memorisation_verdict"].startswith("No sign of memorisation")
    assert abs(numbers["copied_share"] - numbers["copied_share_floor"]) < 0.05
    assert numbers["exact_duplicates"] == numbers["exact_duplicates_floor"] == 0
    assert abs(numbers["c_t"]) < 3
    assert abs(numbers["c_t_floor"]) < 3
    assert numbers["nearest_training_distance"] == pytest.approx(numbers["nearest_training_distance_floor"], rel=0.2)


@pytest.mark.parametrize("draw", [blobs, points])
def test_a_copyist_lights_up_everything(draw):
    copies = draw(600, 1000)[: SEEDS * COUNT]
    numbers = evaluate(draw, copies).numbers
    verdict = numbers["memorisation_verdict"]
    assert verdict.startswith("Signs of memorisation")
    for words in ("100.0% of the samples are far closer", "100.00% of the samples equal", "lie closer"):
        assert words in verdict
    for name in ("copied_share", "exact_duplicates", "nearest_training_distance"):
        assert numbers[name] == numbers[f"{name}_ceiling"] == (name != "nearest_training_distance")
    assert numbers["c_t"] < -5
    assert numbers["c_t_ceiling"] < -5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_a_partial_copyist_with_noise_is_found_by_its_share(share):
    """Not exact: each copy differs from its original by a little noise, as a network's would."""
    new, originals = blobs(SEEDS * COUNT, 3000), blobs(600, 1000)[: SEEDS * COUNT]
    noise = torch.randint(-2, 3, originals.shape, generator=torch.Generator().manual_seed(0))
    copies = (originals.int() + noise).clamp(0, 255).to(torch.uint8)
    chosen = torch.rand(len(new), generator=torch.Generator().manual_seed(1)) < share
    numbers = evaluate(blobs, torch.where(chosen[:, None, None, None], copies, new)).numbers
    excess = numbers["copied_share"] - numbers["copied_share_floor"]
    assert excess == pytest.approx(float(chosen.double().mean()), abs=0.03)
    assert numbers["exact_duplicates"] == 0
    assert numbers["memorisation_verdict"].startswith("Signs" if share else "No sign")


@pytest.mark.parametrize("draw", [blobs, points])
def test_neighbours_are_those_of_a_plain_search_whatever_the_chunk(draw):
    queries, references = draw(37, 1), draw(101, 2)
    distances = cdist(queries.flatten(1).double().numpy(), references.flatten(1).double().numpy())  # SciPy's own loop
    scale = math.sqrt(36) if draw is blobs else 1.0
    expected = numpy.sort(distances, axis=1)[:, :2] / scale
    for chunk in (1, 7, 64, 1000):
        found = nearest(queries, references, chunk)
        assert numpy.allclose(found.distances.numpy(), expected, rtol=1e-12)
        assert numpy.array_equal(found.index.numpy(), distances.argmin(1))


def test_distances_of_bytes_are_exact_beyond_what_float32_could_sum():
    random = torch.Generator().manual_seed(0)
    queries = torch.randint(0, 256, (3, 3, 64, 64), generator=random, dtype=torch.uint8)
    references = torch.stack([queries[0], 255 - queries[0], queries[1]])
    references[2, 0, 0, 0] ^= 1  # one value in 12,288 differs, by one
    squared = (queries[:, None].long() - references.long()).square().sum((2, 3, 4))
    expected = (squared.double() / queries[0].numel()).sqrt().sort(1).values[:, :2]
    assert torch.equal(nearest(queries, references).distances, expected)
    assert nearest(queries, references).distances[0, 0] == 0
    assert nearest(queries, references).distances[1, 0] == math.sqrt(1 / 12288)


def test_the_first_of_several_nearest_is_named_whatever_the_chunk():
    references = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    for chunk in (1, 2, 4):
        found = nearest(torch.zeros(1, 2), references, chunk)
        assert found.index.tolist() == [1]
        assert found.distances.tolist() == [[1.0, 1.0]]
    assert nearest(torch.zeros(1, 2), references[:1]).distances.tolist() == [[3.0, math.inf]]


def test_repetitions_count_once_in_their_order():
    rows = torch.tensor([[2.0, 1.0], [0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 0.0]])
    assert distinct(rows).tolist() == [[2.0, 1.0], [0.0, 0.0], [1.0, 2.0]]
    train = blobs(50, 1).repeat(2, 1, 1, 1)
    near = (train[:5].int() + 1).clamp(0, 255).to(torch.uint8)  # near copies of rows that stand there twice
    assert not copied(nearest(near, train).distances, 1 / 3).any()
    assert copied(nearest(near, distinct(train)).distances, 1 / 3).all()


def test_copies_are_below_a_third_of_the_second_distance():
    distances = torch.tensor([[0.0, 0.0], [0.9, 3.0], [1.0, 3.0], [2.0, 3.0]], dtype=torch.float64)
    assert copied(distances, 1 / 3).tolist() == [True, True, False, False]
    assert suspects(distances[[3, 1, 0, 2]], 3).tolist() == [2, 1, 3]


def test_one_point_in_nine_looks_like_a_copy_in_the_plane():
    """For points spread evenly in D dimensions, P(d_1 < r d_2) = r^D."""
    random = torch.Generator().manual_seed(0)
    train, new = (torch.rand(count, 2, generator=random) for count in (4000, 8000))
    share = copied(nearest(new, train).distances, 1 / 3).double().mean().item()
    assert share == pytest.approx(1 / 9, abs=4 * math.sqrt(1 / 9 * 8 / 9 / 8000))


def test_the_score_is_that_of_the_rank_test():
    random = torch.Generator().manual_seed(0)
    nearer = torch.rand(40, generator=random, dtype=torch.float64) * 0.8
    held_out = torch.rand(70, generator=random, dtype=torch.float64)
    pairs = (nearer[:, None] > held_out).double().sum().item()  # U by its definition
    expected = (pairs - 40 * 70 / 2) / math.sqrt(40 * 70 * 111 / 12)
    assert copying_score(nearer, held_out) == pytest.approx(expected, rel=1e-12)
    p = mannwhitneyu(nearer.numpy(), held_out.numpy(), alternative="less", method="asymptotic", use_continuity=False)
    assert norm.cdf(copying_score(nearer, held_out)) == pytest.approx(p.pvalue, rel=1e-9)
    assert copying_score(nearer, held_out) == pytest.approx(-copying_score(held_out, nearer), rel=1e-12)
    assert copying_score(held_out, held_out) == 0


def test_cells_are_weighed_by_their_held_out_share():
    random = torch.Generator().manual_seed(0)
    samples, held_out = (torch.rand(count, generator=random, dtype=torch.float64) for count in (60, 90))
    mine = torch.tensor([0] * 40 + [2] * 20)
    others = torch.tensor([0] * 30 + [1] * 20 + [2] * 40)  # no sample lies in cell 1
    parts = [copying_score(samples[mine == cell], held_out[others == cell]) for cell in (0, 2)]
    assert c_t(samples, held_out, mine, others) == pytest.approx((30 * parts[0] + 40 * parts[1]) / 70, rel=1e-12)
    elsewhere = torch.full((60,), 7)
    assert c_t(samples, held_out, elsewhere, others) == copying_score(samples, held_out)


def test_too_many_easy_examples_are_not_taken_for_copies():
    """Half of the data lie close together; samples of that half alone are nearer to data without being copies."""

    def draw(count: int, seed: int, easy: float) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        tight = torch.rand(count, 1, generator=random) < easy
        spread = torch.randn(count, 2, generator=random)
        return torch.where(tight, 0.05 * spread, spread + 8)

    data = {"train": draw(600, 1, 0.5), "test": draw(2 * COUNT, 2, 0.5)}
    drawn = {"samples": draw(SEEDS * COUNT, 3, 0.95), "sampling_seed": torch.arange(SEEDS).repeat_interleave(COUNT)}

    def score(cells: int) -> float:
        settings = SETTINGS.model_copy(update={"cells": cells})
        found = evaluate_memorisation(drawn, data, settings, COUNT, lambda *purpose: generator(0, "test", *purpose))
        return found.numbers["c_t"]

    assert score(1) < -5
    assert abs(score(2)) < 3


@pytest.fixture(scope="module")
def findings():
    return evaluate(blobs, blobs(SEEDS * COUNT, 3000))


def test_the_lineup_shows_the_most_suspicious_beside_their_neighbours(findings):
    samples, train, test = blobs(SEEDS * COUNT, 3000), blobs(600, 1000), blobs(2 * COUNT, 2000)

    def to(others: Tensor) -> numpy.ndarray:
        return cdist(samples.flatten(1).double().numpy(), others.flatten(1).double().numpy()) / 6

    trained, held_out = to(train), to(test)
    ordered = numpy.sort(trained, axis=1)
    worst = numpy.argsort(ordered[:, 0] / ordered[:, 1])[: SETTINGS.shown].copy()
    found = {name.removeprefix("neighbours."): tensor for name, tensor in findings.tensors.items()}
    assert torch.equal(found["samples"], samples[worst])
    assert torch.equal(found["training"], train[trained[worst].argmin(1)])
    assert torch.equal(found["held_out"], test[held_out[worst].argmin(1)])
    assert numpy.allclose(found["training_distances"], ordered[worst, :2], rtol=1e-12)
    assert numpy.allclose(found["held_out_distances"], held_out[worst].min(1), rtol=1e-12)
    assert numpy.allclose(found["distances"], ordered[:, :2], rtol=1e-12)


def test_numbers_are_means_over_the_sampling_seeds(findings):
    for name in NUMBERS:
        for suffix in ("", "_floor", "_ceiling"):
            assert {name + suffix, f"{name}{suffix}_std"} <= findings.numbers.keys()
    shares = copied(findings.tensors["neighbours.distances"], 1 / 3).double().view(SEEDS, COUNT).mean(1)
    assert findings.numbers["copied_share"] == pytest.approx(shares.mean().item(), rel=1e-5)
    assert findings.numbers["copied_share_std"] == pytest.approx(shares.std().item(), rel=1e-5, abs=1e-12)


def test_figures_say_what_they_show(findings):
    with house_style():
        lineup, distances = exhibits(findings)
        (only,) = exhibits(evaluate(points, points(SEEDS * COUNT, 3000)))
    assert lineup.file == "neighbours.png"
    assert only.file == distances.file == "neighbours_distances.png"
    ratio = findings.tensors["neighbours.training_distances"][0]
    assert f"{ratio[0] / ratio[1]:.2f}" in lineup.alt
    assert f"worst {SETTINGS.shown} of {SEEDS * COUNT} samples" in lineup.caption
    assert not re.search("third|`", lineup.caption)  # whatever ratio counts as a copy; captions are no Markdown
