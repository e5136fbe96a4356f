"""The metrics of images, held against closed forms and other libraries."""

import itertools
import math
from functools import partial

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel

from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.evaluation.classifier import Judgement, judge, new_classifier, train
from diffusion_ladder.evaluation.images import (
    class_balance_distance,
    confusions,
    covariance,
    evaluate_images,
    frechet_distance,
    kernel_distance,
    label_metrics,
    one_hot_predictions,
)
from diffusion_ladder.params import Classifier as Settings
from diffusion_ladder.randomness import generator

SETTINGS = Settings(
    dataset="bars",
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
SAMPLE_COUNT = 60


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


@pytest.fixture(scope="module")
def classifier():
    images, labels = bars(200, seed=0)
    network = new_classifier((1, 8, 8), SETTINGS, 2, random_generator())
    for _ in train(network, images, labels, IMAGES, SETTINGS, random_generator(1), random_generator(2)):
        pass
    return network


def evaluated(classifier, samples, labels=None, **options):
    (train_images, _), (test, test_labels) = bars(200, seed=0), bars(120, seed=1)
    labels = torch.full((len(samples),), -1) if labels is None else labels
    drawn = {"samples": samples, "labels": labels, "sampling_seed": torch.arange(len(samples)) * 2 // len(samples)}
    data = {"train": train_images, "test": test, "test_labels": test_labels}
    arguments = {
        "class_names": ["left", "right"],
        "sample_count": SAMPLE_COUNT,
        "generator_of": partial(generator, 0),
    } | options
    return evaluate_images(drawn, data, IMAGES, classifier, **arguments).numbers


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


def test_label_accuracy_and_confusions_of_a_crafted_set():
    requested = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    predicted = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0])
    probabilities = torch.nn.functional.one_hot(predicted, 2) * 0.8 + 0.1
    judgements = dict.fromkeys(["samples", "held_out", "noise"], Judgement(torch.zeros(8, 4), probabilities))
    labels = {"samples": requested, "held_out": predicted, "noise": 1 - predicted}
    metrics = label_metrics(judgements, labels, torch.tensor([0, 1] * 4), ["female", "male"])
    assert metrics["label_accuracy"] == 0.625
    assert (metrics["label_accuracy_floor"], metrics["label_accuracy_ceiling"]) == (1, 0)
    assert metrics["requested_female_judged_male"] == 0.25
    assert metrics["requested_male_judged_female"] == 0.5
    assert judgements["samples"].confidence.tolist() == pytest.approx([0.9] * 8)


def test_confusions_are_left_out_with_many_classes_and_for_classes_never_requested():
    assert confusions(torch.tensor([0, 1]), torch.tensor([0, 1]), list("0123456789")) == {}
    assert confusions(torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"]) == {"requested_a_judged_b": 0.5}


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


def test_one_hot_predictions_average_to_the_predicted_shares(classifier):
    images, labels = bars(40, seed=3)
    seen = judge(classifier, images[labels == 1], IMAGES)
    assert one_hot_predictions(seen).mean(dim=0).tolist() == [0, 1]


def test_frechet_distance_grows_with_the_noise_on_the_images(classifier):
    images = bars(120, seed=5)[0].float()
    noise = torch.randn(images.shape, generator=random_generator())
    noisy = [(images + scale * noise).round().clamp(0, 255).to(torch.uint8) for scale in (0, 30, 60, 120)]
    distances = [evaluated(classifier, samples)["frechet_distance"] for samples in noisy]
    assert distances == sorted(distances)


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


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_change_the_metrics(classifier, batch_size):
    images, labels = bars(120, seed=5)
    expected, found = (
        evaluated(classifier, images, labels),
        evaluated(classifier, images, labels, batch_size=batch_size),
    )
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    assert torch.allclose(
        judge(classifier, images, IMAGES, batch_size).features, judge(classifier, images, IMAGES).features, atol=1e-10
    )


def test_the_keys_of_conditional_and_unconditional_models(classifier):
    images, labels = bars(120, seed=5)
    unconditional, conditional = evaluated(classifier, images), evaluated(classifier, images, labels)
    for metrics in (unconditional, conditional):
        assert len(metrics) <= 22
        assert "frechet_distance_std" in metrics
        assert not any("fid" in key.split("_") for key in metrics)
    assert "class_balance_distance" in unconditional
    assert "label_accuracy" not in unconditional


def test_too_few_samples_for_the_features_have_no_frechet_distance(classifier):
    metrics = evaluated(classifier, bars(80, seed=5)[0], sample_count=4 * 8 - 1)
    assert not any(key.startswith("frechet") for key in metrics)
    assert "class_balance_distance" in metrics
