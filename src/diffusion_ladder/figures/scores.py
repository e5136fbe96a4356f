"""The learnt score beside the exact one in pictures: fields over the plane, and the error over t.

Timesteps are counted as in the papers, from 1, as in the other figures.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch import Tensor

from diffusion_ladder.evaluation.scores import ScoreErrors, ScoreFields
from diffusion_ladder.figures import canvas, encoding, palette
from diffusion_ladder.figures.exhibit import Exhibit

PANEL, GAP, LEFT, TOP = 316, 14, 118, 36  # pixels
ARROWS = 19  # along each side of a panel, at most
LONGEST = 2.0  # arrows are cut at this length of epsilon
DENSITY_LEVELS = (-6.0, -4.5, -3.0, -1.5, -0.5, 0.0)  # of log q(x_t), below its largest value
DENSITY_SHADES = ("#eef3f9", "#dbe6f2", "#c2d5e8", "#a5c1dc", "#86abce")  # light, so that arrows stand out
RARE = DENSITY_LEVELS[0]  # where x_t is rarer than this, differences don't count
ERROR_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
ERROR_SHADES = ("#fff7e6", "#fbe3b3", "#f2c063", "#e69f00", "#d55e00", palette.VERMILLION_INK)
PALETTE = palette.palette_of(
    (palette.INK, 8), (palette.RULE, 2), *((shade, 2) for shade in (*DENSITY_SHADES, *ERROR_SHADES))
)


def fields_figure(fields: ScoreFields) -> Figure:
    """Three rows: the exact field, the learnt one, and how far they differ; a column for each timestep."""
    columns = len(fields.timesteps)
    figure = canvas.blank(LEFT + columns * (PANEL + GAP), TOP + 3 * (PANEL + GAP) + 36)
    for row, title in enumerate(("exact", "learnt", "difference")):
        canvas.place_text(figure, LEFT - 12, TOP + row * (PANEL + GAP) + PANEL / 2, title, ha="right", va="center")
    for column, t in enumerate((fields.timesteps + 1).tolist()):
        density = fields.log_density[column] - fields.log_density[column].max()
        for row in range(3):
            axes = panel(figure, row, column, fields.places)
            if row == 0:
                axes.set_title(f"t = {t}", pad=5)
            if row < 2:
                draw_density(axes, fields.places, density)
                draw_arrows(axes, fields.places, -(fields.exact, fields.learnt)[row][column])
            else:
                draw_difference(axes, fields.places, (fields.learnt - fields.exact)[column].norm(dim=-1), density)
    draw_key(figure, TOP + 3 * (PANEL + GAP) + 4)
    return figure


def panel(figure: Figure, row: int, column: int, places: Tensor) -> Axes:
    """Empty axes over the plane."""
    axes = canvas.place_axes(figure, LEFT + column * (PANEL + GAP), TOP + row * (PANEL + GAP), PANEL, PANEL)
    reach = places.max().item()
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
    return axes


def draw_density(axes: Axes, places: Tensor, density: Tensor) -> None:
    """Where x_t is, (G, G), in a few shades."""
    axes.contourf(places, places, density, levels=DENSITY_LEVELS, colors=DENSITY_SHADES, extend="neither")


def draw_arrows(axes: Axes, places: Tensor, field: Tensor) -> None:
    """A field (G, G, 2) as arrows at every few places, cut where they would be too long."""
    every = -(-len(places) // ARROWS)
    chosen = torch.arange(every // 2, len(places), every)
    arrows = field[chosen][:, chosen]
    arrows = arrows * (LONGEST / arrows.norm(dim=-1, keepdim=True)).clamp(max=1)
    spacing = (places[every] - places[0]).item()
    look: dict[str, Any] = {"units": "dots", "width": 1.3, "headwidth": 4.5, "headlength": 5, "headaxislength": 4.5}
    axes.quiver(
        places[chosen], places[chosen], arrows[..., 0], arrows[..., 1],
        angles="xy", scale_units="xy", scale=LONGEST / (0.95 * spacing), pivot="mid", color=palette.INK, **look,
    )  # fmt: skip


def draw_difference(axes: Axes, places: Tensor, difference: Tensor, density: Tensor) -> None:
    """|difference| of epsilon (G, G), blank where x_t hardly ever is."""
    shown = difference.masked_fill(density < RARE, torch.nan)
    axes.contourf(places, places, shown, levels=ERROR_LEVELS, colors=ERROR_SHADES, extend="max")


def draw_key(figure: Figure, top: float) -> None:
    """What the shades of the difference mean."""
    left = LEFT + 6.0
    canvas.place_text(figure, LEFT - 12, top + 10, "|difference|", ha="right", va="center", size=canvas.SMALL_TEXT_SIZE)
    labels = [f"{low:g} to {high:g}" for low, high in pairwise(ERROR_LEVELS)]
    for shade, label in zip(ERROR_SHADES, [*labels, f"above {ERROR_LEVELS[-1]:g}"], strict=True):
        width, height = figure.bbox.width, figure.bbox.height
        place = (left / width, 1 - (top + 18) / height)
        figure.add_artist(Rectangle(place, 26 / width, 16 / height, color=shade, transform=figure.transFigure))
        canvas.place_text(figure, left + 33, top + 10, label, va="center", size=canvas.SMALL_TEXT_SIZE)
        left += 146


def errors_figure(errors: ScoreErrors, shown: Tensor) -> Figure:
    """The relative errors over t, both logarithmic; the timesteps of the fields are marked."""
    figure = canvas.blank(1200, 380)
    axes = canvas.place_axes(figure, 84, 40, 1080, 276)
    t = errors.timesteps + 1
    for values, colour, line, label in (
        (errors.held_out, palette.ORANGE, "--", "exact score of the held-out points"),
        (errors.learnt, palette.BLUE, "-", "learnt score"),
    ):
        axes.fill_between(t, values.amin(dim=1), values.amax(dim=1), color=colour, alpha=0.25, lw=0)
        axes.plot(t, values.mean(dim=1), color=colour, ls=line, label=label)
    marked = torch.isin(errors.timesteps, shown)
    axes.plot(t[marked], errors.learnt.mean(dim=1)[marked], "o", color=palette.BLUE, ms=8)
    axes.axhline(1, color=palette.VERMILLION, lw=1.5, ls=":")
    below: dict[str, Any] = {"xytext": (-4, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate("always answering zero", (int(t[-1]), 1), **below)
    axes.set(title="relative error of the score, against the exact one of the training points", xlabel="timestep t")
    axes.set(xscale="log", yscale="log", xlim=(1, int(t[-1])))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(loc="lower left")
    return figure


def encode(figure: Figure, colours: list[palette.Colour]) -> bytes:
    """PNG of a figure in the colours of a palette."""
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), colours))


def exhibits(fields: ScoreFields, errors: ScoreErrors) -> Iterator[Exhibit]:
    """The fields side by side, and their error over t."""
    yield fields_exhibit(fields)
    yield errors_exhibit(errors, fields.timesteps)


def fields_exhibit(fields: ScoreFields) -> Exhibit:
    """score_fields.png."""
    at = ", ".join(f"t = {t}" for t in (fields.timesteps + 1).tolist())
    return Exhibit(
        "score_fields.png",
        "The learnt score beside the exact one",
        "Arrows point the way to more likely places: they are the score times the standard deviation of the noise, "
        f"minus epsilon, and are cut at length {LONGEST:g}; the shades behind them show where x_t is. The exact score "
        "is that of the training points, each with its noise: what the loss asks for. Below, the length of the "
        "difference between the two, blank where x_t hardly ever is. Look at the rims of the shades, of which the "
        "network has seen the fewest examples, and at the blotches where there is little noise: there the exact score "
        "leads to single training points, the learnt one to the shape as a whole.",
        f"Panels in three rows and {len(fields.timesteps)} columns, for {at}: a field of arrows that lead to the shape "
        "of the data, the learnt field at the same places, and a map of their differences.",
        encode(fields_figure(fields), PALETTE),
    )


def errors_exhibit(errors: ScoreErrors, shown: Tensor) -> Exhibit:
    """score_error.png; shown: the timesteps of the fields."""
    by_t = dict(zip((errors.timesteps + 1).tolist(), errors.learnt.mean(dim=1).tolist(), strict=True))
    worst, best = max(by_t, key=lambda t: by_t[t]), min(by_t, key=lambda t: by_t[t])
    return Exhibit(
        "score_error.png",
        "Error of the learnt score",
        "How far the learnt score is from the exact one, relative to its size (root of the mean square, over x_t as "
        f"the forward process makes them): {100 * by_t[best]:.3g} % at best, at t = {best}, and {100 * by_t[worst]:.3g}"
        f" % at worst, at t = {worst}. With next to no noise the exact score leads to the nearest training point, "
        "which it knows by heart and the network does not; dashed, what held-out points from the same source would "
        "answer in the network's place. Bands reach from the least to the largest error of the "
        "seeds. Dots mark the timesteps of the fields above.",
        f"Two curves over t from 1 to {max(by_t)} on logarithmic axes: the error of the learnt score, from "
        f"{by_t[min(by_t)]:.2g} to {by_t[max(by_t)]:.2g}, and that of the exact score of the held-out points.",
        encode(errors_figure(errors, shown), palette.CHART_PALETTE),
    )
