"""The metrics of 2D samples, held against closed forms, other solvers and scikit-learn's noise-free curves."""

import math
import statistics
from functools import partial

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.datasets import make_circles, make_moons

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import averages, by_seed, equal_sets, noise_like, over_seeds, subsets
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.points import (
    curve_distances,
    energy_distance,
    evaluate_points,
    random_directions,
    sliced_wasserstein_2,
    two_sample_accuracy,
    two_sample_p_value,
    wasserstein_2,
)
from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.evaluation import exhibits
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.randomness import generator

DRAW = {"make_circles": partial(make_circles, factor=0.5), "make_moons": make_moons}
SEEDS = 3
SETTINGS = (
    load_parameters()
    .rungs["circles"]
    .evaluation.model_copy(update={"sample_count": 200, "smaller_counts": [50], "projections": 50})
)
DISTANCES = ("wasserstein_2", "sliced_wasserstein_2", "energy_distance", "two_sample_accuracy")


def card(source, noise=0.05, **parameters):
    return {
        "source": source,
        "parameters": {"noise": noise, **parameters, **({"factor": 0.5} if "circ" in source else {})},
    }


def real_points(source, count, seed, noise=0.05):
    return torch.from_numpy(DRAW[source](count, noise=noise, random_state=seed)[0]).float()


