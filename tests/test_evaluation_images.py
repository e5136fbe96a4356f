"""The metrics of images, held against closed forms and other libraries."""

import itertools
import math
from functools import partial

import numpy
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import polynomial_kernel

from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.evaluation.classifier import Judgement, judge, new_classifier, train
from diffusion_ladder.evaluation.images import (
    Judged,
    Trial,
    class_balance_distance,
    covariance,
    evaluate_images,
    frechet_distance,
    kernel_distance,
    kernel_interval,
)
from diffusion_ladder.evaluation.inception import inception_features, load_inception
from diffusion_ladder.evaluation.labels import confusion, label_findings
from diffusion_ladder.evaluation.manifolds import manifold_metrics
from diffusion_ladder.foundation.artifacts import sha256_of_file
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.classifier import Classifier as Settings
from diffusion_ladder.params.evaluation import AccuracyScore, ImageEvaluation, Inception, Memorisation, TwoSampleTest
from diffusion_ladder.randomness import generator
from diffusion_ladder.torchvision_import import repair_torchvision

SETTINGS = Settings(
    channels=[8, 8],
    feature_size=8,
    steps=150,
    batch_size=32,
    learning_rate=5e-3,
    weight_decay=0.01,
    shift=1,
    flip=False,
    min_accuracy=0.9,
)
EVALUATION = ImageEvaluation(
    sample_count=60,
    smaller_counts=[20],
    neighbours=5,
    accuracy_score=AccuracyScore(steps=30, batch_size=16),
    memorisation=Memorisation(ratio=1 / 3, copied_excess=0.1, c_t_limit=3.0, cells=2, shown=2),
)


def random_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_moments(mean, covariance_matrix, count=500, seed=0):
    """Features whose sample mean and covariance are exactly those given (up to rounding)."""
    raw = torch.randn(count, len(mean), generator=random_generator(seed), dtype=torch.float64)
    centred = raw - raw.mean(dim=0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(covariance(centred))).T
    return white @ torch.linalg.cholesky(covariance_matrix).T + mean


def random_covariance(size, seed):
    root = torch.randn(size, 2 * size, generator=random_generator(seed), dtype=torch.float64)
    return root @ root.T / (2 * size)


def bars(count, seed, classes=2, size=8):
    """Noisy grey images (count, 1, size, size) whose bright column depends on their class, and the classes."""
    random = random_generator(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 100, (count, 1, size, size), generator=random)
    images[torch.arange(count), 0, :, 1 + (size - 3) * labels // max(1, classes - 1)] += 150
    return images.to(torch.uint8), labels


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Work this small is faster so, by far where others work beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def classifier():
    images, labels = bars(200, seed=0)
    network = new_classifier((1, 8, 8), SETTINGS, 2, random_generator())
    for _ in train(network, images, labels, IMAGES, SETTINGS, random_generator(1), random_generator(2)):
        pass
    return network


def findings_of(classifier, samples, labels=None, inception=None, batch_size=256, **changes):
    (train_images, train_labels), (test, test_labels) = bars(200, seed=0), bars(120, seed=1)
    labels = torch.full((len(samples),), -1) if labels is None else labels
    drawn = {"samples": samples, "labels": labels, "sampling_seed": torch.arange(len(samples)) * 2 // len(samples)}
    data = {"train": train_images, "train_labels": train_labels, "test": test, "test_labels": test_labels}
    settings = EVALUATION.model_copy(update=changes)
    how = ["left", "right"], settings, partial(generator, 0), batch_size, inception
    return evaluate_images(Trial(drawn, data, IMAGES, classifier, SETTINGS, *how))


def evaluated(*arguments, **options):
    return findings_of(*arguments, **options).numbers


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(0.1, 3), st.floats(0.1, 3)), min_size=1, max_size=5),
    st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_frechet_distance_of_diagonal_gaussians(moments, seed):
    shift, first, second = torch.tensor(moments, dtype=torch.float64).T
    expected = shift.square().sum() + (first - second).square().sum()  # first and second are standard deviations
    left = with_moments(torch.zeros_like(shift), torch.diag(first.square()), seed=seed)
    right = with_moments(shift, torch.diag(second.square()), seed=seed + 1)
    assert frechet_distance(left, right) == pytest.approx(float(expected), abs=1e-9)


