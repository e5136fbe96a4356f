"""The whole of an evaluation, to 1e-6 the same in any batches and on any number of threads."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from test_evaluation_images import bars, classifier, evaluated  # noqa: F401 (a fixture)
from test_evaluation_points import found_out, real_points
from test_memorisation import SETTINGS

from diffusion_ladder.evaluation.memorisation import evaluate_memorisation
from diffusion_ladder.randomness import generator


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def memorised(samples, train, test):
    drawn = {"samples": samples, "sampling_seed": torch.arange(len(samples)) * 3 // len(samples)}
    return evaluate_memorisation(drawn, {"train": train, "test": test}, SETTINGS, 40, partial(generator, 0)).numbers


def same(found, expected):
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-6)), key


@pytest.fixture(scope="module")
def of_images(classifier):  # noqa: F811
    """Judge, features and every metric of images, conditional and not, and memorisation: in batches, on threads."""
    (train, _), (test, _), (samples, labels) = bars(200, seed=0), bars(120, seed=1), bars(120, seed=5)

    def findings(batch_size, count):
        with threads(count):
            conditional = evaluated(classifier, samples, labels, batch_size=batch_size)
            unconditional = evaluated(classifier, samples, batch_size=batch_size)
            return conditional | unconditional | memorised(samples, train, test)

    return findings, findings(64, 1)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (7, 1), (64, 2), (7, 2)])
def test_numbers_of_images_depend_neither_on_batches_nor_on_threads(of_images, batch_size, count):
    findings, expected = of_images
    same(findings(batch_size, count), expected)


@pytest.mark.parametrize("source", ["make_circles", "make_moons"])
def test_numbers_of_points_do_not_depend_on_threads(source):
    samples, train, test = (real_points(source, count, seed) for seed, count in enumerate((600, 400, 200)))
    results = []
    for count in (1, 2):
        with threads(count):
            results.append(found_out(source, samples).numbers | memorised(samples, train, test))
    same(*results)
