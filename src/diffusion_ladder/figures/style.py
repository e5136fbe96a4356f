"""What all figures share: what they are drawn from, colours and type, the drawing surface, and the encoding of files.

Figures are drawn at 72 dots per inch, so that a point is a pixel: every size here is a number of pixels. Nothing global
is touched: settings live in `house_style`, and figures are rasterised by Agg, without pyplot. Colours are those of
Okabe and Ito, which stay apart for colour-blind readers; the tracked point differs by size and outline too.
"""

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import numpy
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.params.samplers import MODULES, is_library

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

TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13
SHEET_WIDTH = SHEET_HEIGHT = 1200  # largest width and height of all of a mosaic's tiles, as far as pixels can be drawn
GREYS, COLOURS = 32, 160  # of pictures of samples
LARGEST_TILE = 128  # largest side to which a small image is enlarged

SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own
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
    sampler: dict[str, Any]  # metadata of the samples: how they were drawn
    comparison: Tensor
    comparison_sampler: dict[str, Any]
    trajectories: dict[str, Tensor]  # sampling.states, .predicted, .timesteps, .final
    training_log: dict[str, list[float]]  # column to values
    previews: dict[str, Tensor]  # samples (P, N, ...) drawn during training, and after which steps (P,)

    synthetic: bool = False  # whether the data card says that the data are

    @property
    def is_points(self) -> bool:
        """Whether samples are points of the plane, instead of images."""
        return not self.normalisation.bytes

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the samples are conditioned on; none for an unconditional rung."""
        return self.class_names[: int(self.rung["num_classes"])]

    def labels_of(self, count: int) -> Tensor | None:
        """The classes (N,) of `count` samples: equal shares, one class after the other; None if none was requested."""
        return torch.arange(count) * len(self.classes) // count if self.classes else None

    @property
    def class_key(self) -> str:
        """Which colour points of which class have, as a sentence after others; empty for an unconditional rung."""
        named = [f"{colour} is {name}" for colour, name in zip(CLASS_COLOURS, self.classes, strict=False)]
        return f" By class, {' and '.join(named)}." if named else ""


@dataclass(frozen=True)
class Exhibit:
    """A finished picture: its file, and what the report says about it."""

    file: str
    title: str
    caption: str  # what to see
    alt: str  # what the picture shows, for those who don't see it
    content: bytes
    film: bytes | None = None  # what the page's player shows of it (film.py)

    def entry(self) -> dict[str, str]:
        """The picture's entry in captions.json."""
        entry = {"file": self.file, "title": self.title, "caption": self.caption, "alt": self.alt}
        return entry if self.film is None else entry | {"film": self.film_file}

    @property
    def film_file(self) -> str:
        """The file of the film."""
        return f"{self.file.rpartition('.')[0]}.film.json"

    def files(self) -> dict[str, bytes]:
        """The picture's files by their names."""
        return {self.file: self.content} if self.film is None else {self.file: self.content, self.film_file: self.film}


def sampler_title(facts: dict[str, Any]) -> str:
    """How samples were drawn, for a title: from the metadata of their file."""
    maker = "diffusers " if is_library(facts["sampler"]) else ""
    guidance = "" if facts["guidance_scale"] == 1 else f", guidance {facts['guidance_scale']:g}"
    return f"{maker}{MODULES[facts['sampler']].title}, {facts['nfe']} evaluations{guidance}"


# The drawing surface


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults with the house's settings, whatever the user's matplotlibrc says; undone on exit.

    Matplotlib reads its settings both when a figure is made and when it is drawn: do both inside.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, SETTINGS))
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


def watermark(figure: Figure, text: str = "SYNTHETIC") -> None:
    """Write across a figure, so that the picture can't be taken for something else."""
    width, height = figure.bbox.width, figure.bbox.height
    size = min(0.6 * height, width / len(text))
    place: dict[str, Any] = {"ha": "center", "va": "center", "weight": "bold", "alpha": 0.25, "color": INK}
    outline = [withStroke(linewidth=size / 20, foreground="white", alpha=0.25)]
    figure.text(0.5, 0.5, text, size=size, path_effects=outline, **place)


def text_width(text: str) -> int:
    """Width of a text in pixels."""
    return math.ceil(TextPath((0, 0), text, TEXT_SIZE).get_extents().width)


def rasterise(figure: Figure) -> Image.Image:
    """Draw a figure to RGB pixels."""
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return Image.fromarray(numpy.ascontiguousarray(numpy.asarray(canvas.buffer_rgba())[..., :3]))


# Mosaics of images


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


# Palettes


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


# Files


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata; an RGB image of up to 256 colours goes into a palette, which changes no pixel."""
    if image.mode == "RGB" and (colours := colours_of(image, 256)) is not None:
        image = with_palette(image, colours)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def in_few_colours(image: Image.Image) -> Image.Image:
    """An RGB image in 160 colours, chosen to be as near as can be, where it has more than 256."""
    if colours_of(image, 256) is not None:
        return image
    return image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).convert("RGB")


def encode_samples(image: Image.Image) -> bytes:
    """PNG bytes of pictures of samples, in as many colours as the eye needs: 32 greys, or 160 colours."""
    colours = colours_of(image, 256)
    if colours is not None and all(red == green == blue for red, green, blue in colours):
        return encode_png(with_palette(image, [(255, 255, 255), *ramp("white", "black", GREYS - 1)]))
    return encode_png(in_few_colours(image))


def encode_animation(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """A lossless WebP animation that loops for ever; it is small where the frames have few colours.

    Args:
        frames: images of one size.
        durations: how long each frame stays, in milliseconds.
    """
    buffer = io.BytesIO()
    first, *rest = [frame.convert("RGB") for frame in frames]
    lossless: dict[str, Any] = {"lossless": True, "quality": 100, "method": 4, "minimize_size": True}
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=list(durations), loop=0, **lossless)
    return buffer.getvalue()
