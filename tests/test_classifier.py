"""The judge: its training, its augmentation and its files."""

import itertools
import re
import sys
from dataclasses import astuple

import pytest
import torch
import yaml
from conftest import PROJECT, run
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_ladder.data.normalise import IMAGES, normalise
from diffusion_ladder.evaluation.classifier import (
    augment,
    check_accuracy,
    judge,
    load_classifier,
    new_classifier,
    parameter_count,
    save_classifier,
    shuffled_batches,
    train,
)
from diffusion_ladder.foundation.artifacts import read_json, read_tensors, write_tensors, write_text
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.classifier import Classifier as Settings

SETTINGS = Settings(
    channels=[8, 16],
    feature_size=8,
    steps=120,
    batch_size=32,
    learning_rate=5e-3,
    weight_decay=0.01,
    shift=1,
    flip=False,
    min_accuracy=0.9,
)


def random_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def halves(count, seed):
    """Noisy colour images (count, 3, 9, 10) that are brighter in their left, right, upper or lower part; and which."""
    labels = torch.arange(count) % 4
    images = torch.randint(0, 120, (count, 3, 9, 10), generator=random_generator(seed))
    parts = [
        (slice(None), slice(0, 4)),
        (slice(None), slice(6, 10)),
        (slice(0, 3), slice(None)),
        (slice(6, 9), slice(None)),
    ]
    for label, (rows, columns) in enumerate(parts):
        images[labels == label, :, rows, columns] += 100
    return images.to(torch.uint8), labels


def trained(seed=0, settings=SETTINGS):
    images, labels = halves(160, seed=0)
    classifier = new_classifier(images.shape[1:], settings, 4, random_generator(seed))
    losses = train(classifier, images, labels, IMAGES, settings, random_generator(seed + 1), random_generator(seed + 2))
    return classifier, [float(loss) for loss in losses]


def test_separable_classes_are_learnt():
    classifier, losses = trained()
    images, labels = halves(200, seed=9)
    assert len(losses) == SETTINGS.steps
    assert losses[-1] < 0.1 * losses[0]
    assert (judge(classifier, images, IMAGES).predictions == labels).double().mean() >= 0.99


def test_two_trainings_write_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 0), ("second", 0), ("other", 3)):
        torch.rand(seed + 1)  # the global random state must not matter
        save_classifier(trained(seed)[0], tmp_path / name, {"dataset": "halves"})
    first, second, other = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("first", "second", "other"))
    assert first == second != other
    card = "classifier.json"
    assert (tmp_path / "first" / card).read_bytes() == (tmp_path / "second" / card).read_bytes()


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    trained()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_saved_is_loaded(tmp_path):
    classifier, _ = trained()
    save_classifier(classifier, tmp_path, {"dataset": "halves", "accuracy": 0.5})
    loaded, card = load_classifier(tmp_path)
    images = halves(20, seed=4)[0]
    for before, after in zip(
        astuple(judge(classifier, images, IMAGES)), astuple(judge(loaded, images, IMAGES)), strict=True
    ):
        assert torch.allclose(before, after, atol=1e-12)  # another memory format, another order of sums
    assert not loaded.training
    assert card["accuracy"] == 0.5
    assert card["architecture"]["sample_shape"] == [3, 9, 10]
    weights = read_tensors(tmp_path / "model.safetensors")
    trainable = [name for name in weights if "running" not in name and "num_batches" not in name]
    assert sum(weights[name].numel() for name in trainable) == parameter_count(loaded)


