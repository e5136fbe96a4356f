"""Finished samples in pictures: beside held-out data and another sampler's from the same noise; none is chosen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.figures import canvas, encoding, exhibit, mosaic
from diffusion_ladder.figures.exhibit import Exhibit, RungArtifacts
from diffusion_ladder.figures.film import Scene, film, tiles_scene
from diffusion_ladder.figures.points import LIMIT, encode_sheet, frame_plane, show_points, show_tracked
from diffusion_ladder.figures.ways import first_of_each_class
from diffusion_ladder.params.figures import Figures

SCATTER_PANEL = 380  # side in pixels
NUMBERED, DISC = 8, 19  # points whose noise can be followed by a number, and the width of its disc
COMPARED_SHARE = 4  # a comparison shows a quarter as many pairs as the grid has samples


# Points


@dataclass(frozen=True)
class Panel:
    """A set of points and how it is drawn.

    Attributes:
        points: (N, 2), standardised.
        labels: (N,) classes, shown as colours; None for points without.
        tracked: whether the first point is marked.
        numbered: how many points bear a number, from 1 on.
    """

    title: str
    points: Tensor
    labels: Tensor | None
    tracked: bool = False
    numbered: int = 0


def scatter_row(panels: Sequence[Panel]) -> Figure:
    """Sets of points side by side on equal axes."""
    side = SCATTER_PANEL
    figure = canvas.blank(60 + len(panels) * (side + 16), side + 82)
    for index, panel in enumerate(panels):
        axes = canvas.place_axes(figure, 56 + index * (side + 16), 28, side, side)
        frame_plane(axes, ticks=True)
        axes.set_title(canvas.plain(panel.title), pad=5)
        axes.set_xlabel("1st coordinate (standard deviations)")
        mark = show_points(axes, panel.points, 2.4, panel.labels)[1]
        mark.set_visible(panel.tracked)
        show_numbers(axes, panel.points[: panel.numbered])
        if index:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("2nd coordinate (standard deviations)")
    return figure


def show_numbers(axes: Axes, points: Tensor) -> None:
    """Write 1, 2, ... into a disc at each of some points (N, 2), as far as they lie in the frame."""
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": canvas.SMALL_TEXT_SIZE}
    for number, place in enumerate(points, 1):
        if float(place.abs().max()) < LIMIT:
            show_tracked(axes, place, DISC, "white").set_zorder(5 + 2 * number)
            axes.text(float(place[0]), float(place[1]), str(number), zorder=6 + 2 * number, **look)


def points_exhibits(artifacts: RungArtifacts, settings: Figures) -> Iterator[Exhibit]:
    """samples.png of points, and of a conditional rung samples_same_noise.png."""
    yield scatter_exhibit(artifacts, settings)
    if artifacts.classes:
        yield same_noise_exhibit(artifacts)


def first_panel(title: str, points: Tensor, labels: Tensor | None, count: int, tracked: bool) -> Panel:
    """The first `count` of (N, 2) points, of each class of (N,) labels in turn."""
    if labels is None:
        return Panel(title, points[:count], None, tracked)
    chosen = first_of_each_class(labels, count)
    return Panel(title, points[chosen], labels[chosen], tracked)


def scatter_exhibit(artifacts: RungArtifacts, settings: Figures) -> Exhibit:
    """samples.png of points: held-out data, the samples, the comparison's samples."""
    available = (artifacts.data["test"], artifacts.samples, artifacts.comparison)
    count = min(settings.samples, *map(len, available))
    held_out, samples, comparison = (normalise(points, artifacts.normalisation) for points in available)
    titles = [exhibit.sampler_title(facts) for facts in (artifacts.sampler, artifacts.comparison_sampler)]
    own_labels = artifacts.data["test_labels"] if artifacts.classes else None
    panels = [
        first_panel(
            f"held-out data{' (synthetic)' if artifacts.synthetic else ''}", held_out, own_labels, count, False
        ),
        first_panel(titles[0], samples, artifacts.labels_of(len(samples)), count, True),
        first_panel(titles[1], comparison, artifacts.labels_of(len(comparison)), count, True),
    ]
    return Exhibit(
        "samples.png",
        "Samples beside data",
        f"{count} held-out points, and as many samples of two samplers that start from the same noise. Look for stray "
        "points between the shapes, for gaps, and for a spread that differs from the data's. The green point is the "
        f"first sample of each: the same noise, not the same place.{artifacts.class_key}",
        f"Three scatter plots of {count} points each on equal axes: held-out data, samples by {titles[0]}, samples by "
        f"{titles[1]}.",
        encode_sheet(scatter_row(panels), panels[1].labels),
    )


