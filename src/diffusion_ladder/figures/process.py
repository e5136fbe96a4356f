"""The diffusion process in pictures: data turning into noise, and noise turning into samples.

Timesteps are counted as in the papers: x_0 is data, x_t has gone through t steps of noise, x_T is the end. (Schedulers index
the same states from 0: their timestep is t - 1.)
"""

from collections.abc import Iterator, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.normalise import normalise, unnormalise
from diffusion_ladder.diffusion.schedules import NoiseSchedule, add_noise
from diffusion_ladder.figures import style
from diffusion_ladder.figures.style import Exhibit, RungArtifacts
from diffusion_ladder.params import Figures

LIMIT = 3.4  # points are shown up to so many standard deviations from the mean
SHEET_ROWS = 5  # of a contact sheet
PANEL = 104  # side of a contact sheet's panel, in pixels
LARGE_PANEL = 262
ANIMATED_PANEL = 280
TRACKED_INDEX = 0  # the first point: nobody chose it
FIRST_FRAME, LAST_FRAME = 700, 2000  # milliseconds that an animation rests on its ends
EXAMPLES = 3  # images whose way is shown
STRIP_COLOURS = 64  # of the clean images in a strip; noise has fewer
ANIMATION_COLOURS = 24
ANIMATION_WIDTH = 700  # of the tiles of an animation of images, at most
ANIMATED_PIXELS = 2**14  # of all samples of an animation, at most: noise can't be compressed


