"""What all figures share: what they are drawn from, colours and type, the drawing surface, and the encoding of files.

Figures are drawn at 72 dots per inch, so that one point is one pixel: every size here is a number of pixels. Nothing global
is touched: settings live in `house_style`, and figures are rasterised by Agg without pyplot. Colours are those of Okabe and
Ito, which stay apart for colour-blind readers; the tracked point also differs by size, outline and lightness.
"""

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation

INK = "#1f2933"  # text
GREY_INK = "#262626"  # text beside images: a picture in greys stays one
RULE = "#c3cbd6"  # frames and ticks
GRID = "#e6eaf0"
CROWD = "#8296b5"  # every point that is not the tracked one
TRACKED = "#00b050"  # the tracked point
TRACKED_EDGE = "#063d1d"
TRAIL = "#66d199"  # where the tracked point has been
BLUE, SKY, ORANGE, VERMILLION = "#0072b2", "#56b4e9", "#e69f00", "#d55e00"

TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13
SHEET_WIDTH = 1200  # largest width of all of a mosaic's tiles
LARGEST_TILE = 128  # largest side to which a small image is enlarged

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL_TEXT_SIZE,
    "ytick.labelsize": SMALL_TEXT_SIZE,
    "legend.frameon": False,
    "legend.fontsize": SMALL_TEXT_SIZE,
    "lines.linewidth": 2.5,
}


@dataclass(frozen=True)
class RungArtifacts:
    """What the figures of one rung are drawn from. Images are uint8 NCHW, points float32 (N, 2) in data units."""

    rung: dict[str, Any]  # models/MODEL/rung.json
    normalisation: Normalisation
    class_names: list[str]
    data: dict[str, Tensor]  # data/processed: train, test, train_labels, test_labels
    samples: Tensor
    sampler: dict[str, Any]  # metadata of the samples: which sampler, how many steps
    comparison: Tensor
    comparison_sampler: dict[str, Any]
    trajectories: dict[str, Tensor]
    training_log: dict[str, list[float]]  # column to values

    @property
    def model(self) -> str:
        """The rung's key in params.yaml."""
        return str(self.rung["model"])

    @property
    def is_points(self) -> bool:
        """Whether samples are points of the plane, instead of images."""
        return not self.normalisation.bytes

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the samples are conditioned on; none for an unconditional rung."""
        return self.class_names[: int(self.rung["num_classes"])]


@dataclass(frozen=True)
class Exhibit:
    """A finished picture: its file, and what the report says about it."""

    file: str
    title: str
    caption: str  # what to see
    alt: str  # what the picture shows, for those who don't see it
    content: bytes

    def entry(self) -> dict[str, str]:
        """The picture's entry in captions.json."""
        return {"file": self.file, "title": self.title, "caption": self.caption, "alt": self.alt}