def normal_points(count, seed, shift=0.0, scale=1.0):
    """Points of a Gaussian with the mean (shift, 0)."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scale * points + torch.tensor([shift, 0.0], dtype=torch.float64)


def found_out(source, samples, noise=0.05, seed=0):
    """The findings about samples (N, 2), a third of them from each sampling seed."""
    data = {"train": real_points(source, 600, 1, noise), "test": real_points(source, 600, 2, noise)}
    mean, std = data["train"].mean(dim=0), data["train"].std(dim=0)
    normalisation = Normalisation(tuple(mean.tolist()), tuple(std.tolist()), bytes=False)
    generator_of = partial(generator, seed, "evaluate", source)
    groups = samples.split(len(samples) // SEEDS)
    return evaluate_points(groups, data, normalisation, card(source, noise), SETTINGS, generator_of)


def evaluated(*arguments, **options):
    return found_out(*arguments, **options).numbers


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_wasserstein_of_a_translation_is_its_length(x, y):
    points = real_points("make_moons", 60, 0)
    assert wasserstein_2(points, points.double() + torch.tensor([x, y], dtype=torch.float64)) == pytest.approx(
        math.hypot(x, y), abs=1e-7
    )


@given(st.floats(-2, 2), st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0, math.pi))
@settings(max_examples=20, deadline=None)
def test_wasserstein_of_two_gaussians(shift, first, second, angle):
    # Dowson and Landau 1982, for I and A^2: |m|^2 + Tr(I + A^2 - 2 A), and the map x -> A x + m is the cheapest
    raw = normal_points(80, 0)
    raw = raw - raw.mean(dim=0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / 80)).T  # mean 0 and covariance I, exactly
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    stretch = turn @ torch.diag(torch.tensor([first, second], dtype=torch.float64)) @ turn.T
    expected = math.sqrt(shift**2 + (first - 1) ** 2 + (second - 1) ** 2)
    moved = white @ stretch + torch.tensor([shift, 0.0], dtype=torch.float64)
    assert wasserstein_2(white, moved) == pytest.approx(expected, abs=1e-7)


def test_wasserstein_on_a_line_pairs_the_sorted_points():
    first, second = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (first.sort().values - second.sort().values).square().mean().sqrt()
    on_a_line = [torch.stack([values, torch.zeros(100)], dim=1) for values in (first, second)]
    assert wasserstein_2(*on_a_line) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("source", DRAW)
def test_wasserstein_agrees_with_the_hungarian_algorithm(source):
    first, second = real_points(source, 300, 3).double(), real_points(source, 300, 4).double()
    cost = cdist(first, second, "sqeuclidean")
    expected = math.sqrt(cost[linear_sum_assignment(cost)].mean())
    assert wasserstein_2(first, second) == pytest.approx(expected, abs=1e-12)


def test_wasserstein_of_sets_of_different_sizes_counts_each_set_as_one_unit_of_mass():
    points = real_points("make_circles", 50, 0)
    assert wasserstein_2(points, points.repeat(3, 1)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("source", DRAW)
def test_all_distances_grow_with_the_noise_that_is_added(source):
    points, others, noise = real_points(source, 300, 0), real_points(source, 300, 1), normal_points(300, 2)
    directions = random_directions(50, torch.Generator().manual_seed(0))
    for distance in (
        wasserstein_2,
        partial(sliced_wasserstein_2, directions=directions),
        energy_distance,
        lambda first, second: two_sample_accuracy(first, second, torch.Generator().manual_seed(0)),
    ):
        found = [distance(points + scale * noise, others) for scale in (0.05, 0.15, 0.3, 0.6)]
        assert found == sorted(found)


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_sliced_wasserstein_of_a_translation_is_its_length_along_the_lines(x, y):
    points, shift = normal_points(40, 0), torch.tensor([x, y], dtype=torch.float64)
    directions = random_directions(30, torch.Generator().manual_seed(1))
    expected = (shift @ directions).square().mean().sqrt()
    assert sliced_wasserstein_2(points, points + shift, directions) == pytest.approx(float(expected), abs=1e-9)


def test_sliced_wasserstein_pairs_the_sorted_shadows():
    first, second = normal_points(70, 0), normal_points(70, 1, shift=0.5, scale=2.0)
    directions = random_directions(30, torch.Generator().manual_seed(1))
    gaps = (first @ directions).sort(dim=0).values - (second @ directions).sort(dim=0).values
    found = sliced_wasserstein_2(first, second, directions)
    assert found == pytest.approx(float(gaps.square().mean().sqrt()), abs=1e-12)
    assert found < wasserstein_2(first, second)


def test_directions_are_unit_vectors_all_around():
    directions = random_directions(20_000, torch.Generator().manual_seed(0))
    assert torch.allclose(directions.norm(dim=0), torch.ones(20_000, dtype=torch.float64))
    assert torch.allclose(directions @ directions.T / 20_000, torch.eye(2, dtype=torch.float64) / 2, atol=0.01)


def test_energy_distance_on_a_line_is_scipys_but_for_the_points_own_pairs():
    first, second = normal_points(50, 0)[:, :1], normal_points(80, 1, shift=0.7)[:, :1]
    within = [float((points - points.T).abs().mean()) for points in (first, second)]
    squared = scipy.stats.energy_distance(first[:, 0], second[:, 0]) ** 2  # a point and itself count as a pair there
    expected = squared - within[0] / (50 - 1) - within[1] / (80 - 1)
    assert energy_distance(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_energy_distance_of_two_gaussians(shift):
    # X - Y is Gaussian with variance 2 and mean (shift, 0): its length has a Rice distribution, X - X' a Rayleigh one
    across = scipy.stats.rice.mean(shift / math.sqrt(2), scale=math.sqrt(2))
    expected = 2 * across - 2 * scipy.stats.rayleigh.mean(scale=math.sqrt(2))
    found = [energy_distance(normal_points(400, 2 * i, shift), normal_points(400, 2 * i + 1)) for i in range(40)]
    error = statistics.stdev(found) / math.sqrt(len(found))
    assert statistics.mean(found) == pytest.approx(expected, abs=4 * error)  # so it is unbiased, too
    assert 4 * error < max(0.025, 0.1 * expected)


def test_energy_distance_is_the_mean_of_random_sets_whatever_their_size():
    for count in (5, 50):
        found = [energy_distance(normal_points(count, 2 * i), normal_points(count, 2 * i + 1)) for i in range(400)]
        assert abs(statistics.mean(found)) < 4 * statistics.stdev(found) / math.sqrt(len(found))


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_a_classifier_tells_two_gaussians_apart_as_often_as_can_be(shift):
    first, second = normal_points(1500, 0), normal_points(1500, 1, shift)
    best = scipy.stats.norm.cdf(shift / 2)  # of the half plane nearer to a mean, which no classifier surpasses
    accuracy = two_sample_accuracy(first, second, torch.Generator().manual_seed(0))
    assert accuracy == pytest.approx(best, abs=0.035)


def test_guessing_has_the_spread_and_the_p_values_of_guessing():
    found = [
        two_sample_accuracy(normal_points(200, 2 * i), normal_points(200, 2 * i + 1), torch.Generator().manual_seed(i))
        for i in range(200)
    ]
    assert statistics.mean(found) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(200 * 200))
    assert statistics.stdev(found) == pytest.approx(0.5 / math.sqrt(200), rel=0.2)
    assert sum(two_sample_p_value(accuracy, 200) < 0.1 for accuracy in found) < 2 * 0.1 * 200
    assert two_sample_p_value(0.6, 10) == pytest.approx(sum(math.comb(10, k) for k in (6, 7, 8, 9, 10)) / 2**10)


@pytest.mark.parametrize("source", DRAW)
def test_distances_to_the_curves_are_those_to_their_finely_drawn_points(source):
    drawn, labels = DRAW[source](20_000, noise=None)
    probes = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 5 - torch.tensor([2.0, 2.5])
    nearest = [cdist(probes, drawn[labels == label]).min(axis=1) for label in (0, 1)]
    expected = torch.from_numpy(nearest[0]), torch.from_numpy(nearest[1])
    # the drawn points are at most 6.3e-4 apart, so that a probe on the curve is up to half of this from one of them
    assert torch.allclose(curve_distances(probes, card(source)), torch.stack(expected, dim=1), rtol=0, atol=3.2e-4)


@pytest.mark.parametrize("source", DRAW)
def test_points_without_noise_lie_on_the_curve_of_their_label(source):
    drawn, labels = DRAW[source](500, noise=None)
    distances = curve_distances(torch.from_numpy(drawn), card(source))
    assert distances[torch.arange(500), torch.from_numpy(labels)].max() < 1e-12


def test_a_source_without_a_known_curve_is_refused():
    with pytest.raises(ValueError, match="make_blobs"):
        curve_distances(torch.zeros(3, 2), {"source": "make_blobs", "parameters": {}})


def test_the_share_outside_the_tube_of_real_circles_is_that_of_three_standard_deviations():
    # the noise is nearly radial seen from a circle: two-sided tail of a Gaussian, 0.27 %
    metrics = evaluated("make_circles", real_points("make_circles", 39_999, 5))
    assert metrics["outside_tube_share"] == pytest.approx(math.erfc(3 / math.sqrt(2)), abs=0.001)
    assert metrics["tube_radius"] == 0.15


@pytest.mark.parametrize("source", DRAW)
def test_real_points_score_like_the_floor_and_noise_like_the_ceiling(source):
    train = real_points(source, 600, 1)
    normal = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    real = evaluated(source, real_points(source, 600, 7))
    noise = evaluated(source, train.mean(dim=0) + train.std(dim=0) * normal)
    for name in (*DISTANCES, "outside_tube_share"):
        floor, ceiling = real[f"{name}_floor"], real[f"{name}_ceiling"]
        assert real[name] - floor < 0.4 * (ceiling - floor)
        assert noise[name] - floor > 0.6 * (ceiling - floor)


@pytest.mark.parametrize("source", DRAW)
def test_a_dropped_mode_shows(source):
    points, labels = DRAW[source](1200, noise=0.05, random_state=3)
    dropped = evaluated(source, torch.from_numpy(points[labels == 0]).float())
    assert dropped["first_curve_share"] > 0.98
    assert dropped["first_curve_share_floor"] == pytest.approx(0.5, abs=0.02)
    assert dropped["class_balance_distance"] == pytest.approx(0.5, abs=0.08)
    for name in DISTANCES:
        excess, spread = dropped[name] - dropped[f"{name}_floor"], dropped[f"{name}_floor_std"]
        assert excess > 5 * spread, name
    assert dropped["two_sample_p_value"] < 1e-9 < 1e-3 < dropped["two_sample_p_value_floor"]
    assert dropped["outside_tube_share"] < 0.02  # which is why it alone would not do


def test_the_keys_are_flat_numbers_with_their_bounds():
    metrics = evaluated("make_moons", real_points("make_moons", 600, 4))
    for name in (*DISTANCES, "class_balance_distance", "outside_tube_share", "first_curve_share"):
        for suffix in ("", "_std", "_floor", "_floor_std", "_ceiling", "_ceiling_std"):
            assert isinstance(metrics[name + suffix], float)
        assert metrics[f"{name}_std"] >= 0
    assert metrics["two_sample_null_std"] == pytest.approx(0.5 / math.sqrt(200), rel=1e-5)


def test_the_curve_over_the_sample_size_ends_in_the_numbers_and_shows_which_of_them_are_biased():
    findings = found_out("make_moons", real_points("make_moons", 600, 4))
    small, large = findings.tables["sample_size"]
    assert (small["size"], large["size"]) == (50, 200)
    assert large.items() - {("size", 200)} <= findings.numbers.items()
    for name in ("wasserstein_2", "sliced_wasserstein_2"):
        assert small[f"{name}_floor"] > 1.3 * large[f"{name}_floor"]


def test_the_curve_is_drawn_with_the_numbers_in_its_caption():
    findings = found_out("make_moons", real_points("make_moons", 600, 4))
    with house_style():
        (drawn,), (again,) = list(exhibits(findings)), list(exhibits(findings))
    small, large = (row["wasserstein_2_floor"] for row in findings.tables["sample_size"])
    assert f"from {small:.3g} with 50 members to {large:.3g} with 200" in drawn.caption
    assert "4 panels" in drawn.alt
    assert drawn == again
    assert list(exhibits(Findings(findings.numbers))) == []


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    samples = real_points("make_circles", 600, 4)
    assert evaluated("make_circles", samples) == evaluated("make_circles", samples)
    assert evaluated("make_circles", samples) != evaluated("make_circles", samples, seed=1)


def test_data_without_noise_have_no_tube():
    assert "outside_tube_share" not in evaluated("make_circles", real_points("make_circles", 600, 4), noise=0.0)


def test_subsets_of_a_set_share_members_only_where_it_does_not_suffice():
    values, draws = torch.arange(50), torch.Generator().manual_seed(0)
    assert len(torch.cat(subsets(values, 16, 3, draws)).unique()) == 48
    more = subsets(values, 16, 4, draws)
    assert [len(subset.unique()) for subset in more] == [16] * 4
    assert len(torch.cat(more).unique()) < 64
    with pytest.raises(ValueError, match=r"51.*only 50"):
        subsets(values, 51, 1, draws)


def test_noise_has_the_mean_and_deviation_of_the_data():
    normalisation = Normalisation((0.5, -2.0), (0.1, 3.0), bytes=False)
    noise = noise_like(torch.zeros(1, 2), 20_000, normalisation, torch.Generator().manual_seed(0))
    assert torch.allclose(noise.mean(dim=0), torch.tensor([0.5, -2.0]), atol=0.1)
    assert torch.allclose(noise.std(dim=0), torch.tensor([0.1, 3.0]), rtol=0.03)


def test_the_deviation_of_a_share_is_over_the_seeds_and_that_of_a_bound_is_of_a_binomial_count():
    seeds = [torch.tensor([True] * n + [False] * (20 - n)) for n in (4, 6, 11)]
    real = torch.tensor([True] * 30 + [False] * 70)
    measured = averages("share", seeds, floor=real)
    shares = [0.2, 0.3, 0.55]
    assert measured == {
        "share": 0.35,
        "share_std": pytest.approx(statistics.stdev(shares), rel=1e-5),
        "share_floor": 0.3,
        "share_floor_std": pytest.approx(math.sqrt(0.3 * 0.7 / 100), rel=1e-5),
    }


def test_samples_are_grouped_by_their_seed():
    groups = by_seed(torch.tensor([10, 11, 20, 21, 12]), torch.tensor([0, 0, 1, 1, 0]))
    assert [group.tolist() for group in groups] == [[10, 11, 12], [20, 21]]


def test_each_seed_meets_held_out_data_of_its_own_and_its_bounds_the_same():
    samples = torch.arange(0.0, 10), torch.arange(10.0, 20)
    pools = torch.arange(100.0, 120), torch.arange(200.0, 220), torch.arange(300.0, 320)
    sets = equal_sets(samples, *pools, size=8, generator_of=partial(generator, 0))
    assert [bool(of_seed.samples.max() < 10) for of_seed in sets] == [True, False]
    assert not set(sets[0].held_out.tolist()) & set(sets[1].held_out.tolist())
    measured = over_seeds("gaps", lambda some, real: {"gap": float(real.mean() - some.mean())}, sets)
    for key, of_seeds in {
        "gap": [float(each.held_out.mean() - each.samples.mean()) for each in sets],
        "gap_floor": [float(each.held_out.mean() - each.floor.mean()) for each in sets],
        "gap_ceiling": [float(each.held_out.mean() - each.ceiling.mean()) for each in sets],
    }.items():
        assert measured[key] == pytest.approx(statistics.mean(of_seeds), rel=1e-5)
        assert measured[f"{key}_std"] == pytest.approx(statistics.stdev(of_seeds), rel=1e-5)
