"""The diffusion process in pictures: data turning into noise, and noise turning into samples.

Timesteps are counted as in the papers: x_0 is data, x_t has gone through t steps of noise, x_T is the end. Schedulers
and trajectories index the same states from 0: their timestep is t - 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import normalise, unnormalise
from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.figures import encoding, palette
from diffusion_ladder.figures.exhibit import Exhibit, RungArtifacts
from diffusion_ladder.figures.film import Scene, film, points_scene, tiles_scene
from diffusion_ladder.figures.points import contact_sheet, encode_sheet, points_frames, prediction_sheet
from diffusion_ladder.figures.strips import (
    STRIP_COLOURS,
    STRIP_GREYS,
    encode_strip,
    forward_strip,
    image_frames,
    reverse_strip,
)
from diffusion_ladder.figures.ways import (
    Way,
    durations,
    first_of_each_class,
    forward_states,
    forward_timesteps,
    longest,
    reverse_way,
)
from diffusion_ladder.params.figures import Figures

PREDICTIONS = 10  # moments of the reverse process in predicted.png
EXAMPLES, FILMED = 3, 4  # images whose way is shown: of the forward process, and of the reverse (or classes) at most
FILMED_PIXELS = 2**12  # of all samples of the reverse process, at most: noise can't be compressed
ANIMATED_FRAMES = 12  # of an animation, at most


def schedule_crossing(schedule: NoiseSchedule) -> int | None:
    """The first t (from 1) with a signal-to-noise ratio below 1; None where there is none."""
    below = (schedule.snr < 1).nonzero()
    return int(below[0]) + 1 if len(below) else None


def crossing_sentence(schedule: NoiseSchedule) -> str:
    """Where noise overtakes signal, in a sentence."""
    t = schedule_crossing(schedule)
    return "The signal outweighs the noise up to the end." if t is None else f"From t = {t} on, noise outweighs signal."


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
        encoding.encode_animation(frames, durations(len(frames), frames_per_second)),
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
    colours = palette.picture_palette(way.predicted.flatten(0, 1), STRIP_COLOURS, STRIP_GREYS)
    pictures = image_frames(way.states, way.predicted, way.timesteps, classes)
    frames = [palette.with_palette(frame, colours) for frame in pictures]
    return Exhibit(
        "reverse.webp",
        "Reverse process, moving",
        f"The same in motion, for {way.states.shape[1]} samples, in few colours to keep the file small.",
        f"Animation of {way.states.shape[1]} noisy images above the images predicted from them: noise turns into "
        "pictures.",
        encoding.encode_animation(frames, durations(len(frames), frames_per_second)),
    )


def exhibits(
    artifacts: RungArtifacts, schedule: NoiseSchedule, settings: Figures, generator: torch.Generator
) -> Iterator[Exhibit]:
    """The forward and the reverse process of a rung; `generator` gives the forward process its noise."""
    draw = points_exhibits if artifacts.is_points else image_exhibits
    return draw(artifacts, schedule, settings, generator)