def sampler_title(facts: dict[str, Any]) -> str:
    """How samples were drawn, for a title: from the metadata of their file."""
    name = facts["sampler"]
    maker = "diffusers " if name.startswith("diffusers_") else ""
    guidance = "" if facts["guidance_scale"] == 1 else f", guidance {facts['guidance_scale']:g}"
    return f"{maker}{name.removeprefix('diffusers_').replace('_', '-').upper()}, {facts['nfe']} evaluations{guidance}"


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults with the house's settings, whatever the user's matplotlibrc says; undone on exit."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty white figure of a size in pixels, with an Agg canvas."""
    figure = Figure(figsize=(math.ceil(width) / 72, math.ceil(height) / 72), dpi=72, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in pixels, measured from the figure's left and upper edge."""
    full_width, full_height = figure.bbox.width, figure.bbox.height
    bottom = full_height - top - height
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def place_text(figure: Figure, left: float, top: float, text: str, **settings: Any) -> None:
    """Text at a place in pixels, measured from the figure's left and upper edge."""
    figure.text(left / figure.bbox.width, 1 - top / figure.bbox.height, text, **settings)


def rasterise(figure: Figure) -> Image.Image:
    """Draw a figure to RGB pixels; call it inside `house_style`, which matplotlib also reads while drawing."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return Image.fromarray(numpy.ascontiguousarray(numpy.asarray(canvas.buffer_rgba())[..., :3]))


def ramp(start: str, end: str, count: int) -> list[tuple[int, int, int]]:
    """`count` colours that lead from `start` (left out) to `end` (included)."""
    first, last = numpy.array(to_rgb(start)), numpy.array(to_rgb(end))
    mixed = [first + (last - first) * (i + 1) / count for i in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in mixed]


def palette_of(*ramps: tuple[str, str, int]) -> list[tuple[int, int, int]]:
    """White, and all colours of some ramps: a fixed palette makes small files, and keeps each colour what it is."""
    return [(255, 255, 255), *(colour for start, end, count in ramps for colour in ramp(start, end, count))]


# More than 16 colours: PNG would pack fewer into half bytes, in which deflate finds fewer repetitions.
POINTS_PALETTE = palette_of(
    ("white", INK, 5), ("white", RULE, 1), ("white", CROWD, 5), ("white", TRACKED, 2), (TRACKED, TRACKED_EDGE, 2),
    ("white", TRAIL, 2),
)  # fmt: skip
CHART_PALETTE = palette_of(
    ("white", INK, 8), ("white", RULE, 2), ("white", GRID, 1), ("white", BLUE, 8), ("white", SKY, 6), ("white", ORANGE, 8),
    ("white", VERMILLION, 8),
)  # fmt: skip


def with_palette(image: Image.Image, colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Each pixel in the nearest of the given colours, without dithering."""
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def picture_palette(clean: Tensor, colours: int, cube: int = 3) -> list[tuple[int, int, int]]:
    """A palette for noisy images: noise is what fills files, and few colours are enough to show it.

    Args:
        clean: (N, channels, h, w) uint8: the images without noise, whose colours are to stay what they are.
        colours: so many greys, or so many colours of the clean images, chosen by median cut.
        cube: levels of each of red, green and blue that stand for the noise of colour images.
    """
    if clean.shape[1] == 1:
        return [(255, 255, 255), *ramp("white", "black", colours - 1)]
    levels = [round(255 * level / (cube - 1)) for level in range(cube)]
    pixels = clean.permute(0, 2, 3, 1).flatten(0, 1).contiguous().numpy()  # (N h, w, 3)
    chosen = Image.fromarray(pixels).quantize(colours, method=Image.Quantize.MEDIANCUT).convert("RGB").getcolors(colours)
    assert chosen is not None
    return sorted({*itertools.product(levels, repeat=3), *(colour for _, colour in chosen)})  # type: ignore[misc]


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata; an RGB image of up to 256 colours goes into a palette, which changes no pixel."""
    if image.mode == "RGB" and (exact := image.getcolors(256)) is not None:
        image = with_palette(image, sorted(colour for _, colour in exact))  # type: ignore[misc]
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def encode_animation(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """A lossless WebP animation that loops for ever; it is small where the frames have few colours.

    Args:
        frames: images of one size.
        durations: how long each frame stays, in milliseconds.
    """
    buffer = io.BytesIO()
    first, *rest = [frame.convert("RGB") for frame in frames]
    first.save(
        buffer, "WEBP", save_all=True, append_images=rest, duration=list(durations), loop=0, lossless=True, quality=100,
        method=4, minimize_size=True,
    )  # fmt: skip
    return buffer.getvalue()


@dataclass(frozen=True)
class MosaicLayout:
    """Where the tiles of a mosaic lie: `rows` x `columns` of them, in groups of `group` rows with wider gaps between."""

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


def text_width(text: str) -> int:
    """Width of a text in pixels."""
    return math.ceil(TextPath((0, 0), text, TEXT_SIZE).get_extents().width)


def scale_of(rows: Tensor, width: int = SHEET_WIDTH) -> int:
    """The largest enlargement at which (R, C, channels, h, w) images fit into a width, none above 128 pixels; at least 1."""
    columns, side = rows.shape[1], rows.shape[4]
    return max(1, min(LARGEST_TILE // side, width // (columns * side)))


def layout_of(images: Tensor, scale: int, row_titles: Sequence[str], column_titles: Sequence[str], group: int) -> MosaicLayout:
    """The layout of (R, C, channels, h, w) images, each enlarged `scale` times."""
    rows, columns, _, height, width = images.shape
    longest = max(map(text_width, row_titles), default=0)
    left = MosaicLayout.MARGIN + (longest + 12) * bool(row_titles)
    top = MosaicLayout.MARGIN + (SMALL_TEXT_SIZE + 8) * bool(column_titles)
    return MosaicLayout(rows, columns, height * scale, width * scale, group, left, top)


def mosaic(
    images: Tensor, scale: int, row_titles: Sequence[str] = (), column_titles: Sequence[str] = (), group: int | None = None
) -> Figure:
    """Images side by side, each pixel drawn as `scale` x `scale` equal pixels.

    Args:
        images: (R, C, channels, h, w) uint8, with one channel (grey) or three (RGB).
        scale: integer enlargement, so that pixels stay what they are.
        row_titles: R texts for the left margin, or none.
        column_titles: C texts for the upper margin, or none.
        group: rows that belong together, set apart from the next; None for all of them.
    """
    layout = layout_of(images, scale, row_titles, column_titles, group or len(images))
    width, height = layout.size
    pixels = numpy.full((height, width, 3), 255, dtype=numpy.uint8)
    enlarged = images.permute(0, 1, 3, 4, 2).repeat_interleave(scale, 2).repeat_interleave(scale, 3).numpy()
    for row in range(layout.rows):
        for column in range(layout.columns):
            x, y = layout.corner(row, column)
            pixels[y : y + layout.tile_height, x : x + layout.tile_width] = enlarged[row, column]
    figure = blank(width, height)
    figure.figimage(pixels, origin="upper")
    for row, title in enumerate(row_titles):
        middle = layout.corner(row, 0)[1] + layout.tile_height / 2
        place_text(figure, layout.left - 8, middle, title, ha="right", va="center", color=GREY_INK)
    for column, title in enumerate(column_titles):
        middle = layout.corner(0, column)[0] + layout.tile_width / 2
        small = {"size": SMALL_TEXT_SIZE, "color": GREY_INK}
        place_text(figure, middle, layout.top - 5, title, ha="center", va="baseline", **small)
    return figure