def test_frechet_distance_of_full_covariances_that_commute():
    axes, _ = torch.linalg.qr(torch.randn(6, 6, generator=random_generator(), dtype=torch.float64))
    first, second = torch.linspace(0.1, 2, 6, dtype=torch.float64), torch.linspace(3, 0.5, 6, dtype=torch.float64)
    matrices = [(axes * variances) @ axes.T for variances in (first, second)]
    left, right = (with_moments(torch.zeros(6, dtype=torch.float64), m, seed=i) for i, m in enumerate(matrices))
    expected = (first.sqrt() - second.sqrt()).square().sum()
    assert frechet_distance(left, right) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_agrees_with_scipys_matrix_root(seed):
    first, second = random_covariance(16, seed), random_covariance(16, seed + 10)
    shift = torch.linspace(-1, 1, 16, dtype=torch.float64)
    product = scipy.linalg.sqrtm(first.numpy() @ second.numpy())
    expected = float(shift.square().sum() + first.trace() + second.trace()) - 2 * float(product.trace().real)
    left, right = with_moments(torch.zeros_like(shift), first, seed=1), with_moments(shift, second, seed=2)
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-9)


def test_covariance_is_numpys():
    features = torch.randn(40, 5, generator=random_generator(), dtype=torch.float64)
    assert torch.allclose(covariance(features), torch.cov(features.T), rtol=1e-12)


def test_frechet_distance_of_a_set_from_itself_is_zero_even_with_dead_features():
    features = torch.randn(100, 10, generator=random_generator()) * torch.tensor([1.0] * 6 + [0.0] * 4) * 100
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(features, features + 3) == pytest.approx(90, abs=1e-2)  # float32 sums, float64 algebra
    assert frechet_distance(features[:5], features[:5]) == pytest.approx(0, abs=1e-8)  # fewer samples than features


def test_frechet_distance_is_symmetric():
    first, second = torch.randn(2, 50, 8, generator=random_generator(), dtype=torch.float64)
    assert frechet_distance(first, 2 * second) == pytest.approx(frechet_distance(2 * second, first), rel=1e-12)


def kernel_distance_pair_by_pair(first, second):
    """The unbiased squared maximum mean discrepancy, one pair at a time."""

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    first, second = first.tolist(), second.tolist()
    within = [
        sum(kernel(x, y) for x, y in itertools.permutations(part, 2)) / (len(part) * (len(part) - 1))
        for part in (first, second)
    ]
    between = sum(kernel(x, y) for x in first for y in second) / (len(first) * len(second))
    return sum(within) - 2 * between


@pytest.mark.parametrize("seed", range(3))
def test_kernel_distance_agrees_with_pairs_and_with_scikit_learns_kernel(seed):
    first = torch.randn(23, 5, generator=random_generator(seed), dtype=torch.float64)
    second = torch.randn(31, 5, generator=random_generator(seed + 10), dtype=torch.float64) * 1.5 + 0.3
    found = kernel_distance(first, second)
    assert found == pytest.approx(kernel_distance_pair_by_pair(first, second), rel=1e-9)
    within = [polynomial_kernel(part, degree=3, coef0=1) for part in (first, second)]
    means = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in within]
    between = polynomial_kernel(first, second, degree=3, coef0=1).mean()
    assert found == pytest.approx(sum(means) - 2 * between, rel=1e-9)


