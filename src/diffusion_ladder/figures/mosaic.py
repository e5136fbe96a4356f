"""Images in rows and columns, each enlarged by a whole number."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_ladder.figures.canvas import SMALL_TEXT_SIZE, blank, place_text, text_width
from diffusion_ladder.figures.palette import GREY_INK

SHEET_WIDTH = SHEET_HEIGHT = 1200  # largest width and height of all of a mosaic's tiles, as far as pixels can be drawn
LARGEST_TILE = 128  # largest side to which a small image is enlarged


@dataclass(frozen=True)
class MosaicLayout:
    """Where the tiles of a mosaic lie: `rows` x `columns` of them; each `group` rows are set apart from the next."""

    rows: int
    columns: int
    tile_height: int
    tile_width: int
    group: int
    left: int  # pixels for row titles
    top: int  # pixels for column titles

    GAP = 2
    GROUP_GAP = 12
    MARGIN = 4

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """(x, y) of a tile's upper left pixel."""
        x = self.left + column * (self.tile_width + self.GAP)
        return x, self.top + row * (self.tile_height + self.GAP) + row // self.group * (self.GROUP_GAP - self.GAP)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole picture."""
        x, y = self.corner(self.rows - 1, self.columns - 1)
        return x + self.tile_width + self.MARGIN, y + self.tile_height + self.MARGIN


def scale_of(rows: Tensor, width: int = SHEET_WIDTH) -> int:
    """The largest enlargement at which (R, C, channels, h, w) images fit into a sheet, none too large; at least 1."""
    count, columns, _, height, side = rows.shape
    return max(1, min(LARGEST_TILE // side, width // (columns * side), SHEET_HEIGHT // (count * height)))


def layout_of(
    images: Tensor, scale: int, row_titles: Sequence[str], column_titles: Sequence[str], group: int | None
) -> MosaicLayout:
    """The layout of `mosaic` for the same arguments."""
    rows, columns, _, height, width = images.shape
    longest = max(map(text_width, row_titles), default=0)
    left = MosaicLayout.MARGIN + (longest + 12) * bool(row_titles)
    top = MosaicLayout.MARGIN + (SMALL_TEXT_SIZE + 8) * bool(column_titles)
    return MosaicLayout(rows, columns, height * scale, width * scale, group or rows, left, top)


def mosaic(
    images: Tensor,
    scale: int,
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    group: int | None = None,
) -> Figure:
    """Images side by side, each pixel drawn as `scale` x `scale` equal pixels.

    Args:
        images: (R, C, channels, h, w) uint8, with one channel (grey) or three (RGB).
        scale: integer enlargement, so that pixels stay what they are.
        row_titles: R texts for the left margin, or none.
        column_titles: C texts for the upper margin, or none.
        group: rows that belong together, set apart from the next; None for all of them.
    """
    layout = layout_of(images, scale, row_titles, column_titles, group)
    width, height = layout.size
    figure = blank(width, height)
    figure.figimage(mosaic_pixels(images, scale, layout), origin="upper")
    for row, title in enumerate(row_titles):
        middle = layout.corner(row, 0)[1] + layout.tile_height / 2
        place_text(figure, layout.left - 8, middle, title, ha="right", va="center", color=GREY_INK)
    small: dict[str, Any] = {"ha": "center", "va": "baseline", "size": SMALL_TEXT_SIZE, "color": GREY_INK}
    for column, title in enumerate(column_titles):
        middle = layout.corner(0, column)[0] + layout.tile_width / 2
        place_text(figure, middle, layout.top - 5, title, **small)
    return figure


def mosaic_pixels(images: Tensor, scale: int, layout: MosaicLayout) -> numpy.ndarray:
    """(height, width, 3) uint8: the tiles of a mosaic on white."""
    width, height = layout.size
    pixels = numpy.full((height, width, 3), 255, dtype=numpy.uint8)
    enlarged = images.permute(0, 1, 3, 4, 2).repeat_interleave(scale, 2).repeat_interleave(scale, 3).numpy()
    for row, column in itertools.product(range(layout.rows), range(layout.columns)):
        x, y = layout.corner(row, column)
        pixels[y : y + layout.tile_height, x : x + layout.tile_width] = enlarged[row, column]
    return pixels
