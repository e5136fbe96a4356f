"""The diffusion process in pictures: data turning into noise, and noise turning into samples.

Timesteps are counted as in the papers: x_0 is data, x_t has gone through t steps of noise, x_T is the end. Schedulers
and trajectories index the same states from 0: their timestep is t - 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.normalise import normalise, unnormalise
from diffusion_ladder.diffusion.schedules import NoiseSchedule, add_noise
from diffusion_ladder.figures import style
from diffusion_ladder.figures.film import Scene, film, points_scene, tiles_scene
from diffusion_ladder.figures.style import Exhibit, RungArtifacts
from diffusion_ladder.params.figures import Figures

LIMIT = 3.4  # points are shown up to so many standard deviations from the mean
SHEET_ROWS = 5  # of a contact sheet
PANEL, LARGE_PANEL, ANIMATED_PANEL = 104, 262, 256  # sides in pixels
TRACKED_INDEX = 0  # the first point: nobody chose it
ANIMATED_POINTS = 300  # at most: each moving point costs bytes
PREDICTIONS = 10  # moments of the reverse process in predicted.png
EXAMPLES, FILMED = 3, 4  # images whose way is shown: of the forward process, and of the reverse (or classes) at most
STRIP_COLOURS, STRIP_GREYS = 64, 16  # of the clean images in a strip, or of all in greys
ANIMATION_WIDTH = 700  # of the tiles of an animation of images, at most
FILMED_PIXELS = 2**12  # of all samples of the reverse process, at most: noise can't be compressed
ANIMATED_FRAMES = 12  # of an animation, at most
FIRST_FRAME, LAST_FRAME = 700, 2000  # milliseconds that an animation rests on its ends


def forward_timesteps(T: int, every: int) -> list[int]:
    """The timesteps every, 2 every, ... of the forward process, and always its end T."""
    return sorted({*range(every, T + 1, every), T})


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices of a sequence of length `count`, evenly spread, with both ends."""
    return sorted(set(torch.linspace(0, count - 1, min(count, limit)).round().long().tolist()))


def forward_states(x_0: Tensor, epsilon: Tensor, alpha_bar: Tensor, timesteps: Sequence[int]) -> Tensor:
    """The forward process with one noise vector for all t, so that every path is continuous.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon (arXiv 2006.11239, equation 4).

    Args:
        x_0: (N, ...) normalised data.
        epsilon: (N, ...) standard normal noise.
        alpha_bar: (T,) float64.
        timesteps: F numbers in [1, T].

    Returns:
        (F, N, ...) like x_0.
    """
    return torch.stack([add_noise(x_0, epsilon, alpha_bar[t - 1].item()) for t in timesteps])


def schedule_crossing(schedule: NoiseSchedule) -> int | None:
    """The first t (from 1) with a signal-to-noise ratio below 1; None where there is none."""
    below = (schedule.snr < 1).nonzero()
    return int(below[0]) + 1 if len(below) else None


def crossing_sentence(schedule: NoiseSchedule) -> str:
    """Where noise overtakes signal, in a sentence."""
    t = schedule_crossing(schedule)
    return "The signal outweighs the noise up to the end." if t is None else f"From t = {t} on, noise outweighs signal."


@dataclass(frozen=True)
class Way:
    """The reverse process of one sampler: F moments, the last of them t = 0, where the samples are finished.

    Attributes:
        sampler: how it went, for a title.
        timesteps: F of them, falling to 0.
        states, predicted: (F, K, ...) noisy samples, and the clean ones that the network predicts from them; uint8
            images, or standardised points.
        labels: (K,) requested classes of points; None where none was, and for images.
    """

    sampler: str
    timesteps: list[int]
    states: Tensor
    predicted: Tensor
    labels: Tensor | None = None

    def thinned(self, frames: int) -> "Way":
        """The same at fewer moments."""
        chosen = spread(len(self.timesteps), frames)
        timesteps = [self.timesteps[index] for index in chosen]
        return replace(self, timesteps=timesteps, states=self.states[chosen], predicted=self.predicted[chosen])

    def of(self, samples: Sequence[int] | Tensor) -> "Way":
        """The same for some of the K samples."""
        return replace(self, states=self.states[:, samples], predicted=self.predicted[:, samples])


