"""What an evaluation found out in pictures: the curves and matrices that no single number tells."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from diffusion_ladder.evaluation.findings import Findings, Rows
from diffusion_ladder.figures import canvas, encoding, palette
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.params.samplers import MODULES, ROWS

METRICS = {  # of what the table cost may hold
    "energy_distance": "energy distance from held-out data",
    "kernel_distance": "kernel distance from held-out data",
    "outside_tube_share": "share of stray points",
}
SHADES = {palette.INK: 8, palette.RULE: 2, palette.GRID: 1, palette.BLUE: 8, palette.ORANGE: 8}
CHARTS = palette.palette_of(*(SHADES | {row.colour: 8 for row in ROWS} | {palette.TRACKED: 4}).items())
SIZE_TITLES = {  # of what the table sample_size may hold, in the order of the panels
    "wasserstein_2": "2-Wasserstein distance",
    "sliced_wasserstein_2": "sliced Wasserstein distance",
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance",
    "energy_distance": "energy distance",
    "two_sample_accuracy": "told apart by a classifier",
}
PANEL_WIDTH, PANEL_HEIGHT = 490, 215  # pixels
SMALLEST_WRITTEN = 15  # side of a cell in which a number can be read, in pixels


# Quality against cost


def cost_metrics(rows: Rows) -> list[str]:
    """The metrics that a table of costs holds."""
    return [name for name in METRICS if name in rows[0]]


def cost_figure(rows: Rows) -> Figure:
    """A panel for each metric, with a curve for each sampler over the evaluations."""
    figure, metrics = canvas.blank(1200, 490), cost_metrics(rows)
    width = (1070 - 90 * (len(metrics) - 1)) / len(metrics)
    for index, metric in enumerate(metrics):
        axes = canvas.place_axes(figure, 96 + index * (width + 90), 70, width, 350)
        draw_costs(axes, rows, metric)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=4)
    return figure


def draw_costs(axes: Axes, rows: Rows, metric: str) -> None:
    """All samplers' curves, with bars of one deviation, the knees and the cheapest good setting."""
    for sampler in {row["sampler"]: None for row in rows}:
        draw_cost(axes, [row for row in rows if row["sampler"] == sampler], metric)
    evaluations = sorted({int(row["nfe"]) for row in rows})
    axes.set(xscale="log", xlabel="evaluations of the network for one sample")
    axes.set_title(METRICS[metric])
    axes.xaxis.set_major_locator(FixedLocator(spaced(evaluations)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.axhline(0, color=palette.RULE, lw=1.5)


def spaced(evaluations: list[int]) -> list[int]:
    """Ticks (rising) at which labels have room on a logarithmic axis: the larger one of two that are close."""
    kept = [evaluations[-1]]
    for each in reversed(evaluations[:-1]):
        kept += [each] if each * 1.2 < kept[-1] else []
    return kept[::-1]


def draw_cost(axes: Axes, curve: Rows, metric: str) -> None:
    """One sampler's curve; its knee has a ring, the cheapest good setting of all a star."""
    sampler = MODULES[str(curve[0]["sampler"])]
    look: dict[str, Any] = {"color": sampler.colour, "marker": sampler.marker}
    look |= {"ms": 7, "lw": 2, "capsize": 4, "elinewidth": 1.5}
    nfe, values = [row["nfe"] for row in curve], [row[metric] for row in curve]
    axes.errorbar(nfe, values, yerr=[row[f"{metric}_std"] for row in curve], label=sampler.title, **look)
    for row in curve:
        if row["is_knee"] and metric == cost_metrics(curve)[0]:
            axes.plot(row["nfe"], row[metric], "o", mfc="none", mec=sampler.colour, mew=2, ms=17)
        if row["is_cheapest_good"]:
            axes.plot(row["nfe"], row[metric], "*", color=palette.TRACKED, mec=palette.INK, ms=19, zorder=5)


def cost_exhibit(findings: Findings) -> Exhibit:
    """cost.png."""
    rows = findings.tables["cost"]
    metric = " and the ".join(METRICS[name] for name in cost_metrics(rows))
    best, own = setting_in_words(chosen(rows)), bool(findings.numbers["default_is_cheapest_good"])
    verdict = "which is how this rung's samples are drawn" if own else "but this rung's samples are drawn otherwise"
    return Exhibit(
        "cost.png",
        "Quality against cost",
        f"The {metric} over the evaluations of the network that a sample takes, by sampler, the lower the better; bars "
        "are one standard deviation over the sampling seeds, and all samplers start from the same noise. A "
        "ring marks a curve's knee, after which more evaluations pay little (the point farthest below the chord of the "
        f"curve, over the logarithm of the evaluations). The star is the cheapest setting within one deviation of the "
        f"best{' by both measures' if len(cost_metrics(rows)) > 1 else ''}: {best}, {verdict}.",
        f"Line chart of the {metric} over the evaluations for {len({row['sampler'] for row in rows})} samplers. The "
        f"cheapest good setting is {best}.",
        chart(cost_figure(rows)),
    )


def chosen(rows: Rows) -> dict[str, float | str]:
    """The row of the cheapest good setting."""
    return next(row for row in rows if row["is_cheapest_good"])


def setting_in_words(row: dict[str, float | str]) -> str:
    """A sampler and its cost."""
    return f"{MODULES[str(row['sampler'])].title} with {row['nfe']:g} evaluations"


# Guidance


def guidance_figure(rows: Rows) -> Figure:
    """Two panels over the scale: the share of requested classes, and the distance."""
    figure, distance = canvas.blank(1200, 400), cost_metrics(rows)[0]
    titles = {"label_accuracy": "requested class found", distance: f"{short_title(distance)}, the lower the better"}
    for index, (metric, title) in enumerate(titles.items()):
        axes = canvas.place_axes(figure, 96 + 560 * index, 40, 500, 290)
        values, deviations = ([row[key] for row in rows] for key in (metric, f"{metric}_std"))
        look: dict[str, Any] = {"marker": "o", "ms": 7, "lw": 2, "capsize": 4, "elinewidth": 1.5}
        axes.errorbar([row["scale"] for row in rows], values, yerr=deviations, color=palette.BLUE, **look)
        axes.set(title=title, xlabel="guidance scale")
        axes.xaxis.set_major_locator(FixedLocator([float(row["scale"]) for row in rows]))
    return figure


def short_title(metric: str) -> str:
    """The name of a distance, without from what it is."""
    return METRICS[metric].partition(" from ")[0]


def guidance_exhibit(findings: Findings) -> Exhibit:
    """guidance.png."""
    rows = findings.tables["guidance"]
    distance = cost_metrics(rows)[0]
    scales = f"{rows[0]['scale']:g} to {rows[-1]['scale']:g}"
    return Exhibit(
        "guidance.png",
        "What guidance does",
        f"Left, the share of samples in which the judge finds the requested class, at guidance scales from {scales}: 0 "
        "leaves the class out, 1 is the conditional model alone, and more pushes samples towards what sets their class "
        "apart. Right, how far those samples are from held-out data: being recognised more easily is not being "
        "more like the data. Bars are one standard deviation over the sampling seeds.",
        f"Two line charts over the guidance scale from {scales}: the share of requested classes found goes from "
        f"{float(rows[0]['label_accuracy']):.2f} to {float(rows[-1]['label_accuracy']):.2f}, the "
        f"{short_title(distance)} from {float(rows[0][distance]):.3g} to {float(rows[-1][distance]):.3g}.",
        chart(guidance_figure(rows)),
    )


# The sample size


def column(rows: Rows, name: str) -> list[float]:
    """The numbers of a table's column."""
    return [float(row[name]) for row in rows]


def draw_band(axes: Axes, rows: Rows, name: str, colour: str, line: str, label: str) -> None:
    """A number over the sample size, within one standard deviation over the seeds to either side."""
    sizes, values, deviations = (column(rows, key) for key in ("size", name, f"{name}_std"))
    low = [value - deviation for value, deviation in zip(values, deviations, strict=True)]
    high = [value + deviation for value, deviation in zip(values, deviations, strict=True)]
    axes.fill_between(sizes, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(sizes, values, line, color=colour, marker="o", ms=6, label=label)


def sample_size_figure(rows: Rows, names: Sequence[str]) -> Figure:
    """A panel for each metric, two in a row: the samples and their floor over the sample size."""
    figure = canvas.blank(1200, 6 + (len(names) + 1) // 2 * (PANEL_HEIGHT + 92))
    for i, name in enumerate(names):
        left, top = 90 + i % 2 * (PANEL_WIDTH + 100), 36 + i // 2 * (PANEL_HEIGHT + 92)
        axes = canvas.place_axes(figure, left, top, PANEL_WIDTH, PANEL_HEIGHT)
        draw_band(axes, rows, f"{name}_floor", palette.ORANGE, "--", "training data (floor)")
        draw_band(axes, rows, name, palette.BLUE, "-", "samples")
        axes.set(title=SIZE_TITLES[name], xlabel="members of each set", xscale="log")
        axes.xaxis.set_major_locator(FixedLocator(column(rows, "size")))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        if i == 0:
            axes.legend(loc="upper right")
    return figure


def sample_size_exhibit(findings: Findings) -> Exhibit:
    """sample_size.png."""
    rows = findings.tables["sample_size"]
    names = [name for name in SIZE_TITLES if name in rows[0]]
    first, smallest, largest = names[0], int(rows[0]["size"]), int(rows[-1]["size"])
    low, high = (float(rows[i][f"{first}_floor"]) for i in (-1, 0))
    titles = ", ".join(SIZE_TITLES[name] for name in names)
    return Exhibit(
        "sample_size.png",
        "What the sample size does to the numbers",
        "The same numbers for fewer members of each set, from held-out data; bands are one standard deviation over the "
        f"sampling seeds. The {SIZE_TITLES[first]} of real data from real data goes from {high:.3g} with {smallest:,} "
        f"members to {low:.3g} with {largest:,}, though nothing else has changed: so it must be compared at equal "
        "sizes only, and beside its floor. An unbiased number keeps its level, and only gets surer.",
        f"Curves over the sample size, from {smallest:,} to {largest:,}, in {len(names)} panels: {titles}; each of the "
        "samples and, dashed, of training data.",
        chart(sample_size_figure(rows, names)),
    )


# The spectrum

SPECTRA = {  # columns of the table spectrum: label, colour and line
    "held_out": ("held-out data", palette.ORANGE, "-"),
    "train": ("training data (floor)", palette.INK, ":"),
    "samples": ("samples", palette.BLUE, "-"),
}


def spectrum_figure(rows: Rows) -> Figure:
    """The radial spectra of samples and data, both axes logarithmic."""
    figure = canvas.blank(1200, 430)
    axes = canvas.place_axes(figure, 110, 40, 1060, 310)
    for name, (label, colour, line) in SPECTRA.items():
        axes.plot(column(rows, "frequency"), column(rows, name), line, color=colour, lw=2, label=label)
    axes.axvline(0.5, color=palette.RULE, lw=1.5, zorder=0)  # the shortest period along a row or column: two pixels
    axes.set(title="power at each frequency, squared grey levels", xlabel="cycles a pixel", xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1/{1 / value:.0f}"))
    axes.legend(loc="lower left")
    return figure


def spectrum_exhibit(findings: Findings) -> Exhibit:
    """spectrum.png."""
    rows, numbers = findings.tables["spectrum"], findings.numbers
    fine, pairs = (f"{numbers[key]:.3g}" for key in ("high_frequency_ratio", "two_pixel_ratio"))
    return Exhibit(
        "spectrum.png",
        "The grain of samples and of data",
        "The mean power of the images at each spatial frequency, from the coarse on the left to the finest on the "
        "right; beyond 1/2 there are slanting waves alone, and at the very end the checkerboard. The share of periods "
        f"below 2.7 pixels is {fine} times that of held-out data, the share of periods of exactly two {pairs} times.",
        "Line chart of the power over the spatial frequency, both logarithmic, of samples, held-out data and training "
        f"data. The samples' share of high frequencies is {fine} times that of held-out data.",
        chart(spectrum_figure(rows)),
    )


# Classes


def shares_figure(rows: Rows) -> Figure:
    """A pair of bars for each class: its share among the samples, and among held-out data."""
    names = [str(row["class"]) for row in rows]
    widest, step = max(map(canvas.text_width, names)), 1090 // len(names)
    figure = canvas.blank(1200, 340 + widest * (widest > step))
    axes = canvas.place_axes(figure, 80, 40, 1090, 240)
    sides = ((-0.2, "share", "samples", palette.BLUE), (0.2, "held_out", "held-out data", palette.ORANGE))
    for offset, key, label, colour in sides:
        places, shares = [index + offset for index in range(len(rows))], [100 * float(row[key]) for row in rows]
        axes.bar(places, shares, 0.36, label=label, color=colour)
        if key == "share":
            errors = [100 * float(row["share_std"]) for row in rows]
            axes.errorbar(places, shares, yerr=errors, fmt="none", ecolor=palette.INK, capsize=4, elinewidth=1.5)
    axes.set(title="share of each class that the judge finds, per cent")
    name_places(axes.xaxis, names, step, upright=widest > step)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def name_places(axis: Axis, names: Sequence[str], step: int, upright: bool) -> None:
    """Names at the places 0, 1, ... of an axis, `step` pixels apart: as many as have room."""
    every = -(-canvas.TEXT_SIZE // max(1, step))
    axis.set_ticks(range(0, len(names), every), [canvas.plain(name) for name in names[::every]])
    axis.set_tick_params(labelrotation=90 * upright)


def shares_exhibit(findings: Findings) -> Exhibit:
    """class_shares.png."""
    rows = findings.tables["class_shares"]
    gap = max(rows, key=lambda row: abs(float(row["share"]) - float(row["held_out"])))
    farthest = (
        f"{gap['class']}, {100 * float(gap['share']):.1f} % of the samples and "
        f"{100 * float(gap['held_out']):.1f} % of the data"
    )
    return Exhibit(
        "class_shares.png",
        "Balance of the classes",
        "How often the judge finds each class in samples and in held-out data. A class that is missing has been "
        f"forgotten, one that is too frequent attracts what should be others. Farthest off is {farthest}. Bars are one "
        "standard deviation over the sampling seeds.",
        f"Pairs of bars for {len(rows)} classes: samples beside held-out data. Farthest apart is {farthest}.",
        chart(shares_figure(rows)),
    )


def confusion_figure(rows: Rows) -> Figure:
    """Two matrices, of samples and of held-out data: a row for each class that was meant, a column for each found."""
    names = list(dict.fromkeys(str(row["requested"]) for row in rows))
    side = max(3, min(100, 460 // len(names)))
    left = max(map(canvas.text_width, names)) + 48
    size = side * len(names)
    upright = max(map(canvas.text_width, names)) > side  # names of columns, where they have no room side by side
    figure = canvas.blank(2 * (left + size) + 60, size + 96 + (left - 48) * upright)
    panels = (("share", "samples, per cent", "requested"), ("held_out", "held-out data, per cent", "true class"))
    for index, (key, title, meaning) in enumerate(panels):
        axes = canvas.place_axes(figure, left + index * (left + size + 40), 40, size, size)
        shares = numpy.array([float(row[key]) for row in rows]).reshape(len(names), -1)
        draw_matrix(axes, shares, side)
        name_places(axes.xaxis, names, side, upright)
        name_places(axes.yaxis, names, side, upright=False)
        axes.set(title=title, xlabel="the judge finds", ylabel=meaning)
    return figure


def draw_matrix(axes: Axes, shares: numpy.ndarray, side: int) -> None:
    """Shares (K, K) as shaded cells of `side` pixels, with their per cents written in where they can be read."""
    shades = ListedColormap([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.ramp("white", palette.BLUE, 8)])
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
    for (row, column), share in numpy.ndenumerate(shares) if side >= SMALLEST_WRITTEN else ():
        colour, size = "white" if share > 0.5 else palette.INK, min(canvas.TEXT_SIZE, side // 3)
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, size=size)
    axes.grid(False)
    axes.tick_params(length=0)


def confusion_exhibit(findings: Findings) -> Exhibit:
    """confusion.png."""
    rows = findings.tables["confusion"]
    worst = max((row for row in rows if row["requested"] != row["judged"]), key=lambda row: float(row["share"]))
    told = (
        f"{worst['requested']} was asked for and {worst['judged']} found in "
        f"{100 * float(worst['share']):.1f} % of the samples"
    )
    return Exhibit(
        "confusion.png",
        "Requested and found",
        "Left, which class the judge finds (columns) in samples of each requested class (rows); right, what it finds "
        "in held-out data of each class, which shows its own errors. Both have their weight on the diagonal where all "
        f"is well. The most frequent confusion: {told}.",
        f"Two matrices of {len({row['judged'] for row in rows})} classes in per cent, of samples and of held-out data; "
        f"{told}.",
        chart(confusion_figure(rows)),
    )


# All of them


def chart(figure: Figure) -> bytes:
    """A chart as PNG."""
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), CHARTS))


EXHIBITS: dict[str, Callable[[Findings], Exhibit]] = {  # by the table that each is drawn from, in the order of reading
    "cost": cost_exhibit,
    "spectrum": spectrum_exhibit,
    "sample_size": sample_size_exhibit,
    "guidance": guidance_exhibit,
    "class_shares": shares_exhibit,
    "confusion": confusion_exhibit,
}


def exhibits(findings: Findings) -> Iterator[Exhibit]:
    """A picture of each table that there is one for."""
    for table, draw in EXHIBITS.items():
        if table in findings.tables:
            yield draw(findings)