def forward_timesteps(T: int, every: int) -> list[int]:
    """The timesteps every, 2 every, ... of the forward process, and always its end T."""
    return sorted({*range(every, T + 1, every), T})


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices of a sequence of length `count`, evenly spread, with both ends."""
    return sorted(set(torch.linspace(0, count - 1, min(count, limit)).round().long().tolist()))


def forward_states(x_0: Tensor, epsilon: Tensor, alpha_bar: Tensor, timesteps: Sequence[int]) -> Tensor:
    """The forward process with one noise vector for all t, so that every path is continuous.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon (Ho et al. 2020, equation 4).

    Args:
        x_0: (N, ...) normalised data.
        epsilon: (N, ...) standard normal noise.
        alpha_bar: (T,) float64.
        timesteps: F numbers in [1, T].

    Returns:
        (F, N, ...) like x_0.
    """
    return torch.stack([add_noise(x_0, epsilon, alpha_bar[t - 1].item()) for t in timesteps])


def durations(frames: int, frames_per_second: int) -> list[int]:
    """Milliseconds of each frame of an animation, which rests on its first and on its last."""
    return [FIRST_FRAME, *[round(1000 / frames_per_second)] * (frames - 2), LAST_FRAME][:frames]


# Points


def show_points(axes: Axes, points: Tensor, size: float) -> tuple[Line2D, Line2D]:
    """Draw (N, 2) standardised points: the crowd small and muted, the tracked one large, outlined and on top."""
    crowd = axes.plot(*points.T, linestyle="none", marker="o", ms=size, mew=0, color=style.CROWD)[0]
    x, y = points[TRACKED_INDEX].tolist()
    look = {"color": style.TRACKED, "mec": style.TRACKED_EDGE, "mew": 1.2, "zorder": 5, "clip_on": False}
    tracked = axes.plot([x], [y], linestyle="none", marker="o", ms=3 + 2.5 * size, **look)[0]
    return crowd, tracked


def frame_plane(axes: Axes, ticks: bool = False) -> None:
    """Equal limits in standard deviations; ticks only where they are asked for."""
    marks = range(-3, 4) if ticks else []
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=marks, yticks=marks)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def show_path(axes: Axes, path: Tensor, crowd: Tensor) -> None:
    """Draw (F, 2) places of the tracked point over (N, 2) muted points: from a hollow mark to a filled one."""
    axes.plot(*crowd.T, linestyle="none", marker="o", ms=2, mew=0, color=style.RULE)
    axes.plot(*path.T, color=style.TRAIL, lw=2.5, solid_joinstyle="round")
    look = {"marker": "o", "ms": 9, "mec": style.TRACKED_EDGE, "mew": 1.4, "zorder": 5}
    axes.plot(*path[:1].T, color="white", **look)
    axes.plot(*path[-1:].T, color=style.TRACKED, **look)


def contact_sheet(states: Tensor, timesteps: Sequence[int], clean: Tensor, clean_title: str, clean_first: bool) -> Figure:
    """All states of points as small panels; beside them two large ones, of the clean points and of the tracked point's path.

    Args:
        states: (F, N, 2) standardised noisy points, in the order of the process.
        timesteps: the F timesteps t of the states.
        clean: (N, 2) the points x_0 where the forward process starts or the reverse process ends.
        clean_title: title of their panel.
        clean_first: whether the process starts with them, which puts the large panels to the left.
    """
    columns = -(-len(timesteps) // SHEET_ROWS)
    step_x, step_y = PANEL + 6, PANEL + 22
    figure = style.blank(columns * step_x + LARGE_PANEL + 84, SHEET_ROWS * step_y + 10)
    sheet_left, large_left = (LARGE_PANEL + 80, 56) if clean_first else (6, columns * step_x + 70)
    for index, (points, t) in enumerate(zip(states, timesteps, strict=True)):
        row, column = divmod(index, columns)
        axes = style.place_axes(figure, sheet_left + column * step_x, 20 + row * step_y, PANEL, PANEL)
        axes.set_title(f"t = {t}", size=style.SMALL_TEXT_SIZE, pad=2)
        frame_plane(axes)
        show_points(axes, points, 1.8)
    path = torch.cat([clean[None], states] if clean_first else [states, clean[None]])[:, TRACKED_INDEX]
    add_large_panels(figure, large_left, clean, clean_title, path)
    return figure


def add_large_panels(figure: Figure, left: float, clean: Tensor, clean_title: str, path: Tensor) -> None:
    """The two large panels of a contact sheet, with the axes that all of its panels share."""
    upper = style.place_axes(figure, left, 20, LARGE_PANEL, LARGE_PANEL)
    lower = style.place_axes(figure, left, 46 + LARGE_PANEL, LARGE_PANEL, LARGE_PANEL)
    show_points(upper, clean, 2.4)
    show_path(lower, path, clean)
    for axes, title in ((upper, clean_title), (lower, "path of the green point")):
        frame_plane(axes, ticks=True)
        axes.set_title(title, pad=4)
        axes.set_ylabel("2nd coordinate (std. deviations)", size=style.SMALL_TEXT_SIZE, labelpad=2)
    upper.set_xticklabels([])
    lower.set_xlabel("1st coordinate (standard deviations)", size=style.SMALL_TEXT_SIZE, labelpad=2)


def prediction_sheet(states: Tensor, predicted: Tensor, timesteps: Sequence[int]) -> Figure:
    """Noisy points above the clean points that the network predicts from them: (F, N, 2) each, standardised."""
    step = PANEL + 6
    figure = style.blank(96 + len(timesteps) * step, 2 * step + 24)
    for row, (title, sequence) in enumerate((("noisy\n$x_t$", states), ("predicted\n$x_0$", predicted))):
        style.place_text(figure, 84, 20 + row * step + PANEL / 2, title, ha="right", va="center")
        for column, (points, t) in enumerate(zip(sequence, timesteps, strict=True)):
            axes = style.place_axes(figure, 94 + column * step, 20 + row * step, PANEL, PANEL)
            frame_plane(axes)
            show_points(axes, points, 1.8)
            if row == 0:
                axes.set_title(f"t = {t}", size=style.SMALL_TEXT_SIZE, pad=2)
    return figure


def points_frames(panels: dict[str, Tensor], timesteps: Sequence[int]) -> Iterator[Image.Image]:
    """Frames of moving points; in the first panel the tracked point leaves a trail.

    Args:
        panels: title to (F, N, 2) standardised points; drawn side by side.
        timesteps: the F timesteps, told in the first panel's title.
    """
    side = ANIMATED_PANEL
    figure = style.blank(len(panels) * (side + 8) + 8, side + 36)
    artists = []
    for index, points in enumerate(panels.values()):
        axes = style.place_axes(figure, 8 + index * (side + 8), 28, side, side)
        frame_plane(axes)
        trail = axes.plot([], [], color=style.TRAIL, lw=2, zorder=4)[0]
        artists.append((axes, trail, *show_points(axes, points[0], 2)))
    for frame, t in enumerate(timesteps):
        for index, (title, points) in enumerate(panels.items()):
            axes, trail, crowd, tracked = artists[index]
            crowd.set_data(*points[frame].T)
            tracked.set_data(*points[frame, TRACKED_INDEX : TRACKED_INDEX + 1].T)
            if index == 0:
                trail.set_data(*points[: frame + 1, TRACKED_INDEX].T)
            axes.set_title(title if index else f"{title}, t = {t}")
        yield style.with_palette(style.rasterise(figure), style.POINTS_PALETTE)


def points_exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The processes of a rung of points, both with as many points as its trajectories have."""
    count = artifacts.trajectories["sampling.final"].shape[0]
    x_0 = normalise(artifacts.data["train"][:count], artifacts.normalisation)  # (N, 2)
    epsilon = torch.randn(x_0.shape, generator=generator)
    timesteps = forward_timesteps(schedule.T, settings.forward_every)
    states = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)  # (F, N, 2)
    yield forward_sheet_exhibit(states, timesteps, x_0, schedule)
    yield forward_animation_exhibit(torch.cat([x_0[None], states]), [0, *timesteps], settings.frames_per_second)
    yield from reverse_points_exhibits(artifacts, settings)


