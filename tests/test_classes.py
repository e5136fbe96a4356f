"""Classes for every rung: of points judged by the nearer curve, of many images; presets for rungs they don't name."""

import base64
import copy
import io
import json
from functools import partial

import numpy
import pytest
import torch
from PIL import Image
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import confusion_matrix

from diffusion_ladder.data.digits.mnist_family import class_names
from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.evaluation.cost import evaluate_points_cost
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.points import evaluate_point_labels, nearest_curve
from diffusion_ladder.figures import canvas, evaluation, exhibit, mosaic, process, samples, training, ways
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.overlays import flatten, for_each_rung, laid_over
from diffusion_ladder.params.consistency import EMNIST_CLASSES, check_consistency
from diffusion_ladder.params.figures import Figures
from diffusion_ladder.params.whole import validate
from diffusion_ladder.presets import load_preset
from diffusion_ladder.randomness import generator

DRAW = {"make_circles": partial(make_circles, factor=0.5), "make_moons": make_moons}
UNIT = Normalisation((0.0, 0.0), (1.0, 1.0), bytes=False)
FIGURES = Figures(forward_every=500, panels=3, samples=100, frames_per_second=4)


def card(source, noise):
    return {"source": source, "parameters": {"noise": noise, "factor": 0.5}}


def labelled(source, count, noise, seed):
    points, labels = DRAW[source](count, noise=noise, random_state=seed)
    return torch.from_numpy(points).float(), torch.from_numpy(labels)


def found_out(source, noise, wrong):
    """The findings about real points, the labels of the first `wrong` of each of two sampling seeds being false."""
    (points, labels), (test, test_labels) = (labelled(source, 400, noise, seed) for seed in (1, 2))
    seeds = torch.arange(400) // 200
    requested = torch.where(torch.arange(400) % 200 < wrong, 1 - labels, labels)
    drawn = {"samples": points, "labels": requested, "sampling_seed": seeds}
    data = {"test": test, "test_labels": test_labels}
    how = card(source, noise), ("first", "second"), partial(generator, 0)
    return evaluate_point_labels(drawn, data, UNIT, *how), points, requested, (test, test_labels)


@pytest.mark.parametrize("source", DRAW)
def test_points_without_noise_lie_on_the_curve_of_their_class(source):
    points, labels = labelled(source, 300, 0.0, 0)
    assert torch.equal(nearest_curve(points, card(source, 0.0)), labels)


@pytest.mark.parametrize("source", DRAW)
def test_label_accuracy_of_points_falls_by_the_false_labels(source):
    numbers = found_out(source, 0.01, 50)[0].numbers
    assert numbers["label_accuracy"] == pytest.approx(0.75)  # 50 of each 200
    assert numbers["label_accuracy_floor"] == 1.0
    assert abs(numbers["label_accuracy_ceiling"] - 0.5) < 4 * numbers["label_accuracy_ceiling_std"]
    rates = [numbers[f"requested_{a}_judged_{b}"] for a, b in (("first", "second"), ("second", "first"))]
    assert sum(rates) == pytest.approx(0.5, abs=0.1)  # half of each: the shares of the classes vary


def test_the_confusion_of_noisy_points_is_scikit_learns():
    findings, points, requested, (test, test_labels) = found_out("make_circles", 0.3, 20)

    def nearer(some):
        return numpy.abs(some.double().norm(dim=1).numpy()[:, None] - numpy.array([1, 0.5])).argmin(axis=1)

    normalised = partial(confusion_matrix, normalize="true")
    by_seed = [normalised(requested[part], nearer(points[part])) for part in (slice(0, 200), slice(200, 400))]
    rows = findings.tables["confusion"]
    assert [row["share"] for row in rows] == pytest.approx(numpy.mean(by_seed, axis=0).ravel().tolist())
    assert [row["share_std"] for row in rows] == pytest.approx(numpy.std(by_seed, axis=0, ddof=1).ravel().tolist())
    assert [row["held_out"] for row in rows] == pytest.approx(normalised(test_labels, nearer(test)).ravel().tolist())
    assert findings.numbers["label_accuracy_floor"] < 0.95  # so much noise confuses the judge