def reverse_way(artifacts: RungArtifacts, use: str, moments: int) -> Way:
    """What was kept of the way of the samples ("sampling") or of the comparison's ("comparison"), and its end."""
    facts = {"sampling": artifacts.sampler, "comparison": artifacts.comparison_sampler}[use]
    kept = {name: artifacts.trajectories[f"{use}.{name}"] for name in ("timesteps", "states", "predicted", "final")}
    chosen = spread(len(kept["timesteps"]), moments)
    states, predicted = (torch.cat([kept[name][chosen], kept["final"][None]]) for name in ("states", "predicted"))
    way = Way(style.sampler_title(facts), [*(kept["timesteps"][chosen] + 1).tolist(), 0], states, predicted)
    if not artifacts.is_points:
        return way
    states, predicted = (normalise(points, artifacts.normalisation) for points in (states, predicted))
    way, labels = replace(way, states=states, predicted=predicted), artifacts.labels_of(states.shape[1])
    if labels is None:
        return way
    order = first_of_each_class(labels, len(labels))  # so that the first few are of all classes
    return replace(way.of(order), labels=labels[order])


def longest(ways: Sequence[Way]) -> Way:
    """The way that was kept at the most moments, the first of them if several were."""
    return max(ways, key=lambda way: len(way.timesteps))


def durations(frames: int, frames_per_second: int) -> list[int]:
    """Milliseconds of each frame of an animation, which rests on its first and on its last."""
    return [FIRST_FRAME, *[round(1000 / frames_per_second)] * (frames - 2), LAST_FRAME][:frames]


# Points: drawing


def frame_plane(axes: Axes, ticks: bool = False) -> None:
    """Equal limits in standard deviations; ticks only where they are asked for."""
    marks = range(-3, 4) if ticks else []
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=marks, yticks=marks)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def show_crowd(axes: Axes, points: Tensor, size: float, colour: str = style.CROWD) -> Line2D:
    """Draw (N, 2) points small and muted."""
    return axes.plot(*points.T, linestyle="none", marker="o", ms=size, mew=0, color=colour)[0]


def show_tracked(axes: Axes, place: Tensor, size: float, colour: str = style.TRACKED) -> Line2D:
    """Draw one point (2,) large, outlined and above all others."""
    look: dict[str, Any] = {"mfc": colour, "mec": style.TRACKED_EDGE, "mew": 1.2, "zorder": 5, "clip_on": False}
    return axes.plot(*place.view(2, 1), linestyle="none", marker="o", ms=size, **look)[0]


def crowds(labels: Tensor | None) -> list[tuple[Any, str]]:
    """The members and the colour of each class of points with labels (N,); without labels, of all."""
    if labels is None:
        return [(slice(None), style.CROWD)]
    return [(labels == label, colour) for label, colour in enumerate(style.CLASS_COLOURS.values())]


def show_points(axes: Axes, points: Tensor, size: float, labels: Tensor | None = None) -> tuple[list[Line2D], Line2D]:
    """Draw (N, 2) standardised points: a crowd of each class, and the tracked one."""
    drawn = [show_crowd(axes, points[members], size, colour) for members, colour in crowds(labels)]
    return drawn, show_tracked(axes, points[TRACKED_INDEX], 3 + 2.5 * size)


def show_path(axes: Axes, path: Tensor, crowd: Tensor) -> None:
    """Draw (F, 2) places of the tracked point above a faint crowd (N, 2): from a hollow mark to a filled one."""
    show_crowd(axes, crowd, 2, style.RULE)
    axes.plot(*path.T, color=style.TRAIL)
    show_tracked(axes, path[0], 9, "white")
    show_tracked(axes, path[-1], 9)