def test_kernel_distance_is_unbiased():
    # Standard normal numbers against those moved by d: the expectation of k(x, y) = (x y + 1)^3 is the
    # sum over n of binomial(3, n) m_n^2; so the distance is sum of binomial(3, n) (m_n - m'_n)^2, by the moments m_n.
    shift, draws, size = 0.5, 4000, 6
    moments, moved = (0, 1, 0), (shift, 1 + shift**2, shift**3 + 3 * shift)
    expected = sum(math.comb(3, n + 1) * (a - b) ** 2 for n, (a, b) in enumerate(zip(moments, moved, strict=True)))
    values = torch.randn(draws, 2, size, 1, generator=random_generator(), dtype=torch.float64)
    found = torch.tensor([kernel_distance(first, second + shift) for first, second in values], dtype=torch.float64)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / draws**0.5)
    same = torch.tensor([kernel_distance(first, second) for first, second in values], dtype=torch.float64)
    assert float(same.mean()) == pytest.approx(0, abs=4 * float(same.std()) / draws**0.5)


def test_kernel_interval_is_the_jackknifes():
    first = torch.randn(12, 3, generator=random_generator(), dtype=torch.float64)
    second = torch.randn(15, 3, generator=random_generator(1), dtype=torch.float64) + 0.5
    variance = 0.0
    for part, distance in (
        (first, lambda kept: kernel_distance(kept, second)),
        (second, lambda kept: kernel_distance(first, kept)),
    ):
        without = torch.tensor([distance(torch.cat([part[:i], part[i + 1 :]])) for i in range(len(part))])
        variance += float((without - without.mean()).square().sum()) * (len(part) - 1) / len(part)
    expected, margin = kernel_distance(first, second), 1.96 * variance**0.5
    assert kernel_interval(first, second) == pytest.approx((expected - margin, expected + margin), rel=1e-5)


def test_kernel_interval_holds_the_truth_about_as_often_as_it_says():
    draws, size, shift = 400, 80, 1.0
    values = torch.randn(draws, 2, size, 1, generator=random_generator(), dtype=torch.float64)
    true = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2  # as in the test of unbiasedness
    intervals = [kernel_interval(first, second + shift) for first, second in values]
    held = sum(low <= true <= high for low, high in intervals) / draws
    assert 0.9 < held < 0.99


def features_through_torchmetrics(metric, first, second):
    """What a metric of torchmetrics says of features: it believes to get images, of which these are the features."""
    metric.set_dtype(torch.float64)
    metric.update(second, real=True)
    metric.update(first, real=False)
    return metric.compute()


class AsTheyAre(torch.nn.Module):
    """An extractor of images that are features."""

    num_features = 16

    def forward(self, images):
        return images


@pytest.mark.filterwarnings("ignore")
def test_distances_agree_with_torchmetrics():
    repair_torchvision()
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    first = torch.randn(200, 16, generator=random_generator()).double()
    second = torch.randn(150, 16, generator=random_generator(1)).double() * 1.3 + 0.2
    frechet = features_through_torchmetrics(FrechetInceptionDistance(AsTheyAre()), first, second)
    assert frechet_distance(first, second) == pytest.approx(float(frechet), rel=1e-6)
    # Its kernel distance draws subsets from the global generator: one that holds all members needs no luck.
    metric = KernelInceptionDistance(AsTheyAre(), subsets=1, subset_size=150)
    kernel, _ = features_through_torchmetrics(metric, first[:150], second)
    assert kernel_distance(first[:150], second) == pytest.approx(float(kernel), rel=1e-6)


def manifold_metrics_one_by_one(samples, real, k):
    """Precision, recall, density and coverage by their definitions, one ball and one point at a time."""
    samples, real = samples.numpy(), real.numpy()

    def radius(members, i):
        others = [numpy.linalg.norm(members[i] - members[j]) for j in range(len(members)) if j != i]
        return sorted(others)[k - 1]

    def in_balls(point, members, radii):
        return [numpy.linalg.norm(point - member) <= r for member, r in zip(members, radii, strict=True)]

    real_radii = [radius(real, i) for i in range(len(real))]
    sample_radii = [radius(samples, i) for i in range(len(samples))]
    found = numpy.array([in_balls(point, real, real_radii) for point in samples])  # (samples, real)
    return {
        "precision": found.any(axis=1).mean(),
        "recall": numpy.mean([any(in_balls(point, samples, sample_radii)) for point in real]),
        "density": found.sum() / k / len(samples),
        "coverage": found.any(axis=0).mean(),
    }