def same_noise_exhibit(artifacts: RungArtifacts) -> Exhibit:
    """samples_same_noise.png: the noise of the samples whose way was kept, and what it becomes under each class."""
    kept = [artifacts.trajectories[f"sampling.{name}"] for name in ("states", "final")]
    noise, final = (normalise(points, artifacts.normalisation) for points in (kept[0][0], kept[1]))  # (K, 2)
    by_class = final.unflatten(0, (len(artifacts.classes), -1))  # (classes, K / classes, 2)
    count = by_class.shape[1]
    panels = [Panel("noise", noise[:count], None, numbered=NUMBERED)]
    for label, (name, points) in enumerate(zip(artifacts.classes, by_class, strict=True)):
        panels.append(Panel(name, points, torch.full((count,), label), numbered=NUMBERED))
    return Exhibit(
        "samples_same_noise.png",
        "The same noise under each class",
        f"Left, the noise that {count} samples of every class start from; beside it, what the network makes of it when"
        f" it is asked for {' and for '.join(artifacts.classes)} ({exhibit.sampler_title(artifacts.sampler)}). The"
        " first "
        f"{min(NUMBERED, count)} bear numbers: points of one number start from the same noise, so that nothing but the "
        "class sets them apart.",
        f"{len(panels)} scatter plots of {count} points each on equal axes: the noise, and the samples of each class; "
        "points of the same noise have the same number.",
        encode_sheet(scatter_row(panels), panels[1].labels),
    )


# Images


