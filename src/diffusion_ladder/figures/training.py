"""Training in pictures: the noise schedule, how the loss fell, and what the network could draw on the way."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.figures import canvas, encoding, mosaic, palette
from diffusion_ladder.figures.exhibit import Exhibit, RungArtifacts
from diffusion_ladder.figures.points import encode_sheet, frame_plane, show_points
from diffusion_ladder.figures.process import schedule_crossing
from diffusion_ladder.figures.strips import encode_strip
from diffusion_ladder.foundation.errors import UserError

TARGETS = {"epsilon": "the noise", "sample": "the clean data", "v_prediction": "the velocity v"}
SCHEDULES = {"scaled_linear": "scaled linear", "squaredcos_cap_v2": "cosine"}
BINS = 8  # of timesteps, in the log
BIN_SHADES = palette.ramp(palette.INK, palette.SKY, BINS // 2) + palette.ramp(
    palette.ORANGE, palette.VERMILLION_INK, BINS // 2
)
BIN_COLOURS = ["#" + bytes(shade).hex() for shade in BIN_SHADES]  # from little noise to much
BINS_PALETTE = palette.palette_of((palette.INK, 8), (palette.GRID, 1), *((colour, 6) for colour in BIN_COLOURS))
LARGEST_PREVIEW = 226  # side of a panel of points in pixels
SMOOTHING_SHARE = 10  # a smoothed value is the mean over a tenth of the rows


def parse_log(text: str) -> dict[str, list[float]]:
    """A training log, tab-separated values under a header, as column to values.

    Raises:
        UserError: it has no rows, as that of a training that stopped before the first one.
    """
    header, *rows = [line.split("\t") for line in text.splitlines()] or [[]]
    if not rows:
        raise UserError("the training's log has no rows: it has stopped before the first; `dvc repro` lets it go on")
    return {name: [float(row[index]) for row in rows] for index, name in enumerate(header)}


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a tenth of the values; it narrows towards the start, where the loss falls fast."""
    reach = max(1, len(values) // SMOOTHING_SHARE // 2)
    reaches = [min(reach, index) for index in range(len(values))]
    windows = [values[index - near : index + near + 1] for index, near in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]


def at_the_end(values: Sequence[float]) -> float:
    """The mean of the last tenth of the values, as the loss at the end is; nan, for no example, is left out."""
    last = [value for value in values[-max(1, len(values) // 10) :] if math.isfinite(value)]
    return sum(last) / len(last) if last else math.nan


def label_logarithms(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic vertical axis with plain numbers, the more per decade the fewer decades there are."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    ratio = max(positive) / min(positive)
    marks = (1, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 200 else (1,)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def training_figure(log: dict[str, list[float]], final_loss: float, zero_loss: float, target: str) -> Figure:
    """Loss, learning rate and gradient norm over the training steps.

    Args:
        log: columns step, loss, learning_rate and gradient_norm.
        final_loss: at the end, marked.
        zero_loss: loss of a network that always answers zero, drawn as a reference.
        target: what the network predicts, for the title.
    """
    figure = canvas.blank(1200, 420)
    loss, rate, norm = (
        canvas.place_axes(figure, *place) for place in ((76, 34, 690, 326), (870, 34, 300, 130), (870, 230, 300, 130))
    )
    draw_loss(loss, log["step"], log["loss"], final_loss, zero_loss)
    loss.set_title(f"error in predicting {target} (light: as logged, dark: smoothed)")
    rate.plot(log["step"], log["learning_rate"], color=palette.ORANGE)
    rate.set(title="learning rate", ylim=(0, None))
    norm.plot(log["step"], log["gradient_norm"], color=palette.ORANGE, lw=1.5)
    norm.set(title="gradient norm, before clipping", xlabel="training step")
    label_logarithms(norm, log["gradient_norm"])
    for axes in (loss, rate, norm):
        axes.set_xlim(0, log["step"][-1])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_loss(axes: Axes, steps: Sequence[float], losses: Sequence[float], final_loss: float, zero_loss: float) -> None:
    """The loss as logged and smoothed, with its value at the end, below that of a network that answers zero."""
    axes.axhline(zero_loss, color=palette.VERMILLION, lw=1.5, ls="--")
    reference = f"a network that answers zero: {zero_loss:.3g}"
    at_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    axes.annotate(reference, (1, zero_loss), xytext=(-4, -5), va="top", **at_right)
    axes.plot(steps, losses, color=palette.SKY, lw=1.2, alpha=0.7)
    axes.plot(steps, smooth(losses), color=palette.BLUE)
    axes.plot(steps[-1:], [final_loss], "o", color=palette.BLUE, ms=7, clip_on=False)
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(f"{final_loss:.3g}", (steps[-1], final_loss), xytext=(9, 0), color=palette.BLUE, **beside)
    label_logarithms(axes, [zero_loss, *losses])
    axes.set(xlabel="training step", ylabel="mean squared error")
    axes.set_ylim(top=1.15 * max(zero_loss, *losses))


def bin_bounds(number: int, T: int) -> tuple[int, int]:
    """The first and the last timestep t, from 1 to T, of a bin of the log, from 1 to BINS."""
    return -(-T * (number - 1) // BINS) + 1, -(-T * number // BINS)


def bins_figure(log: dict[str, list[float]], T: int) -> Figure:
    """The loss of each bin of timesteps over the training steps, smoothed; and what each is at the end.

    Args:
        log: columns step and loss_bin_1 ... loss_bin_8.
        T: steps of the forward process.
    """
    figure = canvas.blank(1200, 420)
    course, end = canvas.place_axes(figure, 76, 34, 580, 326), canvas.place_axes(figure, 890, 34, 280, 326)
    losses = [log[f"loss_bin_{number}"] for number in range(1, BINS + 1)]
    for number, (values, colour) in enumerate(zip(losses, BIN_COLOURS, strict=True), 1):
        first, last = bin_bounds(number, T)
        course.plot(log["step"], smooth(values), color=colour, lw=2, label=f"t = {first} to {last}")
        end.plot([first, last], [at_the_end(values)] * 2, color=colour, lw=5, solid_capstyle="butt")
    course.set(title="error by timestep (smoothed)", xlabel="training step", ylabel="mean squared error")
    course.set_xlim(0, log["step"][-1])
    course.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    course.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    end.set(title="at the end of training", xlabel="timestep t", xlim=(0, T))
    label_logarithms(course, [value for values in losses for value in values])
    label_logarithms(end, [at_the_end(values) for values in losses])
    return figure


def schedule_figure(schedule: NoiseSchedule) -> Figure:
    """beta_t, the share of signal left, and the signal-to-noise ratio, over t = 1 ... T."""
    figure = canvas.blank(1200, 330)
    t = torch.arange(1, schedule.T + 1)
    beta, signal, ratio = (canvas.place_axes(figure, left, 36, 300, 236) for left in (76, 474, 872))
    beta.plot(t, schedule.beta, color=palette.BLUE)
    beta.set(title=r"noise added by step t: $\beta_t$", ylim=(0, None))
    draw_signal(signal, t, schedule)
    draw_ratio(ratio, t, schedule)
    for axes in (beta, signal, ratio):
        axes.set(xlim=(0, schedule.T), xlabel="timestep t")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_signal(axes: Axes, t: Tensor, schedule: NoiseSchedule) -> None:
    """What is left of x_0 in x_t: its weight sqrt(alpha_bar_t) and its share of the variance alpha_bar_t."""
    axes.plot(t, schedule.alpha_bar.sqrt(), color=palette.ORANGE, label=r"weight of $x_0$: $\sqrt{\bar\alpha_t}$")
    axes.plot(t, schedule.alpha_bar, color=palette.BLUE, label=r"share of variance: $\bar\alpha_t$")
    axes.plot([schedule.T], [schedule.terminal_signal], "o", color=palette.ORANGE, ms=8, clip_on=False, zorder=5)
    last = "left at the end:\n" rf"$\sqrt{{\bar\alpha_{{{schedule.T}}}}}$ = {schedule.terminal_signal:.3g}"
    axes.text(0.03, 0.05, last, transform=axes.transAxes, linespacing=1.4)
    axes.set(title="signal left", ylim=(0, 1.02))
    axes.legend(loc="upper right", borderaxespad=0, frameon=True, facecolor="white", edgecolor="none", framealpha=0.85)


def draw_ratio(axes: Axes, t: Tensor, schedule: NoiseSchedule) -> None:
    """The signal-to-noise ratio on a logarithmic axis; a ratio of zero has no place there and is left out."""
    positive = schedule.snr > 0
    axes.plot(t[positive], schedule.snr[positive], color=palette.BLUE)
    axes.axhline(1, color=palette.VERMILLION, lw=1.5, ls="--")
    axes.set(title=r"signal-to-noise: $\bar\alpha_t\,/\,(1 - \bar\alpha_t)$", yscale="log")
    crossing = schedule_crossing(schedule)
    if crossing is not None:
        axes.plot([crossing], [1], "o", color=palette.VERMILLION, ms=8)
        axes.annotate(f"t = {crossing}", (crossing, 1), xytext=(8, 8), textcoords="offset points")


def encode_chart(figure: Figure) -> bytes:
    """PNG of a chart."""
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), palette.CHART_PALETTE))


def schedule_exhibit(artifacts: RungArtifacts, schedule: NoiseSchedule) -> Exhibit:
    """schedule.png."""
    crossing = schedule_crossing(schedule)
    where = "never falls below 1" if crossing is None else f"falls below 1 at t = {crossing} of {schedule.T}"
    key = artifacts.rung["schedule"]["name"]
    name = SCHEDULES.get(key, key)
    return Exhibit(
        "schedule.png",
        "Noise schedule",
        f"The {name} schedule. The signal-to-noise ratio {where}. The last state keeps sqrt(alpha_bar_T) = "
        f"{schedule.terminal_signal:.3g} of the data, while sampling starts from pure noise: the smaller this number, "
        "the smaller that mismatch.",
        f"Three curves over t = 1 to {schedule.T}: beta rises from {schedule.beta[0]:.2g} to {schedule.beta[-1]:.2g}; "
        f"the signal falls to {schedule.terminal_signal:.3g}; the signal-to-noise ratio falls to "
        f"{schedule.snr[-1]:.2g}.",
        encode_chart(schedule_figure(schedule)),
    )


def training_exhibit(artifacts: RungArtifacts) -> Exhibit:
    """training.png."""
    rung, log = artifacts.rung, artifacts.training_log
    target = rung["schedule"]["prediction_type"]
    final, zero_loss = rung["final_loss"], rung["zero_loss"]
    return Exhibit(
        "training.png",
        "Training",
        f"A network of {rung['parameters']:,} parameters learns to predict {TARGETS[target]} from "
        f"{rung['images_seen']:,} noisy examples. Its loss ends at {final:.3g}, {100 * final / zero_loss:.1f} % of "
        "what always answering zero would cost; it can't reach 0, since noise and data can't be told apart entirely.",
        f"Loss over {log['step'][-1]:.0f} training steps on a logarithmic axis, falling from {log['loss'][0]:.3g} to "
        f"{final:.3g}; beside it, learning rate and gradient norm.",
        encode_chart(training_figure(log, final, zero_loss, TARGETS[target])),
    )


def bins_exhibit(artifacts: RungArtifacts) -> Exhibit:
    """loss_by_timestep.png."""
    log, T = artifacts.training_log, artifacts.rung["schedule"]["T"]
    every = {number: at_the_end(log[f"loss_bin_{number}"]) for number in range(1, BINS + 1)}
    ends = {number: loss for number, loss in every.items() if math.isfinite(loss)}
    hardest, easiest = max(ends, key=lambda number: ends[number]), min(ends, key=lambda number: ends[number])
    hard, easy = (f"t = {first} to {last}" for first, last in (bin_bounds(hardest, T), bin_bounds(easiest, T)))
    return Exhibit(
        "loss_by_timestep.png",
        "Which timesteps are hard",
        f"The same loss, for each eighth of the timesteps alone. At the end it is largest for {hard} "
        f"({ends[hardest]:.3g}) and smallest for {easy} ({ends[easiest]:.3g}).",
        f"Eight curves of the loss over {log['step'][-1]:.0f} training steps on a logarithmic axis, one for each "
        f"eighth of the timesteps; beside them, the values at the end over t.",
        encoding.encode_png(palette.with_palette(canvas.rasterise(bins_figure(log, T)), BINS_PALETTE)),
    )


def previewed_points(previews: Tensor, steps: Sequence[int], labels: Tensor | None = None) -> Figure:
    """Points (P, N, 2), standardised, in panels side by side, with the steps after which they were drawn.

    Args:
        labels: (N,) classes, shown as colours.
    """
    side = min(LARGEST_PREVIEW, mosaic.SHEET_WIDTH // len(previews) - 8)
    figure = canvas.blank(len(previews) * (side + 8) + 8, side + 36)
    for index, (points, step) in enumerate(zip(previews, steps, strict=True)):
        axes = canvas.place_axes(figure, 8 + index * (side + 8), 28, side, side)
        axes.set_title(f"step {step:,}", pad=5)
        frame_plane(axes)
        show_points(axes, points, 2, labels)
    return figure


def column_titles(classes: Sequence[str], count: int, tile_width: int) -> list[str]:
    """The class above each of `count` columns, sorted by class; above its first alone where names have no room."""
    narrow = any(canvas.text_width(name) > tile_width for name in classes)
    return ["" if narrow and index else name for name in classes for index in range(count // max(1, len(classes)))]


def previews_exhibit(artifacts: RungArtifacts) -> Exhibit:
    """previews.png."""
    previews, steps = artifacts.previews["samples"], artifacts.previews["steps"].tolist()
    count, classes = previews.shape[1], artifacts.classes
    if artifacts.is_points:
        labels = artifacts.labels_of(count)
        content = encode_sheet(previewed_points(normalise(previews, artifacts.normalisation), steps, labels), labels)
    else:
        scale = mosaic.scale_of(previews)
        columns = column_titles(classes, count, scale * previews.shape[-1])
        figure = mosaic.mosaic(previews, scale, [f"step {step:,}" for step in steps], columns)
        content = encode_strip(figure, previews[-1])
    outside = f" Points farther out than the frame are left out.{artifacts.class_key}" if artifacts.is_points else ""
    layout = "panels from left to right" if artifacts.is_points else "rows from top to bottom"
    return Exhibit(
        "previews.png",
        "Learning",
        f"{count} samples drawn after {', '.join(f'{step:,}' for step in steps[:-1])} and {steps[-1]:,} steps of "
        "training, always from the same noise, by DDIM in a few steps and with the averaged weights: what differs is "
        f"what has been learnt in between.{outside}",
        f"Contact sheet of {len(steps)} {layout}, each of {count} samples, from noise-like ones to those of the "
        "finished network.",
        content,
    )


def exhibits(artifacts: RungArtifacts, schedule: NoiseSchedule) -> Iterator[Exhibit]:
    """The schedule of a rung, its training, and samples drawn on the way."""
    yield schedule_exhibit(artifacts, schedule)
    yield training_exhibit(artifacts)
    yield bins_exhibit(artifacts)
    yield previews_exhibit(artifacts)