@pytest.mark.parametrize(("seed", "k"), [(0, 1), (1, 3), (2, 5)])
def test_manifold_metrics_agree_with_their_definitions(seed, k):
    samples = torch.randn(30, 4, generator=random_generator(seed), dtype=torch.float64) * 1.2 + 0.3
    real = torch.randn(37, 4, generator=random_generator(seed + 10), dtype=torch.float64)
    expected = manifold_metrics_one_by_one(samples, real, k)
    assert manifold_metrics(samples, real, k) == pytest.approx(expected, abs=1e-12)
    assert any(0 < value < 1 for value in expected.values())


def test_manifold_metrics_of_the_same_and_of_far_away_sets():
    real = torch.randn(50, 4, generator=random_generator(), dtype=torch.float64)
    same = manifold_metrics(real, real, 3)
    assert [same[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert set(manifold_metrics(real + 100, real, 3).values()) == {0}


def test_a_dropped_mode_lowers_recall_and_coverage_and_leaves_precision():
    random = random_generator()
    modes = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
    real, whole = (modes.repeat(40, 1) + torch.randn(160, 2, generator=random) for _ in range(2))
    dropped = whole[torch.arange(160) % 4 != 0]
    before, after = manifold_metrics(whole, real, 5), manifold_metrics(dropped, real, 5)
    assert before["coverage"] > 0.9 and before["recall"] > 0.9  # noqa: PT018
    assert after["coverage"] == pytest.approx(0.75 * before["coverage"], abs=0.05)
    assert after["recall"] == pytest.approx(0.75 * before["recall"], abs=0.05)
    assert after["precision"] == pytest.approx(before["precision"], abs=0.05)


def test_confusion_is_scikit_learns():
    random = random_generator()
    requested, predictions = torch.randint(0, 4, (2, 100), generator=random)
    found = confusion(predictions, requested, 4)
    assert found.numpy() == pytest.approx(confusion_matrix(requested, predictions, normalize="true"))
    assert confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).tolist() == [[0.5, 0.5], [0, 0]]


def test_labels_of_a_crafted_set():
    requested = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1] * 2)
    predicted = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0])
    seen = Judgement(torch.zeros(16, 4), torch.nn.functional.one_hot(predicted, 2) * 0.8 + 0.1)
    real = Judgement(torch.zeros(16, 4), torch.nn.functional.one_hot(requested, 2) * 1.0)
    names = ("samples", "train", "noise", "held_out")
    seeds = torch.arange(16) // 8
    judged = Judged(
        {},
        dict.fromkeys(names, requested),
        dict.fromkeys(names, real) | {"samples": seen},
        seeds,
        8,
        partial(generator, 0),
    )
    found = label_findings(judged.answers, ["female", "male"])
    assert found.numbers["label_accuracy"] == (5 + 7) / 16
    assert found.numbers["label_accuracy_floor"] == 1
    assert found.numbers["requested_female_judged_male"] == 1 / 8
    assert found.numbers["requested_male_judged_female"] == 3 / 8
    rows = {(row["requested"], row["judged"]): row for row in found.tables["confusion"]}
    assert rows["male", "female"]["share"] == 3 / 8
    assert rows["male", "female"]["share_std"] == pytest.approx(numpy.std([0.5, 0.25], ddof=1))
    assert [rows["male", name]["held_out"] for name in ("female", "male")] == [0, 1]
    assert seen.confidence.tolist() == pytest.approx([0.9] * 16)
    many = label_findings(judged.answers, list("0123456789"))
    assert not any(key.startswith("requested") for key in many.numbers)
    assert len(many.tables["confusion"]) == 100