def forward_sheet_exhibit(states: Tensor, timesteps: list[int], x_0: Tensor, schedule: NoiseSchedule) -> Exhibit:
    """forward.png of points."""
    sheet = contact_sheet(states, timesteps, x_0, "data $x_0$", clean_first=True)
    return Exhibit(
        "forward.png",
        "Forward process",
        f"Data dissolve into noise; read line by line. {crossing_sentence(schedule)} The green point is one training point, "
        "followed all the way: it keeps one noise vector, so its path is a smooth arc. "
        f"At t = {schedule.T}, {100 * schedule.terminal_signal:.1f} % of each coordinate is left.",
        f"{len(timesteps)} small scatter plots from t = {timesteps[0]} to t = {timesteps[-1]}, in which {len(x_0)} points lose "
        "their shape and become a round cloud; one green point is marked in all of them. Two larger plots show the data and "
        "the green point's path.",
        style.encode_png(style.with_palette(style.rasterise(sheet), style.POINTS_PALETTE)),
    )


def crossing_sentence(schedule: NoiseSchedule) -> str:
    """Where noise overtakes signal, in a sentence."""
    t = schedule_crossing(schedule)
    return "The signal outweighs the noise up to the end." if t is None else f"From t = {t} on, noise outweighs signal."


def schedule_crossing(schedule: NoiseSchedule) -> int | None:
    """The first t (from 1) with a signal-to-noise ratio below 1; None where there is none."""
    below = (schedule.snr < 1).nonzero()
    return int(below[0]) + 1 if len(below) else None


def forward_animation_exhibit(states: Tensor, timesteps: list[int], frames_per_second: int) -> Exhibit:
    """forward.webp of points."""
    frames = list(points_frames({"noisy points": states}, timesteps))
    return Exhibit(
        "forward.webp",
        "Forward process, moving",
        "The same in motion: the green point's trail runs from its place in the data to pure noise.",
        "Animation of a scatter plot: the data spread out into a round cloud while one green point draws a curved trail.",
        style.encode_animation(frames, durations(len(frames), frames_per_second)),
    )


