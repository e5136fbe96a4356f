"""The data of a card in pictures: examples after preprocessing, and portraits before and after their crop."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.portraits.decoding import square_box, to_square
from diffusion_ladder.figures import canvas, encoding, palette
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.samples import grid

PLOT_SIDE = 420  # of a scatter plot, in pixels
BEFORE_SIDE = 150  # of the box that a portrait as it came is fitted into, in pixels
GAP = 10
REAL_PORTRAITS = " These are rows of the data set: don't publish them without the right to."


def example_exhibit(examples: Sequence[Tensor], card: dict[str, Any]) -> Exhibit:
    """examples.png: the first training examples of each class.

    Args:
        examples: for each class, (N, C, H, W) uint8 images or (N, 2) points.
        card: the data card; synthetic data are marked as such across the picture.
    """
    names, shown = card["class_names"], sum(map(len, examples))
    points = card["kind"] == "points"
    figure = scatter(examples, names) if points else image_grid(examples, names)
    if card["synthetic"]:
        canvas.watermark(figure)
    people = "" if card["synthetic"] or card["kind"] != "portraits" else REAL_PORTRAITS
    what = "points" if points else "images"
    return Exhibit(
        "examples.png",
        "Examples",
        f"The first {shown} training {what}, by class, as the networks are shown them.{people}",
        f"{shown} training {what} of the classes {', '.join(names)}"
        f"{', marked as synthetic' if card['synthetic'] else ''}.",
        encoding.encode_png(encoding.in_few_colours(canvas.rasterise(figure))),
    )


def image_grid(examples: Sequence[Tensor], names: Sequence[str]) -> Figure:
    """A row of images for each class, as long as the shortest."""
    length = min(map(len, examples))
    return grid(torch.stack([part[:length] for part in examples]), names, len(examples))[0]


def scatter(examples: Sequence[Tensor], names: Sequence[str]) -> Figure:
    """The points of all classes on equal axes, in data units."""
    figure = canvas.blank(PLOT_SIDE + 190, PLOT_SIDE + 50)
    axes = canvas.place_axes(figure, 60, 10, PLOT_SIDE, PLOT_SIDE)
    axes.set_aspect("equal", adjustable="datalim")
    for part, name, colour in zip(examples, names, (palette.BLUE, palette.ORANGE), strict=True):
        axes.scatter(part[:, 0].numpy(), part[:, 1].numpy(), s=6, color=colour, label=canvas.plain(name))
    figure.legend(loc="upper right")
    return figure


def crop_exhibit(pictures: Sequence[Image.Image], card: dict[str, Any]) -> Exhibit:
    """crop.png: RGB portraits as they came with the kept square outlined, above what is made of them."""
    facts = card["pictures"]
    figure = canvas.blank(len(pictures) * (BEFORE_SIDE + GAP) + GAP, 2 * (BEFORE_SIDE + GAP) + GAP)
    for column, picture in enumerate(pictures):
        left = GAP + column * (BEFORE_SIDE + GAP)
        axes = canvas.place_axes(figure, left, GAP, BEFORE_SIDE, BEFORE_SIDE)
        axes.imshow(picture)
        x, y, right, lower = (edge - 0.5 for edge in square_box(*picture.size, facts["crop"]))  # pixels are centred
        axes.plot([x, right, right, x, x], [y, y, lower, lower, y], color=palette.VERMILLION, clip_on=False)
        axes.set_axis_off()
        axes = canvas.place_axes(figure, left, 2 * GAP + BEFORE_SIDE, BEFORE_SIDE, BEFORE_SIDE)
        square = to_square(picture, facts["image_size"], facts["crop"])
        axes.imshow(
            numpy.asarray(square.convert("L" if card["sample_shape"][0] == 1 else "RGB")), cmap="gray", vmin=0, vmax=255
        )
        axes.set_axis_off()
    if card["synthetic"]:
        canvas.watermark(figure)
    return Exhibit(
        "crop.png",
        "Before and after the crop",
        f"Above, pictures as they came, with the square that is kept ({facts['crop']}); below, what is made of it:"
        f" {facts['image_size']} pixels, cropped instead of squashed.{'' if card['synthetic'] else REAL_PORTRAITS}",
        f"{len(pictures)} pictures with a square outlined, and the square of each beneath.",
        encoding.encode_png(encoding.in_few_colours(canvas.rasterise(figure))),
    )


def exhibits(examples: Sequence[Tensor], pictures: Sequence[Image.Image], card: dict[str, Any]) -> Iterator[Exhibit]:
    """The figures of a data card; `pictures` are portraits that were cropped, where there are any."""
    if all(map(len, examples)):  # a tiny data set may have no training example of some class
        yield example_exhibit(examples, card)
    if pictures:
        yield crop_exhibit(pictures, card)