def test_guidance_of_points_is_told_by_scale():
    points, labels = labelled("make_moons", 200, 0.05, 0)
    swept = {"cost": points[None], "guidance": torch.stack([points, points.flip(0)])}
    swept |= {"labels": labels, "sampling_seed": torch.arange(200) % 2}
    settings = [{"sampler": "ddim", "steps": 5, "nfe": 5 * scale, "guidance_scale": float(scale)} for scale in (1, 2)]
    facts, own = {"cost": settings[:1], "guidance": settings}, {"sampler": "ddim", "nfe": 5}
    held_out = labelled("make_moons", 300, 0.05, 1)[0]
    found = evaluate_points_cost(swept, facts, own, held_out, 100, partial(generator, 0), card("make_moons", 0.05))
    first, second = found.tables["guidance"]
    assert (first["scale"], first["nfe"], second["scale"], second["nfe"]) == (1.0, 5, 2.0, 10)
    assert first["label_accuracy"] == 1.0
    assert second["label_accuracy"] == pytest.approx(float((labels.flip(0) == labels).double().mean()), abs=1e-5)
    assert {"energy_distance", "energy_distance_std", "outside_tube_share"} < first.keys()
    with canvas.house_style():
        exhibit = evaluation.guidance_exhibit(Findings(tables={"guidance": [first, second]}))
    assert "the energy distance from" in exhibit.alt


def artifacts(kept, previews, data, **changes):
    """Those of a conditional rung of two classes, `kept` being its samples, trajectories and all."""
    facts = {"sampler": "ddim", "nfe": 5, "guidance_scale": 1.0}
    ways = {
        f"{use}.{name}": values
        for use in ("sampling", "comparison")
        for name, values in {
            "timesteps": torch.tensor([99, 0]),
            "states": torch.stack([kept + 1, kept]),
            "predicted": torch.stack([kept, kept]),
            "final": kept,
        }.items()
    }
    values = {
        "rung": {"num_classes": 2, "schedule": {"name": "linear", "T": 100, "prediction_type": "epsilon"}},
        "normalisation": UNIT,
        "class_names": ["outer", "inner"],
        "data": data,
        "samples": kept,
        "sampler": facts,
        "comparison": kept,
        "comparison_sampler": facts,
        "trajectories": ways,
        "training_log": {},
        "previews": {"samples": previews, "steps": torch.tensor([1, 2])},
    }
    return exhibit.RungArtifacts(**values | changes)


@pytest.fixture
def of_points():
    """40 samples, the first 20 of class 0 on a circle of radius 2, the others of class 1 on one of radius 1."""
    angles = torch.arange(40) * 0.3
    radius = torch.where(torch.arange(40) < 20, 2.0, 1.0)
    kept = torch.stack([radius * angles.cos(), radius * angles.sin()], dim=1)
    labels = (torch.arange(40) >= 20).long()
    data = {"train": kept, "test": kept, "train_labels": labels, "test_labels": labels}
    return artifacts(kept, torch.stack([kept, kept]), data)


def test_the_way_of_points_takes_the_classes_in_turn(of_points):
    way = ways.reverse_way(of_points, "sampling", 2)
    assert way.labels.tolist() == [0, 1] * 20
    assert way.states[-1].norm(dim=1).round().tolist() == [2, 1] * 20


def test_films_of_points_have_a_scene_for_each_class(of_points):
    scenes = process.way_scenes(ways.reverse_way(of_points, "sampling", 2), ["outer", "inner"])
    assert [scene["choices"]["Class"] for scene in scenes] == ["outer", "inner"]
    for scene, radius in zip(scenes, (2, 1), strict=True):
        panel = scene["panels"][0]
        bytes_of = base64.b64decode(panel["points"])
        last = torch.tensor(list(bytes_of)).reshape(-1, panel["count"], 2)[-1] * 7 / 255 - 3.5
        assert panel["count"] == 20
        assert last.norm(dim=1).round().tolist() == [radius] * 20


def colours_of(content):
    return {tuple(colour) for _, colour in Image.open(io.BytesIO(content)).convert("RGB").getcolors(10**6)}


def test_points_of_each_class_have_their_colour_and_others_none(of_points):
    blue, orange = ((0, 114, 178), (230, 159, 0))
    plain = artifacts(
        of_points.samples, of_points.previews["samples"], of_points.data, rung={**of_points.rung, "num_classes": 0}
    )
    with canvas.house_style():
        drawn = {exhibit.file: exhibit for exhibit in samples.exhibits(of_points, FIGURES)}
        drawn["previews.png"] = training.previews_exhibit(of_points)
        others = [*samples.exhibits(plain, FIGURES), training.previews_exhibit(plain)]
    assert [*drawn] == ["samples.png", "samples_same_noise.png", "previews.png"]
    for each in drawn.values():
        assert {blue, orange} <= colours_of(each.content)
    assert "blue is outer and orange is inner" in drawn["samples.png"].caption
    assert [each.file for each in others] == ["samples.png", "previews.png"]
    for each in others:
        assert not {blue, orange} & colours_of(each.content)