def reverse_points_exhibits(artifacts: RungArtifacts, settings: Figures) -> Iterator[Exhibit]:
    """reverse.png, reverse.webp and predicted.png of points."""
    chosen = spread(len(artifacts.trajectories["sampling.timesteps"]), settings.panels)
    timesteps = (artifacts.trajectories["sampling.timesteps"][chosen] + 1).tolist()
    states, predicted, final = (
        normalise(artifacts.trajectories[f"sampling.{name}"], artifacts.normalisation)
        for name in ("states", "predicted", "final")
    )
    states, predicted = states[chosen], predicted[chosen]  # (F, N, 2)
    sampler = style.sampler_title(artifacts.sampler)
    sheet = contact_sheet(states, timesteps, final, "samples $x_0$", clean_first=False)
    yield Exhibit(
        "reverse.png",
        "Reverse process",
        f"The trained network walks noise back to data ({sampler}). Compare with the forward process at the same t: the "
        "clouds should look alike. The green point is the first sample, followed from pure noise to its place in the shape.",
        f"{len(timesteps)} small scatter plots from t = {timesteps[0]} to t = {timesteps[-1]}, in which a round cloud of "
        f"{len(final)} points gains the shape of the data; one green point is marked in all of them. Two larger plots show "
        "the finished samples and the green point's path.",
        style.encode_png(style.with_palette(style.rasterise(sheet), style.POINTS_PALETTE)),
    )
    panels = {"noisy points": states, "predicted clean points": predicted}
    frames = list(points_frames({name: torch.cat([all_, final[None]]) for name, all_ in panels.items()}, [*timesteps, 0]))
    yield Exhibit(
        "reverse.webp",
        "Reverse process, moving",
        "Left, the noisy points; right, where the network expects each of them to end. Early predictions huddle near the mean "
        "of the data, since noise says little about where a point belongs; they spread to the shape as t falls.",
        "Animation of two scatter plots side by side: a round cloud contracts to the shape of the data, with the trail of one "
        "green point; beside it, predictions grow from a small cluster to the same shape.",
        style.encode_animation(frames, durations(len(frames), settings.frames_per_second)),
    )
    few = spread(len(timesteps), 10)
    sheet = prediction_sheet(states[few], predicted[few], [timesteps[i] for i in few])
    yield Exhibit(
        "predicted.png",
        "What the network expects",
        "Above, noisy points; below, the clean points that the network predicts from them. One step from pure noise can only "
        "reach the middle of the data, which is why sampling takes many.",
        f"Two rows of {len(few)} scatter plots: noisy points at falling t, and below each the predicted clean points.",
        style.encode_png(style.with_palette(style.rasterise(sheet), style.POINTS_PALETTE)),
    )


# Images


def first_of_each_class(labels: Tensor, count: int) -> list[int]:
    """Indices of `count` examples: the first of each class in turn, then the second of each, and so on."""
    by_class = [(labels == label).nonzero().flatten().tolist() for label in sorted(set(labels.tolist()))]
    deepest = max(map(len, by_class))
    turns = [indices[depth] for depth in range(deepest) for indices in by_class if depth < len(indices)]
    return turns[:count]


def forward_strip(states: Tensor, timesteps: Sequence[int]) -> Figure:
    """Rows of images that dissolve into noise, from left to right: (F, N, channels, h, w) uint8 and the F timesteps."""
    rows = states.transpose(0, 1)  # (N, F, channels, h, w)
    return style.mosaic(rows, style.scale_of(rows), column_titles=titles_of(timesteps))


def titles_of(timesteps: Sequence[int]) -> list[str]:
    """Column titles that name the letter once."""
    return [f"t = {t}" if index == 0 else f"{t}" for index, t in enumerate(timesteps)]


def paired_rows(states: Tensor, predicted: Tensor) -> Tensor:
    """(F, K, ...) states and predictions to (2 K, F, ...): of each sample, a row of states above one of predictions."""
    return torch.stack([states, predicted], dim=2).flatten(1, 2).transpose(0, 1)


def paired_titles(names: Sequence[str]) -> list[str]:
    """Titles of such rows: those of a class bear its name, those of an unconditional rung ("") don't."""
    return [f"{name}, {what}" if name else what for name in names for what in ("noisy", "predicted")]


def reverse_strip(states: Tensor, predicted: Tensor, timesteps: Sequence[int], names: Sequence[str]) -> Figure:
    """Noisy images above the clean ones predicted from them: (F, K, channels, h, w) uint8, F timesteps, K names."""
    rows = paired_rows(states, predicted)
    return style.mosaic(rows, style.scale_of(rows), paired_titles(names), titles_of(timesteps), group=2)


def image_frames(
    states: Tensor, predicted: Tensor, timesteps: Sequence[int], classes: Sequence[str]
) -> Iterator[Image.Image]:
    """Frames of the reverse process of images: for each class a row of noisy images above a row of predicted ones.

    Args:
        states, predicted: (F, K, channels, h, w) uint8; sample k has class k // (K / number of classes).
        timesteps: the F timesteps, told above.
        classes: names of the classes; one empty name for an unconditional rung.
    """
    for state, clean, t in zip(states, predicted, timesteps, strict=True):
        by_class = [images.unflatten(0, (len(classes), -1)) for images in (state, clean)]  # (classes, K / classes, ...)
        rows = torch.stack(by_class, dim=1).flatten(0, 1)  # (2 classes, K / classes, channels, h, w)
        titles = [f"t = {t}", *[""] * (rows.shape[1] - 1)]
        scale = style.scale_of(rows, ANIMATION_WIDTH)
        yield style.rasterise(style.mosaic(rows, scale, paired_titles(classes), titles, group=2))


