"""A study in pictures: the quality of each variant over the training seeds, and samples from the same noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from diffusion_ladder.figures import canvas, encoding, mosaic, palette
from diffusion_ladder.figures.points import show_crowd

ROW, HEAD, FOOT = 30, 46, 58  # heights of a variant, of the titles and of the axis, in pixels
WIDTH, GAP = 1200, 36
CHART = palette.palette_of(
    (palette.INK, 8),
    (palette.RULE, 2),
    (palette.GRID, 1),
    (palette.BLUE, 8),
    (palette.CROWD, 8),
    (palette.VERMILLION, 8),
)
COLOURS = {"better": palette.BLUE, "worse": palette.VERMILLION}  # than the baseline; the baseline itself is in ink
IMAGES = 10  # of each variant
POINTS, PANEL, PANELS = 700, 176, 6  # points of each variant, side of a panel, panels in a row


@dataclass(frozen=True)
class Panel:
    """One metric on one rung.

    Attributes:
        title: of the panel.
        axis: what is measured, and which values are good.
        values: by variant, one number for each training seed; the baseline first.
        judged: by variant, what the verdict is: better, worse, or something else.
        floor: what real data score; None where that is not known.
    """

    title: str
    axis: str
    values: Mapping[str, Sequence[float]]
    judged: Mapping[str, str]
    floor: float | None


def quality_chart(panels: Sequence[Panel], columns: int) -> bytes:
    """PNG: a panel for each metric on each rung, with a row for each variant.

    Args:
        columns: panels side by side, which have the same variants.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.values))
    left = 24 + max(map(canvas.text_width, names))
    rows, height = -(-len(panels) // columns), ROW * len(names)
    width = (WIDTH - left - columns * GAP) / columns
    figure = canvas.blank(WIDTH, rows * (HEAD + height + FOOT))
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        top = row * (HEAD + height + FOOT) + HEAD
        axes = canvas.place_axes(figure, left + column * (width + GAP), top, width, height)
        draw_panel(axes, panel, names)
        axes.set_yticklabels(names if column == 0 else [])
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), CHART))


def draw_panel(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    """Each run a small mark, the mean a large one with a bar of one deviation; the baseline's mean a line."""
    for place, name in enumerate(names):
        if not (values := torch.tensor(panel.values.get(name, []), dtype=torch.float64)).numel():
            continue
        colour = palette.INK if place == 0 else COLOURS.get(panel.judged.get(name, ""), palette.CROWD)
        spread = values.std().item() if len(values) > 1 else 0.0
        axes.plot(values, [place] * len(values), "|", color=colour, ms=13, mew=1.5)
        axes.errorbar(values.mean().item(), place, xerr=spread, fmt="o", color=colour, ms=8, capsize=4, elinewidth=2)
        if place == 0:
            axes.axvline(values.mean().item(), color=palette.INK, lw=1, zorder=0)
    if panel.floor is not None:
        axes.axvline(panel.floor, color=palette.CROWD, lw=1.5, ls=":", zorder=0)
        axes.text(
            panel.floor, -0.62, "real data", color=palette.INK, size=canvas.SMALL_TEXT_SIZE, ha="center", va="bottom"
        )
    axes.set(ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)), xlabel=panel.axis)
    if spans_decades(panel):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(panel.title, pad=20)


def spans_decades(panel: Panel) -> bool:
    """Whether the means are too far apart for a linear axis."""
    means = [sum(values) / len(values) for values in panel.values.values() if values]
    return min(min(values) for values in panel.values.values() if values) > 0 and max(means) > 30 * min(means)


def samples_sheet(samples: Mapping[str, Tensor]) -> bytes:
    """PNG: samples of each variant, from the same noise.

    Args:
        samples: by variant, (N, C, H, W) uint8 images, each class an equal share, or (N, 2) points; the baseline first.
    """
    if next(iter(samples.values())).ndim == 2:
        return encoding.encode_png(palette.with_palette(canvas.rasterise(clouds(samples)), palette.POINTS_PALETTE))
    rows = torch.stack([spread_out(images) for images in samples.values()])  # (V, IMAGES, C, H, W)
    return encoding.encode_samples(canvas.rasterise(mosaic.mosaic(rows, mosaic.scale_of(rows, 900), [*samples])))


def spread_out(images: Tensor) -> Tensor:
    """A few of all, evenly spaced, so that every class is among them: (IMAGES, C, H, W)."""
    places = torch.linspace(0, len(images) - 1, IMAGES).long()
    return images[places]


def clouds(samples: Mapping[str, Tensor]) -> Figure:
    """A panel of points for each variant, on axes that hold nearly all points of the first."""
    first = next(iter(samples.values())).double()
    low, high = first.quantile(0.002, dim=0), first.quantile(0.998, dim=0)
    middle, reach = (low + high) / 2, 0.62 * (high - low).max()
    columns = min(PANELS, len(samples))
    rows = -(-len(samples) // columns)
    figure = canvas.blank(columns * (PANEL + 14) + 14, rows * (PANEL + 34) + 8)
    for index, (name, points) in enumerate(samples.items()):
        row, column = divmod(index, columns)
        axes = canvas.place_axes(figure, 14 + column * (PANEL + 14), 26 + row * (PANEL + 34), PANEL, PANEL)
        axes.set_title(name, size=canvas.SMALL_TEXT_SIZE, pad=3)
        show_crowd(axes, points[:POINTS], 2.2)
        limits = [(float(m - reach), float(m + reach)) for m in middle]
        axes.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(True)
    return figure