def test_class_balance_distance_is_the_total_variation():
    first = torch.nn.functional.one_hot(torch.tensor([0] * 5 + [1] * 3 + [2] * 2), 3)
    second = torch.nn.functional.one_hot(torch.tensor([0] * 2 + [1] * 3 + [2] * 5), 3)
    assert class_balance_distance(first, second) == pytest.approx(0.3)
    assert class_balance_distance(first, first) == 0
    assert class_balance_distance(first[:5], second[-5:]) == 1


def test_a_dropped_class_shows(classifier):
    images, labels = bars(240, seed=5)
    whole, dropped = evaluated(classifier, images), evaluated(classifier, images[labels == 0])
    # the subset of 60 held-out images has a class share of 1/2 with a deviation of under 0.065
    assert whole["class_balance_distance"] < 0.2
    assert dropped["class_balance_distance"] == pytest.approx(0.5, abs=0.2)
    assert dropped["frechet_distance"] > 3 * whole["frechet_distance"]


def test_the_shares_of_the_classes(classifier):
    images, labels = bars(240, seed=3)
    rows = findings_of(classifier, images[labels == 1]).tables["class_shares"]
    assert [row["class"] for row in rows] == ["left", "right"]
    assert [row["share"] for row in rows] == [0, 1]
    assert [row["held_out"] for row in rows] == [0.5, 0.5]


def test_distances_grow_and_precision_falls_with_the_noise_on_the_images(classifier):
    images = bars(120, seed=5)[0].float()
    noise = torch.randn(images.shape, generator=random_generator())
    noisy = [(images + scale * noise).round().clamp(0, 255).to(torch.uint8) for scale in (0, 30, 60, 120)]
    measured = [evaluated(classifier, samples) for samples in noisy]
    for name, direction in (("frechet_distance", 1), ("kernel_distance", 1), ("precision", -1), ("coverage", -1)):
        values = [direction * numbers[name] for numbers in measured]
        assert values == sorted(values), name
        assert values[0] < values[-1], name


def test_frechet_distance_falls_with_the_sample_size_and_the_kernel_distance_does_not(classifier):
    rows = findings_of(classifier, bars(160, seed=5)[0], sample_count=64, smaller_counts=[8, 16, 32]).tables[
        "sample_size"
    ]
    assert [row["size"] for row in rows] == [8, 16, 32, 64]
    frechet = [row["frechet_distance_floor"] for row in rows]
    assert frechet == sorted(frechet, reverse=True)
    assert frechet[0] > 3 * frechet[-1]
    for row in rows:
        assert abs(row["kernel_distance_floor"]) < 5 * row["kernel_distance_floor_std"] + 0.05


def test_accuracy_score_rewards_labels_that_fit_and_samples_that_vary(classifier):
    images, labels = bars(120, seed=5)
    good, wrong = evaluated(classifier, images, labels), evaluated(classifier, images, 1 - labels)
    name = "classifier_accuracy_score"
    assert good[name] > 0.95
    assert good[f"{name}_floor"] > 0.95
    assert good[f"{name}_ceiling"] < 0.8
    assert wrong[name] < 0.05
    assert not any(key.startswith(name) for key in evaluated(classifier, images))


def test_real_images_score_like_the_floor_and_noise_like_the_ceiling(classifier):
    images, labels = bars(120, seed=5)
    metrics = evaluated(classifier, images, labels)
    floor, ceiling = metrics["frechet_distance_floor"], metrics["frechet_distance_ceiling"]
    assert abs(metrics["frechet_distance"] - floor) < 0.1 * (ceiling - floor)
    assert metrics["label_accuracy"] == metrics["label_accuracy_floor"] == 1
    assert metrics["label_accuracy_ceiling"] == pytest.approx(0.5, abs=0.15)
    swapped = evaluated(classifier, images, 1 - labels)
    assert swapped["label_accuracy"] == 0
    assert swapped["requested_left_judged_right"] == 1


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_the_batch_size_does_not_change_the_metrics(classifier, batch_size):
    images, labels = bars(120, seed=5)
    expected, found = (evaluated(classifier, images, labels, batch_size=size) for size in (50, batch_size))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    one, many = (judge(classifier, images[:40], IMAGES, size).features for size in (1, 40))
    assert torch.allclose(one, many, atol=1e-10)