def contact_sheet(
    states: Tensor,
    timesteps: Sequence[int],
    clean: Tensor,
    clean_title: str,
    clean_first: bool,
    labels: Tensor | None = None,
) -> Figure:
    """All states of points as small panels; beside them, large, the clean points and the tracked point's path.

    Args:
        states: (F, N, 2) standardised noisy points, in the order of the process.
        timesteps: the F timesteps t of the states.
        clean: (N, 2) the points x_0 where the forward process starts or the reverse process ends.
        clean_title: title of their panel.
        clean_first: whether the process starts with them, which puts the large panels to the left.
        labels: (N,) classes, shown as colours.
    """
    columns = -(-len(timesteps) // SHEET_ROWS)
    step_x, step_y = PANEL + 6, PANEL + 22
    figure = style.blank(columns * step_x + LARGE_PANEL + 84, SHEET_ROWS * step_y + 10)
    sheet_left, large_left = (LARGE_PANEL + 80, 56) if clean_first else (6, columns * step_x + 70)
    for index, (points, t) in enumerate(zip(states, timesteps, strict=True)):
        row, column = divmod(index, columns)
        small_panel(figure, sheet_left + column * step_x, 20 + row * step_y, points, f"t = {t}", labels)
    path = torch.cat([clean[None], states] if clean_first else [states, clean[None]])[:, TRACKED_INDEX]
    large_panels(figure, large_left, clean, clean_title, path, labels)
    return figure


def small_panel(figure: Figure, left: float, top: float, points: Tensor, title: str, labels: Tensor | None) -> None:
    """One panel of a sheet of points."""
    axes = style.place_axes(figure, left, top, PANEL, PANEL)
    axes.set_title(title, size=style.SMALL_TEXT_SIZE, pad=2)
    frame_plane(axes)
    show_points(axes, points, 1.8, labels)


def large_panels(
    figure: Figure, left: float, clean: Tensor, clean_title: str, path: Tensor, labels: Tensor | None
) -> None:
    """The two large panels of a contact sheet, with the axes that all of its panels share."""
    upper = style.place_axes(figure, left, 20, LARGE_PANEL, LARGE_PANEL)
    lower = style.place_axes(figure, left, 46 + LARGE_PANEL, LARGE_PANEL, LARGE_PANEL)
    show_points(upper, clean, 2.4, labels)
    show_path(lower, path, clean)
    for axes, title in ((upper, clean_title), (lower, "path of the green point")):
        frame_plane(axes, ticks=True)
        axes.set_title(title, pad=4)
        axes.set_ylabel("2nd coordinate (std. deviations)", size=style.SMALL_TEXT_SIZE, labelpad=2)
    upper.set_xticklabels([])
    lower.set_xlabel("1st coordinate (standard deviations)", size=style.SMALL_TEXT_SIZE, labelpad=2)


def prediction_sheet(way: Way) -> Figure:
    """Noisy points above the clean points that the network predicts from them: (F, N, 2) each, standardised."""
    timesteps = way.timesteps
    step = PANEL + 6
    figure = style.blank(96 + len(timesteps) * step, 2 * step + 24)
    for row, (title, sequence) in enumerate((("noisy\n$x_t$", way.states), ("predicted\n$x_0$", way.predicted))):
        top = 20 + row * step
        style.place_text(figure, 84, top + PANEL / 2, title, ha="right", va="center")
        for column, (points, t) in enumerate(zip(sequence, timesteps, strict=True)):
            small_panel(figure, 94 + column * step, top, points, "" if row else f"t = {t}", way.labels)
    return figure


def points_frames(
    panels: dict[str, Tensor], timesteps: Sequence[int], labels: Tensor | None = None
) -> Iterator[Image.Image]:
    """Frames of moving points; in the first panel the tracked point leaves a trail.

    Args:
        panels: title to (F, N, 2) standardised points, of which the first are drawn; side by side.
        timesteps: the F timesteps, told in the first panel's title.
        labels: (N,) classes, shown as colours.
    """
    side, panels = ANIMATED_PANEL, {title: points[:, :ANIMATED_POINTS] for title, points in panels.items()}
    labels = None if labels is None else labels[:ANIMATED_POINTS]
    figure = style.blank(len(panels) * (side + 8) + 8, side + 36)
    artists = []
    for index, points in enumerate(panels.values()):
        axes = style.place_axes(figure, 8 + index * (side + 8), 28, side, side)
        frame_plane(axes)
        trail = axes.plot([], [], color=style.TRAIL, lw=2, zorder=4)[0]
        artists.append((axes, trail, *show_points(axes, points[0], 2, labels)))
    for frame, t in enumerate(timesteps):
        for index, (title, points) in enumerate(panels.items()):
            axes, trail, drawn, tracked = artists[index]
            for crowd, (members, _) in zip(drawn, crowds(labels), strict=True):
                crowd.set_data(*points[frame][members].T)
            tracked.set_data(*points[frame, TRACKED_INDEX].view(2, 1))
            if index == 0:
                trail.set_data(*points[: frame + 1, TRACKED_INDEX].T)
            axes.set_title(title if index else f"{title}, t = {t}")
        yield style.with_palette(style.rasterise(figure), points_palette(labels))


def points_palette(labels: Tensor | None) -> list[style.Colour]:
    """The colours of a figure of points, whose classes are told apart or not."""
    return style.POINTS_PALETTE if labels is None else style.CLASSES_PALETTE


def encode_sheet(figure: Figure, labels: Tensor | None = None) -> bytes:
    """PNG of a figure of points."""
    return style.encode_png(style.with_palette(style.rasterise(figure), points_palette(labels)))


# Points: what is shown, and what is said of it


def points_exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The processes of a rung of points, both with as many points as its trajectories have."""
    count = len(artifacts.trajectories["sampling.final"])
    x_0 = normalise(artifacts.data["train"][:count], artifacts.normalisation)  # (N, 2)
    epsilon = torch.randn(x_0.shape, generator=generator)
    timesteps = forward_timesteps(schedule.T, settings.forward_every)
    states = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)  # (F, N, 2)
    yield forward_sheet_exhibit(artifacts, states, timesteps, x_0, schedule, settings.frames_per_second)

    ways = [reverse_way(artifacts, use, settings.panels) for use in ("sampling", "comparison")]
    yield reverse_sheet_exhibit(ways, artifacts, settings.frames_per_second)
    yield reverse_animation_exhibit(longest(ways).thinned(ANIMATED_FRAMES), artifacts, settings.frames_per_second)
    yield prediction_exhibit(longest(ways), artifacts)


def forward_sheet_exhibit(
    artifacts: RungArtifacts,
    states: Tensor,
    timesteps: list[int],
    x_0: Tensor,
    schedule: NoiseSchedule,
    frames_per_second: int,
) -> Exhibit:
    """forward.png of points."""
    labels = artifacts.data["train_labels"][: len(x_0)] if artifacts.classes else None
    moving = points_scene({}, [0, *timesteps], {"noisy points": torch.cat([x_0[None], states])})
    return Exhibit(
        "forward.png",
        "Forward process",
        f"Data dissolve into noise; read line by line. {crossing_sentence(schedule)} The green point is one training "
        "point, followed all the way: it keeps one noise vector, so its path (large; hollow is the start) is smooth. "
        f"At t = {schedule.T}, {100 * schedule.terminal_signal:.1f} % of each coordinate is left.{artifacts.class_key}",
        f"{len(timesteps)} small scatter plots from t = {timesteps[0]} to t = {timesteps[-1]}, in which {len(x_0)} "
        "points lose their shape and become a round cloud; one green point is marked in all of them. Two larger plots "
        "show the data and the green point's path.",
        encode_sheet(contact_sheet(states, timesteps, x_0, "data $x_0$", clean_first=True, labels=labels), labels),
        film([moving], frames_per_second, "first"),
    )


def way_scenes(way: Way, classes: Sequence[str]) -> list[Scene]:
    """A scene of moving points for each class, or of all points of an unconditional rung."""
    if way.labels is None:
        shown = {"": way}
    else:
        shown = {name: way.of((way.labels == label).nonzero()[:, 0]) for label, name in enumerate(classes)}
    return [
        points_scene(
            {"Sampler": way.sampler} | ({"Class": name} if name else {}),
            way.timesteps,
            {"noisy points": part.states, "predicted clean points": part.predicted},
        )
        for name, part in shown.items()
    ]


def reverse_sheet_exhibit(ways: Sequence[Way], artifacts: RungArtifacts, frames_per_second: int) -> Exhibit:
    """reverse.png of points: the way that was kept at more moments; the film has both."""
    way = longest(ways)
    timesteps, states, final = way.timesteps[:-1], way.states[:-1], way.states[-1]
    scenes = [scene for each in ways for scene in way_scenes(each, artifacts.classes)]
    sheet = contact_sheet(states, timesteps, final, "samples $x_0$", clean_first=False, labels=way.labels)
    return Exhibit(
        "reverse.png",
        "Reverse process",
        f"The trained network walks noise back to data (still: {way.sampler}). Compare with the forward process at the "
        "same t: the clouds should look alike. The green point is the first sample, followed from pure noise (hollow, "
        f"in the large panel of its path) to its place in the shape.{artifacts.class_key}",
        f"{len(timesteps)} small scatter plots from t = {timesteps[0]} to t = {timesteps[-1]}, in which a round cloud "
        f"of {len(final)} points gains the shape of the data; one green point is marked in all of them. Two larger "
        "plots show the finished samples and the green point's path.",
        encode_sheet(sheet, way.labels),
        film(scenes, frames_per_second, "last"),
    )


def reverse_animation_exhibit(way: Way, artifacts: RungArtifacts, frames_per_second: int) -> Exhibit:
    """reverse.webp of points: both panels end with the finished samples."""
    panels = {"noisy points": way.states, "predicted clean points": way.predicted}
    frames = list(points_frames(panels, way.timesteps, way.labels))
    return Exhibit(
        "reverse.webp",
        "Reverse process, moving",
        "Left, the noisy points; right, where the network expects each of them to end. Early predictions huddle near "
        "the mean of the data, since noise says little about where a point belongs; they spread as t falls."
        f"{artifacts.class_key}",
        "Animation of two scatter plots side by side: a round cloud contracts to the shape of the data, with the trail "
        "of one green point; beside it, predictions grow from a small cluster to the same shape.",
        style.encode_animation(frames, durations(len(frames), frames_per_second)),
    )


def prediction_exhibit(way: Way, artifacts: RungArtifacts) -> Exhibit:
    """predicted.png of points."""
    few = replace(way, timesteps=way.timesteps[:-1]).thinned(PREDICTIONS)
    return Exhibit(
        "predicted.png",
        "What the network expects",
        "Above, noisy points; below, the clean points that the network predicts from them. One step from pure noise "
        f"can only reach the middle of the data, which is why sampling takes many.{artifacts.class_key}",
        f"Two rows of {len(few.timesteps)} scatter plots: noisy points at falling t, and below each the predicted "
        "clean points.",
        encode_sheet(prediction_sheet(few), way.labels),
    )


# Images: drawing


def first_of_each_class(labels: Tensor, count: int) -> list[int]:
    """Indices of `count` examples: the first of each class in turn, then the second of each, and so on."""
    by_class = [(labels == label).nonzero().flatten().tolist() for label in sorted(set(labels.tolist()))]
    deepest = max(map(len, by_class))
    turns = [indices[depth] for depth in range(deepest) for indices in by_class if depth < len(indices)]
    return turns[:count]


def titles_of(timesteps: Sequence[int]) -> list[str]:
    """Column titles that name the letter once."""
    return [f"{t}" if index else f"t = {t}" for index, t in enumerate(timesteps)]


def paired_titles(names: Sequence[str]) -> list[str]:
    """Titles of pairs of rows: those of a class bear its name, those of an unconditional rung ("") don't."""
    return [f"{name}, {what}" if name else what for name in names for what in ("noisy", "predicted")]


def forward_strip(states: Tensor, timesteps: Sequence[int]) -> tuple[Figure, style.MosaicLayout]:
    """Rows of images that dissolve into noise, from left to right: (F, N, channels, h, w) uint8 and the F timesteps."""
    return strip(states.transpose(0, 1), [], timesteps, None)


def reverse_strip(way: Way, names: Sequence[str]) -> tuple[Figure, style.MosaicLayout]:
    """Noisy images above the clean ones predicted from them, for each of K samples with K names."""
    rows = torch.stack([way.states, way.predicted], dim=2).flatten(1, 2).transpose(0, 1)  # (2 K, F, channels, h, w)
    return strip(rows, paired_titles(names), way.timesteps, 2)


def strip(
    rows: Tensor, titles: Sequence[str], timesteps: Sequence[int], group: int | None
) -> tuple[Figure, style.MosaicLayout]:
    """Rows (R, F, channels, h, w) of images under the F timesteps, and where their tiles lie."""
    scale, columns = style.scale_of(rows), titles_of(timesteps)
    return style.mosaic(rows, scale, titles, columns, group), style.layout_of(rows, scale, titles, columns, group)


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


def encode_strip(figure: Figure, clean: Tensor) -> bytes:
    """PNG of a strip of images between noise and (N, channels, h, w) clean images."""
    palette = style.picture_palette(clean, colours=STRIP_COLOURS, greys=STRIP_GREYS)
    return style.encode_png(style.with_palette(style.rasterise(figure), palette))


# Images: what is shown, and what is said of it


def image_exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The processes of a rung of images; the reverse process ends with the finished samples."""
    yield forward_strip_exhibit(artifacts, schedule, settings, generator)
    classes = artifacts.classes or [""]
    ways = [reverse_way(artifacts, use, settings.panels) for use in ("sampling", "comparison")]
    count, pixels = ways[0].states.shape[1], ways[0].states.shape[3] * ways[0].states.shape[4]
    shown = first_of_classes(count, len(classes), min(FILMED, FILMED_PIXELS // pixels))
    ways, classes = [way.of(shown) for way in ways], classes[:FILMED]
    yield from reverse_strip_exhibits(ways, classes, settings.frames_per_second)
    yield image_animation_exhibit(ways[0].thinned(ANIMATED_FRAMES), classes, settings.frames_per_second)


def first_of_classes(count: int, classes: int, shown: int) -> list[int]:
    """Indices of at most `shown` (at least one a class, of the first FILMED) of `count` samples, sorted by class."""
    per_class = count // classes
    few = min(per_class, max(1, shown // classes))
    return [label * per_class + index for label in range(min(classes, FILMED)) for index in range(few)]


def forward_strip_exhibit(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Exhibit:
    """forward.png of images."""
    chosen = first_of_each_class(artifacts.data["train_labels"], EXAMPLES)
    x_0 = normalise(artifacts.data["train"][chosen], artifacts.normalisation)  # (N, channels, h, w)
    epsilon = torch.randn(x_0.shape, generator=generator)
    timesteps = [0, *forward_timesteps(schedule.T, settings.forward_every)]
    noisy = forward_states(x_0, epsilon, schedule.alpha_bar, timesteps[1:])
    states = unnormalise(torch.cat([x_0[None], noisy]), artifacts.normalisation)  # (F, N, channels, h, w)
    figure, layout = forward_strip(states, timesteps)
    moving = tiles_scene({}, timesteps, {"noisy images": range(len(x_0))}, "forward.png", layout)
    return Exhibit(
        "forward.png",
        "Forward process",
        f"Training images dissolve into noise from left (t = 0, the data) to right. {crossing_sentence(schedule)} At "
        f"t = {schedule.T}, {100 * schedule.terminal_signal:.1f} % of the image's contrast is left.",
        f"{len(x_0)} rows of {len(states)} images: each row starts with a training image and ends with noise.",
        encode_strip(figure, states[0]),
        film([moving], settings.frames_per_second, "first"),
    )


def reverse_strip_exhibits(ways: Sequence[Way], classes: list[str], frames_per_second: int) -> Iterator[Exhibit]:
    """reverse.png and reverse_comparison.png of images: a few samples of each class; the first's film has both."""
    per_class = ways[0].states.shape[1] // len(classes)
    names = [name for name in classes for _ in range(per_class)]
    sheets = dict(zip(("reverse.png", "reverse_comparison.png"), ways, strict=True))
    strips = {sheet: reverse_strip(way, names) for sheet, way in sheets.items()}
    scenes = [
        tiles_scene(
            {"Sampler": way.sampler} | ({"Class": name} if name else {}),
            way.timesteps,
            rows_of_class(label, per_class),
            sheet,
            strips[sheet][1],
        )
        for sheet, way in sheets.items()
        for label, name in enumerate(classes)
    ]
    same_noise = " Samples of equal rank of each class start from the same noise." if classes[0] else ""
    captions = (
        "each pair of rows shows a noisy image above the clean image that the network predicts from it. Predictions "
        f"start as a blurred average and settle as t falls.{same_noise}",
        "the same network from the same noise, on the other sampler's way.",
    )
    for (sheet, way), caption in zip(sheets.items(), captions, strict=True):
        yield Exhibit(
            sheet,
            "Reverse process" if sheet == "reverse.png" else "Reverse process of the other sampler",
            f"From noise to sample ({way.sampler}): {caption}",
            f"{len(names)} pairs of rows of {len(way.timesteps)} images: noise turns into a picture, predictions get "
            "sharper.",
            encode_strip(strips[sheet][0], way.predicted.flatten(0, 1)),
            film(scenes, frames_per_second, "last") if sheet == "reverse.png" else None,
        )


def rows_of_class(label: int, per_class: int) -> dict[str, range]:
    """The rows of a reverse strip that show the noisy images of a class, and the predicted ones, by their title."""
    first, end = 2 * label * per_class, 2 * (label + 1) * per_class
    return {"noisy": range(first, end, 2), "predicted clean images": range(first + 1, end, 2)}


def image_animation_exhibit(way: Way, classes: list[str], frames_per_second: int) -> Exhibit:
    """reverse.webp of images."""
    palette = style.picture_palette(way.predicted.flatten(0, 1), STRIP_COLOURS, STRIP_GREYS)
    pictures = image_frames(way.states, way.predicted, way.timesteps, classes)
    frames = [style.with_palette(frame, palette) for frame in pictures]
    return Exhibit(
        "reverse.webp",
        "Reverse process, moving",
        f"The same in motion, for {way.states.shape[1]} samples, in few colours to keep the file small.",
        f"Animation of {way.states.shape[1]} noisy images above the images predicted from them: noise turns into "
        "pictures.",
        style.encode_animation(frames, durations(len(frames), frames_per_second)),
    )


def exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The forward and the reverse process of a rung; `generator` gives the forward process its noise."""
    draw = points_exhibits if artifacts.is_points else image_exhibits
    return draw(artifacts, schedule, settings, generator)
