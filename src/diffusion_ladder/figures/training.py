"""Training in pictures: the noise schedule that was trained on, and how the loss fell."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.figures import style
from diffusion_ladder.figures.process import schedule_crossing
from diffusion_ladder.figures.style import Exhibit, RungArtifacts

TARGETS = {"epsilon": "the noise", "sample": "the clean data", "v_prediction": "the velocity v"}
SCHEDULES = {"scaled_linear": "scaled linear", "squaredcos_cap_v2": "cosine"}
SMOOTHING_SHARE = 10  # a smoothed value is the mean over a tenth of the rows


def parse_log(text: str) -> dict[str, list[float]]:
    """A training log, tab-separated values under a header, as column to values."""
    header, *rows = [line.split("\t") for line in text.splitlines()]
    return {name: [float(row[index]) for row in rows] for index, name in enumerate(header)}


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving average over a tenth of the values; it narrows towards the start, where the loss falls fast."""
    reach = max(1, len(values) // SMOOTHING_SHARE // 2)
    reaches = [min(reach, index) for index in range(len(values))]
    windows = [values[index - near : index + near + 1] for index, near in enumerate(reaches)]
    return [sum(window) / len(window) for window in windows]


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


def training_figure(log: dict[str, list[float]], zero_loss: float, target: str) -> Figure:
    """Loss, learning rate and gradient norm over the training steps.

    Args:
        log: columns step, loss, learning_rate and gradient_norm.
        zero_loss: loss of a network that always answers zero, drawn as a reference.
        target: what the network predicts, for the title.
    """
    figure = style.blank(1200, 420)
    loss, rate, norm = (
        style.place_axes(figure, *place) for place in ((76, 34, 690, 326), (870, 34, 300, 130), (870, 230, 300, 130))
    )
    draw_loss(loss, log["step"], log["loss"], zero_loss)
    loss.set_title(f"error in predicting {target} (light: as logged, dark: smoothed)")
    rate.plot(log["step"], log["learning_rate"], color=style.ORANGE)
    rate.set(title="learning rate", ylim=(0, None))
    norm.plot(log["step"], log["gradient_norm"], color=style.ORANGE, lw=1.5)
    norm.set(title="gradient norm, before clipping", xlabel="training step")
    label_logarithms(norm, log["gradient_norm"])
    for axes in (loss, rate, norm):
        axes.set_xlim(0, log["step"][-1])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_loss(axes: Axes, steps: Sequence[float], losses: Sequence[float], zero_loss: float) -> None:
    """The loss as logged and smoothed, with its last value, below that of a network that answers zero."""
    smoothed = smooth(losses)
    axes.axhline(zero_loss, color=style.VERMILLION, lw=1.5, ls="--")
    reference = f"a network that answers zero: {zero_loss:.3g}"
    at_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    axes.annotate(reference, (1, zero_loss), xytext=(-4, -5), va="top", **at_right)
    axes.plot(steps, losses, color=style.SKY, lw=1.2, alpha=0.7)
    axes.plot(steps, smoothed, color=style.BLUE)
    axes.plot(steps[-1:], smoothed[-1:], "o", color=style.BLUE, ms=7, clip_on=False)
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(f"{smoothed[-1]:.3g}", (steps[-1], smoothed[-1]), xytext=(9, 0), color=style.BLUE, **beside)
    label_logarithms(axes, [zero_loss, *losses])
    axes.set(xlabel="training step", ylabel="mean squared error")
    axes.set_ylim(top=1.15 * max(zero_loss, *losses))


def schedule_figure(schedule: NoiseSchedule) -> Figure:
    """beta_t, the share of signal left, and the signal-to-noise ratio, over t = 1 ... T."""
    figure = style.blank(1200, 330)
    t = torch.arange(1, schedule.T + 1)
    beta, signal, ratio = (style.place_axes(figure, left, 36, 300, 236) for left in (76, 474, 872))
    beta.plot(t, schedule.beta, color=style.BLUE)
    beta.set(title=r"noise added by step t: $\beta_t$", ylim=(0, None))
    draw_signal(signal, t, schedule)
    draw_ratio(ratio, t, schedule)
    for axes in (beta, signal, ratio):
        axes.set(xlim=(0, schedule.T), xlabel="timestep t")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_signal(axes: Axes, t: Tensor, schedule: NoiseSchedule) -> None:
    """What is left of x_0 in x_t: its weight sqrt(alpha_bar_t) and its share of the variance alpha_bar_t."""
    axes.plot(t, schedule.alpha_bar.sqrt(), color=style.ORANGE, label=r"weight of $x_0$: $\sqrt{\bar\alpha_t}$")
    axes.plot(t, schedule.alpha_bar, color=style.BLUE, label=r"share of variance: $\bar\alpha_t$")
    axes.plot([schedule.T], [schedule.terminal_signal], "o", color=style.ORANGE, ms=8, clip_on=False, zorder=5)
    last = "left at the end:\n" rf"$\sqrt{{\bar\alpha_{{{schedule.T}}}}}$ = {schedule.terminal_signal:.3g}"
    axes.text(0.03, 0.05, last, transform=axes.transAxes, linespacing=1.4)
    axes.set(title="signal left", ylim=(0, 1.02))
    axes.legend(loc="upper right", borderaxespad=0, frameon=True, facecolor="white", edgecolor="none", framealpha=0.85)


def draw_ratio(axes: Axes, t: Tensor, schedule: NoiseSchedule) -> None:
    """The signal-to-noise ratio on a logarithmic axis; a ratio of zero has no place there and is left out."""
    positive = schedule.snr > 0
    axes.plot(t[positive], schedule.snr[positive], color=style.BLUE)
    axes.axhline(1, color=style.VERMILLION, lw=1.5, ls="--")
    axes.set(title=r"signal-to-noise: $\bar\alpha_t\,/\,(1 - \bar\alpha_t)$", yscale="log")
    crossing = schedule_crossing(schedule)
    if crossing is not None:
        axes.plot([crossing], [1], "o", color=style.VERMILLION, ms=8)
        axes.annotate(f"t = {crossing}", (crossing, 1), xytext=(8, 8), textcoords="offset points")


def encode_chart(figure: Figure) -> bytes:
    """PNG of a chart."""
    return style.encode_png(style.with_palette(style.rasterise(figure), style.CHART_PALETTE))


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
    zero_loss = rung["zero_loss"]
    final = smooth(log["loss"])[-1]
    return Exhibit(
        "training.png",
        "Training",
        f"A network of {rung['parameters']:,} parameters learns to predict {TARGETS[target]} from "
        f"{rung['images_seen']:,} noisy examples. Its loss ends at {final:.3g}, {100 * final / zero_loss:.1f} % of "
        "what always answering zero would cost; it can't reach 0, since noise and data can't be told apart entirely.",
        f"Loss over {log['step'][-1]:.0f} training steps on a logarithmic axis, falling from {log['loss'][0]:.3g} to "
        f"{final:.3g}; beside it, learning rate and gradient norm.",
        encode_chart(training_figure(log, zero_loss, TARGETS[target])),
    )


def exhibits(artifacts: RungArtifacts, schedule: NoiseSchedule) -> Iterator[Exhibit]:
    """The schedule of a rung and its training."""
    yield schedule_exhibit(artifacts, schedule)
    yield training_exhibit(artifacts)
