"""The drawing surface: type, axes and text at places in pixels.

Figures are drawn at 72 dots per inch, so that a point is a pixel: every size here is a number of pixels. Nothing global
is touched: settings live in `house_style`, and figures are rasterised by Agg, without pyplot.
"""

import math
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import matplotlib
import numpy
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from PIL import Image

from diffusion_ladder.figures.palette import GRID, INK, RULE

FONT = "DejaVu Sans"  # matplotlib's own, so that figures are the same whatever fonts a machine has
TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13


SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
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


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults with the house's settings, whatever the user's matplotlibrc says; undone on exit.

    Matplotlib reads its settings both when a figure is made and when it is drawn: do both inside.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a stage says once what `missing_letters` finds
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


def plain(text: str) -> str:
    """A user's text for matplotlib, which would take what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def missing_letters(texts: Iterable[str]) -> str | None:
    """What the figures' font lacks of some texts, in one line; None where it has all of them."""
    font = get_font(findfont(FONT))
    lacking = sorted({letter for text in texts for letter in text if not font.get_char_index(ord(letter))})
    if not lacking:
        return None
    shown = ", ".join(f"{letter} ({unicodedata.name(letter, f'U+{ord(letter):04X}')})" for letter in lacking[:3])
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return (
        f"the figures' font, {FONT}, lacks {shown}{more}: figures show boxes instead, pages and tables the text itself"
    )


def place_text(figure: Figure, left: float, top: float, text: str, **settings: Any) -> None:
    """Text at a place in pixels, measured from the figure's left and upper edge; a formula with parse_math=True."""
    settings = {"parse_math": False} | settings
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
    font = FontProperties(family=FONT, size=TEXT_SIZE)
    return math.ceil(RendererAgg(1, 1, 72).get_text_width_height_descent(text, font, ismath=False)[0])


def rasterise(figure: Figure) -> Image.Image:
    """Draw a figure to RGB pixels."""
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return Image.fromarray(numpy.ascontiguousarray(numpy.asarray(canvas.buffer_rgba())[..., :3]))
