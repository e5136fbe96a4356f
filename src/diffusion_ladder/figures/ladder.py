"""The ladder as one picture: for each rung the way from noise to samples, samples beside held-out data, its number."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_ladder.figures import canvas, encoding
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.points import frame_plane, show_crowd

WIDTH = 1200
HEAD, ROW, GAP = 46, 150, 14  # heights of the column titles and of a rung, and the space between rungs, in pixels
TEXT_WIDTH = 256
TILE, SPACE = 64, 4  # side of an image, and the space between two
COLUMNS = {"from noise": 5, "to samples, none left out": 5, "beside held-out data": 3}  # titles, and tiles in a row
ROWS = 2  # of tiles
BETWEEN = 20  # columns of the picture
MOST_POINTS = 700


@dataclass(frozen=True)
class Step:
    """A rung of the ladder as the picture shows it.

    Attributes:
        title: its name.
        lines: its number with the floor, and what it cost, in a few words each.
        way: (F, K, ...) F states of the same samples, from noise to the end, in data units.
        samples: (N, ...) uint8 images or float points, the first ones.
        held_out: (M, ...) the same of data that no training has seen.
    """

    title: str
    lines: Sequence[str]
    way: Tensor
    samples: Tensor
    held_out: Tensor


def spread(way: Tensor, count: int) -> list[Tensor]:
    """`count` states of a way (F, K, ...), evenly spaced, the first and the last among them: each (K, ...)."""
    return [way[round(place * (len(way) - 1) / (count - 1))] for place in range(count)]


def left_edges() -> list[int]:
    """Where each column of the picture begins, in pixels."""
    edges, left = [], TEXT_WIDTH
    for tiles in COLUMNS.values():
        edges.append(left)
        left += tiles * (TILE + SPACE) + BETWEEN
    return edges


def show_tiles(figure: Figure, left: int, top: int, columns: int, images: Tensor) -> None:
    """Images (N, C, H, W) uint8, row by row, each enlarged or shrunk to a tile."""
    for number, image in enumerate(images[: columns * ROWS]):
        row, column = divmod(number, columns)
        axes = canvas.place_axes(figure, left + column * (TILE + SPACE), top + row * (TILE + SPACE), TILE, TILE)
        axes.set_axis_off()
        pixels = image.movedim(0, 2).numpy()
        axes.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)


def show_cloud(figure: Figure, left: float, top: float, side: float, points: Tensor) -> None:
    """Points (N, 2) in a square of the plane."""
    axes = canvas.place_axes(figure, left, top, side, side)
    frame_plane(axes)
    show_crowd(axes, points[:MOST_POINTS], 1.6)


def show_images(figure: Figure, top: int, step: Step) -> None:
    """A rung of images: two samples' ways below each other, samples, held-out data."""
    lefts, counts = left_edges(), tuple(COLUMNS.values())
    states = spread(step.way, counts[0])
    ways = [state[which] for which in (0, -1) for state in states]
    for left, columns, images in zip(lefts, counts, (torch.stack(ways), step.samples, step.held_out), strict=True):
        show_tiles(figure, left, top, columns, images)


def show_points(figure: Figure, top: int, step: Step) -> None:
    """A rung of points: three states of the way, samples, held-out data."""
    lefts, side = left_edges(), ROWS * (TILE + SPACE) - SPACE
    width = next(iter(COLUMNS.values())) * (TILE + SPACE) - SPACE
    few = (width - 2 * SPACE) / 3
    for number, state in enumerate(spread(step.way, 3)):
        show_cloud(figure, lefts[0] + number * (few + SPACE), top + (side - few) / 2, few, state)
    for left, points in zip(lefts[1:], (step.samples, step.held_out), strict=True):
        show_cloud(figure, left, top, side, points)


def draw(steps: Sequence[Step]) -> Figure:
    """The picture of all rungs, the first at the top."""
    figure = canvas.blank(WIDTH, HEAD + len(steps) * (ROW + GAP))
    for left, title in zip(left_edges(), COLUMNS, strict=True):
        canvas.place_text(figure, left, 16, title, fontsize=canvas.SMALL_TEXT_SIZE)
    for number, step in enumerate(steps):
        top = HEAD + number * (ROW + GAP)
        canvas.place_text(figure, 8, top + 10, step.title, weight="bold", fontsize=14)
        for place, line in enumerate(step.lines):
            size = canvas.SMALL_TEXT_SIZE
            canvas.place_text(figure, 8, top + 34 + 20 * place, line, fontsize=size)
        (show_points if step.samples.ndim == 2 else show_images)(figure, top, step)
    return figure


def ladder_exhibit(steps: Sequence[Step]) -> Exhibit:
    """ladder.png."""
    return Exhibit(
        "ladder.png",
        "The ladder",
        "For each rung, from left to right: its number beside that of real data, and what it cost; the way from pure"
        " noise to the first samples; the first samples, none left out; held-out data to compare.",
        f"{len(steps)} rows of pictures, one for each rung: states between noise and sample, samples, held-out data.",
        encoding.encode_samples(canvas.rasterise(draw(steps))),
    )
