"""The figures of the data cards show what they say: examples by class, a watermark on synthetic data, the crop."""

import io

import numpy
import pytest
import torch
from PIL import Image, ImageDraw

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.data import BEFORE_SIDE, GAP, crop_exhibit, exhibits


def card(kind="portraits", synthetic=False, **pictures):
    facts = {"crop": "top", "image_size": 16, "cropped": 1} | pictures
    return {
        "kind": kind,
        "synthetic": synthetic,
        "class_names": ["a", "b"],
        "sample_shape": [3, 16, 16],
        "pictures": facts,
    }


def drawn(examples, pictures, facts):
    with house_style():
        found = {exhibit.file: exhibit for exhibit in exhibits(examples, pictures, facts)}
    return {name: (Image.open(io.BytesIO(exhibit.content)).convert("RGB"), exhibit) for name, exhibit in found.items()}


def grey(value, count=3):
    return torch.full((count, 3, 16, 16), value, dtype=torch.uint8)


def test_synthetic_data_are_watermarked_and_real_ones_are_not():
    examples = [grey(250), grey(240)]
    real, exhibit = drawn(examples, [], card())["examples.png"]
    marked, marked_exhibit = drawn(examples, [], card(synthetic=True))["examples.png"]
    difference = numpy.abs(numpy.asarray(real).astype(int) - numpy.asarray(marked)).max(axis=2)
    columns = numpy.nonzero(difference)[1]
    assert (difference > 10).mean() > 0.02
    assert numpy.ptp(columns) > 0.6 * real.width  # across the whole picture
    assert "don't publish" in exhibit.caption
    assert "don't publish" not in marked_exhibit.caption
    assert "synthetic" in marked_exhibit.alt


def test_a_row_of_examples_for_each_class():
    picture, exhibit = drawn([grey(50), grey(200)], [], card())["examples.png"]
    colours = {colour: count for count, colour in picture.getcolors(10_000)}
    assert colours[(50, 50, 50)] == colours[(200, 200, 200)] == 3 * 128 * 128
    assert "The first 6 training images" in exhibit.caption


def test_points_and_a_class_without_examples():
    points = [torch.zeros(4, 2), torch.ones(4, 2)]
    assert list(drawn(points, [], card("points", synthetic=True))) == ["examples.png"]
    assert drawn([grey(50), torch.empty(0)], [], card()) == {}


@pytest.mark.parametrize(("crop", "colour"), [("top", (255, 0, 0)), ("centre", (0, 255, 0))])
def test_the_kept_square_is_outlined_and_shown(crop, colour):
    tall = Image.new("RGB", (40, 120), (0, 255, 0))
    ImageDraw.Draw(tall).rectangle((0, 0, 39, 39), fill=(255, 0, 0))
    with house_style():
        exhibit = crop_exhibit([tall], card(crop=crop))
    picture = numpy.asarray(Image.open(io.BytesIO(exhibit.content)).convert("RGB"))
    middle = GAP + BEFORE_SIDE // 2
    assert tuple(picture[2 * GAP + BEFORE_SIDE + BEFORE_SIDE // 2, middle]) == colour  # after
    assert tuple(picture[GAP + 10, middle]) == (255, 0, 0)  # before: the upper end is red
    assert tuple(picture[GAP + BEFORE_SIDE - 10, middle]) == (0, 255, 0)
    assert f"({crop})" in exhibit.caption
