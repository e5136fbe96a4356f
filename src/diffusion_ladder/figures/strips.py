"""Images on their way between data and noise, drawn: strips, and frames of an animation."""

from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffusion_ladder.figures import canvas, encoding, mosaic, palette
from diffusion_ladder.figures.ways import Way

STRIP_COLOURS, STRIP_GREYS = 64, 16  # of the clean images in a strip, or of all in greys
ANIMATION_WIDTH = 700  # of the tiles of an animation of images, at most


def titles_of(timesteps: Sequence[int]) -> list[str]:
    """Column titles that name the letter once."""
    return [f"{t}" if index else f"t = {t}" for index, t in enumerate(timesteps)]


def paired_titles(names: Sequence[str]) -> list[str]:
    """Titles of pairs of rows: those of a class bear its name, those of an unconditional rung ("") don't."""
    return [f"{name}, {what}" if name else what for name in names for what in ("noisy", "predicted")]


def forward_strip(states: Tensor, timesteps: Sequence[int]) -> tuple[Figure, mosaic.MosaicLayout]:
    """Rows of images that dissolve into noise, from left to right: (F, N, channels, h, w) uint8 and the F timesteps."""
    return strip(states.transpose(0, 1), [], timesteps, None)


def reverse_strip(way: Way, names: Sequence[str]) -> tuple[Figure, mosaic.MosaicLayout]:
    """Noisy images above the clean ones predicted from them, for each of K samples with K names."""
    rows = torch.stack([way.states, way.predicted], dim=2).flatten(1, 2).transpose(0, 1)  # (2 K, F, channels, h, w)
    return strip(rows, paired_titles(names), way.timesteps, 2)


def strip(
    rows: Tensor, titles: Sequence[str], timesteps: Sequence[int], group: int | None
) -> tuple[Figure, mosaic.MosaicLayout]:
    """Rows (R, F, channels, h, w) of images under the F timesteps, and where their tiles lie."""
    scale, columns = mosaic.scale_of(rows), titles_of(timesteps)
    return mosaic.mosaic(rows, scale, titles, columns, group), mosaic.layout_of(rows, scale, titles, columns, group)


def image_frames(
    states: Tensor, predicted: Tensor, timesteps: Sequence[int], classes: Sequence[str]
) -> Iterator[Image.Image]:
    """Frames of the reverse process of images: for each class a row of noisy images above a row of predicted ones.

    Args:
        states, predicted: (F, K, channels, h, w) uint8; sample k has class k // (K / number of classes).
        timesteps: the F timesteps, told above.
        classes: names of the classes; one empty name for an unconditional rung.
    """
    for state, clean, t in zip(states, predicted, timesteps, strict=True):
        by_class = [images.unflatten(0, (len(classes), -1)) for images in (state, clean)]  # (classes, K / classes, ...)
        rows = torch.stack(by_class, dim=1).flatten(0, 1)  # (2 classes, K / classes, channels, h, w)
        titles = [f"t = {t}", *[""] * (rows.shape[1] - 1)]
        scale = mosaic.scale_of(rows, ANIMATION_WIDTH)
        yield canvas.rasterise(mosaic.mosaic(rows, scale, paired_titles(classes), titles, group=2))


def encode_strip(figure: Figure, clean: Tensor) -> bytes:
    """PNG of a strip of images between noise and (N, channels, h, w) clean images."""
    colours = palette.picture_palette(clean, colours=STRIP_COLOURS, greys=STRIP_GREYS)
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), colours))