def test_the_keys_of_conditional_and_unconditional_models(classifier):
    images, labels = bars(120, seed=5)
    unconditional, conditional = evaluated(classifier, images), evaluated(classifier, images, labels)
    for metrics in (unconditional, conditional):
        for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "confidence"):
            assert {name + end for end in ("", "_std", "_floor", "_ceiling")} <= metrics.keys()
        assert "class_balance_distance" in metrics
        assert metrics["kernel_distance_low"] < metrics["kernel_distance_high"]
        assert not any("fid" in key.split("_") for key in metrics)
        assert all(math.isfinite(value) for value in metrics.values())
    assert "label_accuracy" not in unconditional


def test_judges_that_know_no_labels_stand_between_their_bounds(classifier):
    how = TwoSampleTest(channels=[8, 8], steps=30, batch_size=16, learning_rate=0.01, weight_decay=0.01)
    found = findings_of(classifier, bars(160, seed=5)[0], sample_count=72, two_sample=how)
    lower = ("two_sample_accuracy", "pixel_component_frechet_distance")
    for name in (*lower, "high_frequency_ratio", "two_pixel_ratio", "noise_level"):
        assert {name + end for end in ("", "_std", "_floor", "_ceiling")} <= found.numbers.keys()
    for name in lower:
        floor, ceiling = (found.numbers[f"{name}_{bound}"] for bound in ("floor", "ceiling"))
        assert abs(found.numbers[name] - floor) < 0.4 * (ceiling - floor)
    assert found.numbers["two_sample_null_std"] == pytest.approx(0.5 / 12, rel=1e-5)
    assert "random_convolution_frechet_distance" not in found.numbers  # 72 images are too few for 32 features
    assert found.numbers["high_frequency_ratio_floor"] == pytest.approx(1, abs=0.1)
    rows = found.tables["spectrum"]
    assert [row["frequency"] for row in rows] == [k / 8 for k in range(1, 7)]
    assert all(row["samples"] == pytest.approx(row["held_out"], rel=0.3) for row in rows)


def test_the_interval_counts_samples_of_one_noise_as_one():
    draws = torch.Generator().manual_seed(3)
    first, second = torch.randn(12, 4, generator=draws), torch.randn(9, 4, generator=draws)
    units = torch.arange(12) % 6  # members 0 and 6 start from the same noise, and so on
    parts = [
        [kernel_distance(first[units != unit], second) for unit in range(6)],
        [kernel_distance(first, torch.cat([second[:i], second[i + 1 :]])) for i in range(9)],
    ]
    variance = sum((len(part) - 1) * numpy.var(part) for part in parts)
    low, high = kernel_interval(first, second, units)
    assert (high - low) / 2 == pytest.approx(1.96 * variance**0.5, rel=1e-6)
    assert (high + low) / 2 == pytest.approx(kernel_distance(first, second), rel=1e-6)


def test_conditional_samples_share_their_noise_in_turn():
    labels = torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    seeds = torch.arange(12) // 6
    judged = Judged({}, {"samples": labels}, {}, seeds, 4, partial(generator, 0))
    assert judged.units.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    alone = Judged({}, {"samples": torch.full((12,), -1)}, {}, seeds, 4, partial(generator, 0))
    assert alone.units.tolist() == list(range(12))


def test_too_few_samples_for_the_features_have_no_frechet_distance(classifier):
    metrics = evaluated(classifier, bars(80, seed=5)[0], sample_count=4 * 8 - 1)
    assert not any(key.startswith("frechet") for key in metrics)
    assert "class_balance_distance" in metrics