def balanced_columns(count: int, largest: int) -> int:
    """Columns for `count` tiles, at most `largest`, so that the last row is as full as can be."""
    rows = -(-count // largest)
    return -(-count // rows)


def fold(groups: Tensor, columns: int) -> Tensor:
    """(G, n, ...) rows of tiles too long for a page, folded into blocks: (blocks * G, columns, ...), padded with white.

    Row b * G + g holds part b of group g, so that tiles of equal index stay above each other.
    """
    count = groups.shape[1]
    blocks = -(-count // columns)
    filler = torch.full((groups.shape[0], blocks * columns - count, *groups.shape[2:]), 255, dtype=groups.dtype)
    parts = torch.cat([groups, filler], dim=1).unflatten(1, (blocks, columns))  # (G, blocks, columns, ...)
    return parts.transpose(0, 1).flatten(0, 1)


def grid(groups: Tensor, titles: Sequence[str], together: int | None = None) -> tuple[Figure, mosaic.MosaicLayout]:
    """A page of images and where its tiles lie: (G, n, channels, h, w) uint8, row g of each block titled titles[g].

    All titles may be empty. `together` rows stand close to each other, set apart from the next; None for all.
    """
    columns = balanced_columns(groups.shape[1], max(1, mosaic.SHEET_WIDTH // (2 * groups.shape[-1])))
    rows = fold(groups, columns)
    row_titles = [*titles] * (len(rows) // len(titles)) if any(titles) else []
    scale = mosaic.scale_of(rows)
    return mosaic.mosaic(rows, scale, row_titles, group=together), mosaic.layout_of(
        rows, scale, row_titles, [], together
    )


def encode_grid(groups: Tensor, titles: Sequence[str], together: int | None = None, synthetic: bool = False) -> bytes:
    """PNG of a `grid`; synthetic data are marked as such across it."""
    figure, _ = grid(groups, titles, together)
    if synthetic:
        canvas.watermark(figure)
    return encoding.encode_samples(canvas.rasterise(figure))


def by_class(samples: Tensor, classes: Sequence[str], count: int) -> Tensor:
    """The first `count` samples in all, (classes, n, ...): sample j of each class has the same noise."""
    groups = samples.unflatten(0, (max(1, len(classes)), -1))
    return groups[:, : max(1, count // len(groups))]


def held_out_by_class(artifacts: RungArtifacts, per_class: int) -> Tensor:
    """The first `per_class` held-out images of each class (of all, for an unconditional rung): (classes, n, ...)."""
    images, labels = artifacts.data["test"], artifacts.data["test_labels"]
    if not artifacts.classes:
        return images[None, :per_class]
    chosen = [images[labels == label][:per_class] for label in range(len(artifacts.classes))]
    return torch.stack([part[: min(map(len, chosen))] for part in chosen])


def image_exhibits(artifacts: RungArtifacts, settings: Figures) -> Iterator[Exhibit]:
    """samples.png, comparison.png and held_out.png of images."""
    classes, sampler = artifacts.classes, exhibit.sampler_title(artifacts.sampler)
    titles = classes or [""]
    samples = by_class(artifacts.samples, classes, settings.samples)
    shared = " Images above each other differ in their class alone: they start from the same noise." if classes else ""
    rows = f" in rows of {', '.join(classes[:-1])} and {classes[-1]}" if classes else ""
    yield Exhibit(
        "samples.png",
        "Samples",
        f"The first {samples.shape[0] * samples.shape[1]} samples, none left out ({sampler}).{shared}",
        f"Grid of {samples.shape[0] * samples.shape[1]} generated images{rows}.",
        encode_grid(samples, titles, len(titles) if classes else None),
    )
    held_out = held_out_by_class(artifacts, samples.shape[1])
    if held_out.shape[1]:  # a tiny data set may have no held-out image of some class
        yield Exhibit(
            "held_out.png",
            "Held-out data, to compare",
            f"The first {held_out.shape[0] * held_out.shape[1]} images of the data that no training has seen"
            f"{': synthetic ones, and marked as such' if artifacts.synthetic else ''}.",
            f"Grid of {held_out.shape[0] * held_out.shape[1]} held-out images{rows}.",
            encode_grid(held_out, titles, len(titles) if classes else None, artifacts.synthetic),
        )
    yield comparison_exhibit(artifacts, settings)


def comparison_exhibit(artifacts: RungArtifacts, settings: Figures) -> Exhibit:
    """comparison.png: what the two samplers make of the same noise."""
    classes = artifacts.classes
    sets = [
        by_class(samples, classes, settings.samples // COMPARED_SHARE)
        for samples in (artifacts.samples, artifacts.comparison)
    ]
    count = min(part.shape[1] for part in sets)
    pairs = torch.stack([part[:, :count] for part in sets], dim=1)  # (classes, 2, n, ...)
    samplers = [exhibit.sampler_title(facts) for facts in (artifacts.sampler, artifacts.comparison_sampler)]
    short = [title.split(",")[0].removeprefix("diffusers ") for title in samplers]
    if len(classes) > count:
        (figure, layout), switched = class_columns(pairs, classes, short), []
    else:
        titles = [f"{name}, {sampler}" if name else sampler for name in classes or [""] for sampler in short]
        (figure, layout), switched = grid(pairs.flatten(0, 1), titles, together=2), classes
    return Exhibit(
        "comparison.png",
        "Two samplers, the same noise",
        f"Each pair starts from the same noise: above {samplers[0]}, below {samplers[1]}. Likeness within a pair is "
        "what the noise alone decides; the rest comes from the path.",
        f"Grid of {2 * count * max(1, len(classes))} generated images in pairs, {short[0]} above {short[1]}.",
        encoding.encode_samples(canvas.rasterise(figure)),
        film(comparison_scenes(samplers, switched, layout), settings.frames_per_second, "first"),
    )


def class_columns(pairs: Tensor, classes: Sequence[str], samplers: Sequence[str]) -> tuple[Figure, mosaic.MosaicLayout]:
    """Few images of each of many classes: a column for each class, (classes, 2, n, ...) pairs below each other."""
    rows = pairs.transpose(0, 2).flatten(0, 1)  # (2 n, classes, channels, h, w)
    scale, titles = mosaic.scale_of(rows), [*samplers] * pairs.shape[2]
    return mosaic.mosaic(rows, scale, titles, classes, 2), mosaic.layout_of(rows, scale, titles, classes, 2)


def comparison_scenes(samplers: Sequence[str], classes: Sequence[str], layout: mosaic.MosaicLayout) -> list[Scene]:
    """The samples of one sampler (and one class) alone, in the same places: rows of a grid of pairs, block by block."""
    names = classes or [""]
    every = 2 * len(names)
    return [
        tiles_scene(
            {"Sampler": sampler} | ({"Class": name} if name else {}),
            [],
            {"samples": range(2 * label + which, layout.rows, every)},
            "comparison.png",
            layout,
        )
        for which, sampler in enumerate(samplers)
        for label, name in enumerate(names)
    ]


def exhibits(artifacts: RungArtifacts, settings: Figures) -> Iterator[Exhibit]:
    """The samples of a rung, beside data and beside the comparison's."""
    draw = points_exhibits if artifacts.is_points else image_exhibits
    return draw(artifacts, settings)
