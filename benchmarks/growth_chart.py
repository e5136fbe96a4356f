"""The chart of growth.py: seconds and memory over size, both axes logarithmic."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from diffusion_ladder.figures.canvas import blank, house_style, place_axes, place_text, rasterise
from diffusion_ladder.figures.encoding import encode_png
from diffusion_ladder.figures.palette import BLUE, CROWD, INK, ORANGE, RULE, SKY, TRACKED, TRACKED_EDGE, VERMILLION

COLOURS = (BLUE, SKY, ORANGE, VERMILLION, TRACKED, TRACKED_EDGE, CROWD, INK)
MARKERS = "osD^vP*X"
WIDTH, TOP, PANEL, LEFT, GAP, LEGEND_ROW = 940, 40, (400, 330), 65, 70, 26
PANELS = {"seconds": "Seconds", "mib": "Memory beyond the imports, MiB"}


def draw(axes: Axes, found: dict[str, Any], value: str) -> None:
    """A line for each task, and in grey how a straight line of exponent 1 rises."""
    for (_, task), colour, marker in zip(found.items(), COLOURS, MARKERS, strict=False):
        rows = task["rows"]
        axes.plot([row["factor"] for row in rows], [row[value] for row in rows], marker + "-", color=colour, ms=7)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    factors = [row["factor"] for row in next(iter(found.values()))["rows"]]
    low, high = axes.get_ylim()
    for share in (0.02, 0.2, 2.0, 20.0, 200.0):
        axes.plot(factors, [low * share * factor for factor in factors], "--", color=RULE, lw=1, zorder=0)
    axes.set_ylim(low, high)
    axes.set_xticks(factors, [f"{factor}x" for factor in factors])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(PANELS[value])


def chart(found: dict[str, Any]) -> bytes:
    """A PNG of both panels with a legend that names the fitted exponents."""
    rows = -(-len(found) // 2)
    legend_top = TOP + PANEL[1] + 50
    with house_style():
        figure = blank(WIDTH, legend_top + LEGEND_ROW * rows + 34)
        for index, value in enumerate(PANELS):
            draw(place_axes(figure, LEFT + index * (PANEL[0] + GAP), TOP, *PANEL), found, value)
        for index, ((name, task), colour) in enumerate(zip(found.items(), COLOURS, strict=False)):
            left, top = LEFT + (index % 2) * (PANEL[0] + GAP), legend_top + LEGEND_ROW * (index // 2)
            exponents = f"{task['seconds']['exponent']:.2f} in time, {task['mib']['exponent']:.2f} in memory"
            place_text(figure, left, top, f"{MARKERS_IN_TEXT[index]} {name} ({task['of']}): {exponents}",
                       color=colour, va="top", size=13)  # fmt: skip
        last = legend_top + LEGEND_ROW * rows + 6
        place_text(figure, LEFT, last, "Dashed: twice the size, twice as much (exponent 1).", va="top", size=13)
        return encode_png(rasterise(figure))


MARKERS_IN_TEXT = "●■◆▲▼✚★✖"