def test_many_classes_are_measured_as_two_are():
    (images, labels), (test, test_labels) = (bars(80, seed, classes=4, size=12) for seed in (0, 1))
    network = new_classifier((1, 12, 12), SETTINGS, 4, random_generator())
    for _ in train(network, images, labels, IMAGES, SETTINGS, random_generator(1), random_generator(2)):
        pass
    drawn = {"samples": images, "labels": labels, "sampling_seed": torch.arange(80) // 40}
    data = {"train": images, "train_labels": labels, "test": test, "test_labels": test_labels}
    settings = EVALUATION.model_copy(
        update={"sample_count": 40, "accuracy_score": AccuracyScore(steps=60, batch_size=16)}
    )
    trial = Trial(drawn, data, IMAGES, network, SETTINGS, list("abcd"), settings, partial(generator, 0))
    found = evaluate_images(trial)
    assert found.numbers["label_accuracy"] > 0.9
    assert found.numbers["classifier_accuracy_score"] > 0.7 > 0.5 > found.numbers["classifier_accuracy_score_ceiling"]
    assert [row["share"] > 0.5 for row in found.tables["confusion"]] == torch.eye(4).bool().flatten().tolist()


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in the layout of pytorch-fid's file: that of torchvision's network for 1,008 classes."""
    repair_torchvision()
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    return path


def pooled_by_hand(block, values):
    """A block's answer with pooling that doesn't count the padding: each place's sum over the number of its values."""
    ones = torch.ones_like(values[:, :1])
    sums, counts = (9 * torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1) for x in (values, ones))
    return block.branch_pool(sums / counts)


def test_inception_features(inception_file, classifier):
    network = load_inception(Inception(path=str(inception_file), sha256=sha256_of_file(inception_file)), "key")
    images = bars(6, seed=0)[0]
    cpu = torch.device("cpu")
    features = inception_features(network, images, cpu, batch_size=4)
    assert features.shape == (6, 2048)
    in_colour = inception_features(network, images[:2].expand(-1, 3, -1, -1), cpu)
    assert torch.allclose(features[:2], in_colour, rtol=1e-4)
    values = torch.rand(1, 192, 5, 5, generator=random_generator())
    with torch.no_grad():
        found = network.Mixed_5b(values)[:, -32:]
        assert torch.allclose(found, pooled_by_hand(network.Mixed_5b, values), atol=1e-6)


@pytest.mark.parametrize("what", ["missing", "another", "no weights", "another network"])
def test_inception_weights_that_do_not_fit_are_refused_in_a_line(inception_file, tmp_path, what):
    path, digest = tmp_path / "weights.pth", "0" * 64
    if what == "another":
        path.write_bytes(inception_file.read_bytes()[:1000])
    if what == "no weights":
        path.write_bytes(b"<html>")
    if what == "another network":
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    if what.startswith(("no", "another n")):
        digest = sha256_of_file(path)
    complaints = {
        "missing": "rungs.faces.evaluation.inception.path: there is no file",
        "another": "rungs.faces.evaluation.inception.sha256: .* has [0-9a-f]{64}, not 0{64}",
        "no weights": "doesn't hold Inception weights in the layout of pytorch-fid",
        "another network": "doesn't hold Inception weights in the layout of pytorch-fid",
    }
    with pytest.raises(UserError, match=complaints[what]) as refused:
        load_inception(Inception(path=str(path), sha256=digest), "rungs.faces.evaluation.inception")
    assert "\n" not in str(refused.value)


def test_distances_by_inception_have_names_of_their_own(classifier):
    class Network(torch.nn.Module):  # another extractor in its place: fewer features, sooner there
        def forward(self, images):
            return images.mean(dim=1)[:, ::75, ::75].flatten(1)

    images = bars(120, seed=5)[0]
    plain, metrics = evaluated(classifier, images), evaluated(classifier, images, inception=Network())
    names = itertools.product(("frechet_distance", "kernel_distance"), ("", "_floor", "_ceiling"), ("", "_std"))
    added = {"".join(parts) for parts in names}
    assert metrics.keys() - plain.keys() == {f"inception_{key}" for key in added}
    assert metrics["inception_frechet_distance"] != metrics["frechet_distance"]