def test_weights_that_the_card_does_not_know_are_refused(tmp_path):
    save_classifier(trained()[0], tmp_path, {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert read_json(tmp_path / "classifier.json")["weights_sha256"]
    with pytest.raises(ValueError, match="SHA-256"):
        load_classifier(tmp_path)


def test_judging_computes_in_double_precision_and_changes_nothing():
    classifier, _ = trained()
    classifier.train()  # batch statistics must not be used, nor changed
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    images = halves(50, seed=4)[0]
    judgement = judge(classifier, images, IMAGES, batch_size=8)
    assert judgement.features.dtype == judgement.probabilities.dtype == torch.float64
    assert judgement.features.shape == (50, SETTINGS.feature_size)
    assert torch.allclose(judgement.probabilities.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert classifier.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert next(classifier.parameters()).dtype == torch.float32
    with torch.no_grad():
        logits = classifier.eval()(normalise(images, IMAGES))
    assert torch.allclose(logits.softmax(dim=1).double(), judgement.probabilities, atol=1e-4)


@pytest.mark.parametrize(("flip", "variants"), [(False, 25), (True, 50)])
def test_augmented_images_are_all_the_translations_with_repeated_borders(flip, variants):
    image = torch.randint(0, 256, (1, 3, 7, 9), generator=random_generator(), dtype=torch.uint8)
    padded = torch.nn.functional.pad(image.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)[0]
    windows = [padded[:, y : y + 7, x : x + 9] for y, x in itertools.product(range(5), range(5))]
    expected = {window.numpy().tobytes() for window in windows}
    if flip:
        expected |= {window.flip(2).numpy().tobytes() for window in windows}
    found = augment(image.expand(1000, -1, -1, -1), 2, flip, random_generator())
    assert len(expected) == variants
    assert {window.contiguous().numpy().tobytes() for window in found} == expected


def test_no_augmentation_leaves_images_as_they_are():
    images = halves(8, seed=0)[0]
    assert torch.equal(augment(images, 0, False, random_generator()), images)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_every_image_is_seen_once_before_any_is_seen_again(count, batch_size, seed):
    batches = list(itertools.islice(shuffled_batches(count, batch_size, random_generator(seed)), 12))
    assert {len(batch) for batch in batches} == {batch_size}
    row = torch.cat(batches)
    for epoch in row.split(count):
        assert len(epoch.unique()) == len(epoch)


def test_the_learning_rate_falls_along_a_cosine_to_zero(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *arguments, **options):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    trained()
    assert seen[0] == SETTINGS.learning_rate
    assert seen[len(seen) // 2] == pytest.approx(SETTINGS.learning_rate / 2)
    assert seen == sorted(seen, reverse=True)
    assert 0 < seen[-1] < 0.01 * SETTINGS.learning_rate


def project_with_two_digits(folder, min_accuracy):
    """A copy of what the stage reads: two digits that look alike, and a training of two steps."""
    parameters = yaml.safe_load((PROJECT / "params.yaml").read_text())
    parameters["classifiers"]["mnist"] |= {"steps": 2, "batch_size": 8, "min_accuracy": min_accuracy}
    parameters["runtime"]["threads"] = 1
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=random_generator(), dtype=torch.uint8)
    labels = torch.arange(40) % 2
    tensors = {"train": images[:20], "train_labels": labels[:20], "test": images[20:], "test_labels": labels[20:]}
    card = {"dataset": "mnist", "kind": "digits", "class_names": ["0", "1"]}
    card |= {"normalisation": {"mean": [0.5], "std": [0.5]}}
    write_tensors(folder / "data/processed/mnist.safetensors", tensors, card)
    write_text(folder / "data/params_checked.txt", "")
    write_text(folder / "params.yaml", yaml.safe_dump(parameters))
    write_text(folder / "dvc.yaml", (PROJECT / "dvc.yaml").read_text())


@pytest.mark.parametrize("min_accuracy", [0.98, 0.0])
def test_a_classifier_below_its_limit_does_not_serve(tmp_path, min_accuracy):
    project_with_two_digits(tmp_path, min_accuracy)
    command = [sys.executable, str(PROJECT / "stages/train_classifier.py"), "mnist"]
    done = run(command, tmp_path, PYTHONPATH=str(PROJECT / "src"))
    if min_accuracy == 0:
        assert done.returncode == 0, done.stderr
        card = read_json(tmp_path / "data/judges/mnist/classifier/classifier.json")
        assert Settings.model_validate(card["settings"]).steps == 2
        return
    assert done.returncode == 1
    complaint = done.stderr.splitlines()[-1]
    assert re.search(r"classifiers\.mnist\.min_accuracy: .* reaches 0\.\d{4}, less than 0\.98", complaint)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/judges").exists()
    assert not (tmp_path / "reports/metrics").exists()


def test_an_accuracy_at_the_limit_is_enough():
    check_accuracy(0.98, 0.98, "classifiers.mnist")
    with pytest.raises(UserError, match=r"reaches 0\.9799, less than 0\.98"):
        check_accuracy(0.9799, 0.98, "classifiers.mnist")
