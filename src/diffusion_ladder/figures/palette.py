"""Colours: those of Okabe and Ito, which stay apart for colour-blind readers, and the palettes of files.

The tracked point differs by size and outline too.
"""

import itertools
from collections.abc import Sequence
from typing import cast

import numpy
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

Colour = tuple[int, int, int]
INK = "#1f2933"  # text
GREY_INK = "#262626"  # text beside images, so that a picture in greys stays one
RULE = "#c3cbd6"  # frames and ticks
GRID = "#e6eaf0"
CROWD = "#8296b5"  # every point that is not the tracked one
TRACKED = "#00b050"  # the tracked point
TRACKED_EDGE = "#063d1d"
TRAIL = "#66d199"  # where the tracked point has been
VERMILLION_INK = "#6e2f00"  # the same hue, dark
BLUE, SKY, ORANGE, VERMILLION = "#0072b2", "#56b4e9", "#e69f00", "#d55e00"
CLASS_COLOURS = {"blue": BLUE, "orange": ORANGE}  # of points, whose data have two classes


def ramp(start: str, end: str, count: int) -> list[Colour]:
    """`count` colours that lead from `start` (left out) to `end` (included)."""
    first, last = numpy.array(to_rgb(start)), numpy.array(to_rgb(end))
    mixed = [first + (last - first) * (i + 1) / count for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in mixed]


def palette_of(*shades: tuple[str, int]) -> list[Colour]:
    """White, and so many shades of each of some colours, up to the colour itself."""
    return [(255, 255, 255), *(shade for colour, count in shades for shade in ramp("white", colour, count))]


def picture_palette(clean: Tensor, colours: int, greys: int) -> list[Colour]:
    """A palette for images between noise and clean: noise is what fills files, and few colours are enough to show it.

    Args:
        clean: (N, channels, h, w) uint8: the clean images, whose colours are to stay what they are.
        colours: of clean images in colour, chosen by octree, which keeps rare ones; 27 evenly spaced ones are added.
        greys: of images of one channel, evenly spaced.
    """
    if clean.shape[1] == 1:
        return [(255, 255, 255), *ramp("white", "black", greys - 1)]
    pixels = clean.permute(0, 2, 3, 1).flatten(0, 1).contiguous().numpy()  # (N h, w, 3)
    reduced = Image.fromarray(pixels).quantize(colours, method=Image.Quantize.FASTOCTREE).convert("RGB")
    evenly = [(r, g, b) for r, g, b in itertools.product((0, 128, 255), repeat=3)]
    return sorted({*evenly, *ramp("white", GREY_INK, 4), *(colours_of(reduced, 256) or [])})


def colours_of(image: Image.Image, most: int) -> list[Colour] | None:
    """The colours of an RGB image in a fixed order, or None where there are more than `most`."""
    found = image.getcolors(most)
    return None if found is None else sorted(cast(Colour, colour) for _, colour in found)


def with_palette(image: Image.Image, colours: Sequence[Colour]) -> Image.Image:
    """An RGB image with each pixel in the nearest of up to 256 colours, without dithering.

    Pillow's own conversion rounds colours to multiples of four first, which would change even those of the palette.
    """
    pixels = numpy.asarray(image).reshape(-1, 3).astype(numpy.int64)
    packed, where = numpy.unique(pixels[:, 0] << 16 | pixels[:, 1] << 8 | pixels[:, 2], return_inverse=True)
    unique = numpy.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)  # (U, 3)
    palette = numpy.array(colours, dtype=numpy.int64)  # (P, 3)
    distance = (palette**2).sum(1) - 2 * unique @ palette.T  # (U, P), less |unique|^2, which changes no minimum
    result = Image.frombytes("P", image.size, distance.argmin(1).astype(numpy.uint8)[where].tobytes())
    result.putpalette(palette.astype(numpy.uint8).tobytes())
    return result


# More than 16 colours: PNG would pack fewer into half bytes, in which deflate finds fewer repetitions.
POINTS_PALETTE = palette_of((INK, 5), (RULE, 1), (CROWD, 5), (TRACKED, 2), (TRAIL, 2)) + ramp(TRACKED, TRACKED_EDGE, 2)
CLASSES_PALETTE = POINTS_PALETTE + [shade for colour in CLASS_COLOURS.values() for shade in ramp("white", colour, 5)]
CHART_PALETTE = palette_of((INK, 8), (RULE, 2), (GRID, 1), (BLUE, 8), (SKY, 6), (ORANGE, 8), (VERMILLION, 8))