def of_images(classes, per_class):
    names = [f"class {number}" for number in range(classes)]
    images = (torch.arange(classes * per_class) % 256).byte().view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    labels = torch.arange(classes).repeat_interleave(per_class)
    data = {"train": images, "test": images, "train_labels": labels, "test_labels": labels}
    rung = {"num_classes": classes}
    return artifacts(images, images[None, :classes], data, rung=rung, class_names=names, normalisation=IMAGES)


def test_of_many_classes_the_two_samplers_are_compared_in_a_column_for_each(monkeypatch):
    shown = []
    monkeypatch.setattr(mosaic, "mosaic", lambda images, *rest: shown.append((images, rest)) or canvas.blank(9, 9))
    with canvas.house_style():
        exhibit = samples.comparison_exhibit(of_images(10, 4), FIGURES.model_copy(update={"samples": 80}))
    images, (_, rows, columns, _) = shown[0]
    assert images.shape[:2] == (4, 10)  # two images of each class by both samplers
    assert images[:, :, 0, 0, 0].tolist() == [[4 * label + number for label in range(10)] for number in (0, 0, 1, 1)]
    assert columns == [f"class {number}" for number in range(10)]
    assert rows == ["DDIM", "DDIM"] * 2
    scenes = json.loads(exhibit.film)["scenes"]
    assert [[panel["rows"] for panel in scene["panels"]] for scene in scenes] == [[[0, 2]], [[1, 3]]]


def test_the_way_of_images_is_shown_for_the_first_classes_only():
    assert process.first_of_classes(20, 10, 4) == [0, 2, 4, 6]
    assert process.first_of_classes(8, 2, 4) == [0, 1, 4, 5]
    assert process.first_of_classes(8, 1, 4) == [0, 1, 2, 3]


def test_names_of_classes_without_room_stand_above_the_first_of_each_alone():
    assert training.column_titles(["a", "b"], 4, 100) == ["a", "a", "b", "b"]
    assert training.column_titles(["a long name", "b"], 4, 30) == ["a long name", "", "b", ""]
    assert training.column_titles([], 4, 30) == []


def test_the_numbers_of_classes_are_torchvisions():
    assert {split: len(class_names("EMNIST", split)) for split in EMNIST_CLASSES} == EMNIST_CLASSES
    assert {len(class_names(name, None)) for name in ("MNIST", "FashionMNIST", "KMNIST")} == {10}


@pytest.mark.parametrize(
    ("rung", "change", "complaint"),
    [
        (
            "mnist_scratch",
            {"conditional": True, "sampling": {"comparison_count": 64}},
            "rungs.mnist_scratch.sampling.comparison_count: 64 is no multiple",
        ),
        ("circles", {"conditional": True}, "rungs.circles.score: the score of all classes together needs a null label"),
    ],
)
def test_a_rung_that_classes_do_not_fit_is_refused(rung, change, complaint):
    values = merge(load_yaml("params.yaml"), {"rungs": {rung: change}})
    with pytest.raises(ParameterError, match=complaint):
        check_consistency(validate(values))


def test_circles_and_digits_can_be_conditional():
    counts = {"comparison_count": 60, "trajectory_count": 10}
    digits = {"conditional": True, "training": {"label_dropout": 0.1}, "sampling": counts, "previews": {"count": 10}}
    circles = {"conditional": True, "training": {"label_dropout": 0.1}, "sampling": {"guidance_scale": 2.0}}
    values = merge(load_yaml("params.yaml"), {"rungs": {"mnist_scratch": digits, "circles": circles}})
    check_consistency(validate(values))


def test_a_preset_makes_a_rung_small_that_it_does_not_name():
    values, preset = load_yaml("params.yaml"), load_preset("smoke")
    values["rungs"]["another"] = copy.deepcopy(values["rungs"]["mnist_scratch"])
    made = laid_over(values, for_each_rung(preset, values))
    assert made["rungs"]["another"]["training"]["steps"] == preset["every_rung"]["training"]["steps"]
    assert made["rungs"]["another"].keys() == values["rungs"]["another"].keys()
    assert made["rungs"]["faces"]["training"]["steps"] == preset["rungs"]["faces"]["training"]["steps"]
    assert flatten(made).keys() == flatten(values).keys()
    check_consistency(validate(made))


def test_a_preset_with_a_key_that_no_rung_has_is_refused():
    with pytest.raises(ParameterError, match=r"params.yaml has no every_rung.training.stepz"):
        for_each_rung({"every_rung": {"training": {"stepz": 1}}}, load_yaml("params.yaml"))