def image_exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The processes of a rung of images."""
    chosen = first_of_each_class(artifacts.data["train_labels"], EXAMPLES)
    x_0 = normalise(artifacts.data["train"][chosen], artifacts.normalisation)  # (N, channels, h, w)
    epsilon = torch.randn(x_0.shape, generator=generator)
    timesteps = forward_timesteps(schedule.T, settings.forward_every)
    noisy = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)
    states = unnormalise(torch.cat([x_0[None], noisy]), artifacts.normalisation)  # (1 + F, N, channels, h, w)
    yield Exhibit(
        "forward.png",
        "Forward process",
        f"Training images dissolve into noise from left (t = 0, the data) to right. {crossing_sentence(schedule)} At "
        f"t = {schedule.T}, {100 * schedule.terminal_signal:.1f} % of the image's contrast is left.",
        f"{len(x_0)} rows of {len(states)} images: each row starts with a training image and ends with noise.",
        encode_strip(forward_strip(states, [0, *timesteps]), states[0]),
    )
    yield from reverse_image_exhibits(artifacts, settings)


def encode_strip(strip: Figure, clean: Tensor) -> bytes:
    """PNG of a strip of images between noise and (N, channels, h, w) clean images."""
    return style.encode_png(style.with_palette(style.rasterise(strip), style.picture_palette(clean, STRIP_COLOURS)))


def reverse_image_exhibits(artifacts: RungArtifacts, settings: Figures) -> Iterator[Exhibit]:
    """reverse.png and reverse.webp of images; both end with the finished samples."""
    paths = artifacts.trajectories
    frames = spread(len(paths["sampling.timesteps"]), settings.panels)
    timesteps = [*(paths["sampling.timesteps"][frames] + 1).tolist(), 0]
    states, predicted = (
        torch.cat([paths[f"sampling.{name}"][frames], paths["sampling.final"][None]]) for name in ("states", "predicted")
    )  # (F + 1, K, channels, h, w)
    classes = artifacts.classes or [""]
    per_class = states.shape[1] // len(classes)
    shown = list(range(0, states.shape[1], per_class)) if artifacts.classes else list(range(min(EXAMPLES, per_class)))
    names = [classes[index // per_class] for index in shown]
    strip = reverse_strip(states[:, shown], predicted[:, shown], timesteps, names)
    same_noise = " Every class starts from the same noise." if artifacts.classes else ""
    sampler = style.sampler_title(artifacts.sampler)
    yield Exhibit(
        "reverse.png",
        "Reverse process",
        f"From noise to sample ({sampler}): each pair of rows shows a noisy image above the clean image that the network "
        f"predicts from it. Predictions start as a blurred average and settle as t falls.{same_noise}",
        f"{len(shown)} pairs of rows of {len(timesteps)} images: noise turns into a picture, and predictions get sharper.",
        encode_strip(strip, predicted[:, shown].flatten(0, 1)),
    )
    yield image_animation_exhibit(states, predicted, timesteps, classes, settings.frames_per_second)


def image_animation_exhibit(
    states: Tensor, predicted: Tensor, timesteps: list[int], classes: list[str], frames_per_second: int
) -> Exhibit:
    """reverse.webp of images: the first samples of each class, as many as a small file holds."""
    per_class, pixels = states.shape[1] // len(classes), states.shape[3] * states.shape[4]
    few = min(per_class, max(1, ANIMATED_PIXELS // pixels // len(classes)))
    shown = [label * per_class + index for label in range(len(classes)) for index in range(few)]
    palette = style.picture_palette(predicted[:, shown].flatten(0, 1), ANIMATION_COLOURS)
    pictures = image_frames(states[:, shown], predicted[:, shown], timesteps, classes)
    frames = [style.with_palette(picture, palette) for picture in pictures]
    return Exhibit(
        "reverse.webp",
        "Reverse process, moving",
        f"The same in motion, for {len(shown)} samples, in few colours to keep the file small.",
        f"Animation of {len(shown)} noisy images above the images predicted from them, while noise turns into pictures.",
        style.encode_animation(frames, durations(len(frames), frames_per_second)),
    )


def exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The forward and the reverse process of a rung; `generator` gives the forward process its noise."""
    draw = points_exhibits if artifacts.is_points else image_exhibits
    return draw(artifacts, schedule, settings, generator)
