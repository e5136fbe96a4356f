"""The 2D toys, held against scikit-learn and against the noise-free curves."""

import numpy
import pytest
import sklearn.datasets
import torch

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.data.points import dataset as points
from diffusion_ladder.foundation.artifacts import read_tensors, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import CirclesSource, PointsPreprocess, PointsSource
from diffusion_ladder.randomness import seed_of

CIRCLES = CirclesSource(count=400, noise=0.05, factor=0.5)
MOONS = PointsSource(count=400, noise=0.05)
PREPROCESS = PointsPreprocess(test_fraction=0.25)


def fetched(folder, source="make_circles", settings=CIRCLES, seed=0):
    card = points.fetch(source, settings, seed, folder)
    write_json(folder / "card.json", card)
    return card


@pytest.mark.parametrize(("source", "settings"), [("make_circles", CIRCLES), ("make_moons", MOONS)])
def test_points_are_those_of_scikit_learn(tmp_path, source, settings):
    fetched(tmp_path, source, settings, seed=3)
    raw = read_tensors(tmp_path / "points.safetensors")
    state = int(numpy.random.default_rng(seed_of(3, "fetch", source)).integers(2**32))
    shape = {"factor": 0.5} if source == "make_circles" else {}
    expected, labels = getattr(sklearn.datasets, source)(400, noise=0.05, random_state=state, **shape)
    assert raw["points"].dtype == torch.float64
    numpy.testing.assert_array_equal(raw["points"].numpy(), expected)
    numpy.testing.assert_array_equal(raw["labels"].numpy(), labels)


def test_without_noise_the_points_lie_on_the_curves_that_the_card_describes(tmp_path):
    card = fetched(tmp_path, settings=CirclesSource(count=100, noise=0.0, factor=0.3))
    raw = read_tensors(tmp_path / "points.safetensors")
    assert card["parameters"] == {"count": 100, "noise": 0.0, "factor": 0.3}
    assert card["class_names"] == ["outer", "inner"]
    radii = torch.where(raw["labels"] == 0, 1.0, 0.3).double()
    torch.testing.assert_close(raw["points"].norm(dim=1), radii)

    card = fetched(tmp_path, "make_moons", PointsSource(count=100, noise=0.0))
    raw = read_tensors(tmp_path / "points.safetensors")
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.5]], dtype=torch.float64)[raw["labels"]]
    torch.testing.assert_close((raw["points"] - centres).norm(dim=1), torch.ones(100, dtype=torch.float64))
    assert card["class_names"] == ["upper", "lower"]
    assert "factor" not in card["parameters"]


def test_the_seed_alone_decides(tmp_path):
    files = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fetched(tmp_path / name, seed=seed)
        files[name] = (tmp_path / name / "points.safetensors").read_bytes()
    assert files["a"] == files["b"] != files["c"]


def test_preprocess_splits_without_loss_and_stays_in_data_units(tmp_path):
    fetched(tmp_path)
    raw = read_tensors(tmp_path / "points.safetensors")
    splits = points.preprocess(tmp_path, PREPROCESS)
    assert (splits.train.dtype, splits.train_labels.dtype) == (torch.float32, torch.int64)
    rows = [(*row, label) for row, label in zip(raw["points"].float().tolist(), raw["labels"].tolist(), strict=True)]
    both = zip(
        torch.cat([splits.train, splits.test]).tolist(),
        torch.cat([splits.train_labels, splits.test_labels]).tolist(),
        strict=True,
    )
    assert sorted((*row, label) for row, label in both) == sorted(rows)
    assert 60 < len(splits.test) < 140  # 100 expected, deviation 9


def test_normalisation_is_the_training_split_s(tmp_path):
    fetched(tmp_path, "make_moons", MOONS)
    splits = points.preprocess(tmp_path, PREPROCESS)
    train = splits.train.double().numpy()
    numpy.testing.assert_allclose(splits.normalisation.mean, train.mean(axis=0), rtol=1e-12)
    numpy.testing.assert_allclose(splits.normalisation.std, train.std(axis=0), rtol=1e-12)
    x = normalise(splits.train, splits.normalisation)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_split_without_rows_is_refused_in_one_line(tmp_path):
    fetched(tmp_path, settings=CirclesSource(count=2, noise=0.05, factor=0.5))
    with pytest.raises(UserError, match=r"^preprocess.test_fraction: 0.001 puts 0 of 2 rows into the test split.*$"):
        points.preprocess(tmp_path, PointsPreprocess(test_fraction=0.001))
