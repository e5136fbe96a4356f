"""Points of the plane, drawn: crowds, the tracked point and its path, sheets of panels, frames of an animation."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from diffusion_ladder.figures import canvas, encoding, palette
from diffusion_ladder.figures.ways import Way

LIMIT = 3.4  # points are shown up to so many standard deviations from the mean
SHEET_ROWS = 5  # of a contact sheet
PANEL, LARGE_PANEL, ANIMATED_PANEL = 104, 262, 256  # sides in pixels
TRACKED_INDEX = 0  # the first point: nobody chose it
ANIMATED_POINTS = 300  # at most: each moving point costs bytes


def frame_plane(axes: Axes, ticks: bool = False) -> None:
    """Equal limits in standard deviations; ticks only where they are asked for."""
    marks = range(-3, 4) if ticks else []
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=marks, yticks=marks)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def show_crowd(axes: Axes, points: Tensor, size: float, colour: str = palette.CROWD) -> Line2D:
    """Draw (N, 2) points small and muted."""
    return axes.plot(*points.T, linestyle="none", marker="o", ms=size, mew=0, color=colour)[0]


def show_tracked(axes: Axes, place: Tensor, size: float, colour: str = palette.TRACKED) -> Line2D:
    """Draw one point (2,) large, outlined and above all others."""
    look: dict[str, Any] = {"mfc": colour, "mec": palette.TRACKED_EDGE, "mew": 1.2, "zorder": 5, "clip_on": False}
    return axes.plot(*place.view(2, 1), linestyle="none", marker="o", ms=size, **look)[0]


def crowds(labels: Tensor | None) -> list[tuple[Any, str]]:
    """The members and the colour of each class of points with labels (N,); without labels, of all."""
    if labels is None:
        return [(slice(None), palette.CROWD)]
    return [(labels == label, colour) for label, colour in enumerate(palette.CLASS_COLOURS.values())]


def show_points(axes: Axes, points: Tensor, size: float, labels: Tensor | None = None) -> tuple[list[Line2D], Line2D]:
    """Draw (N, 2) standardised points: a crowd of each class, and the tracked one."""
    drawn = [show_crowd(axes, points[members], size, colour) for members, colour in crowds(labels)]
    return drawn, show_tracked(axes, points[TRACKED_INDEX], 3 + 2.5 * size)


def show_path(axes: Axes, path: Tensor, crowd: Tensor) -> None:
    """Draw (F, 2) places of the tracked point above a faint crowd (N, 2): from a hollow mark to a filled one."""
    show_crowd(axes, crowd, 2, palette.RULE)
    axes.plot(*path.T, color=palette.TRAIL)
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
    figure = canvas.blank(columns * step_x + LARGE_PANEL + 84, SHEET_ROWS * step_y + 10)
    sheet_left, large_left = (LARGE_PANEL + 80, 56) if clean_first else (6, columns * step_x + 70)
    for index, (points, t) in enumerate(zip(states, timesteps, strict=True)):
        row, column = divmod(index, columns)
        small_panel(figure, sheet_left + column * step_x, 20 + row * step_y, points, f"t = {t}", labels)
    path = torch.cat([clean[None], states] if clean_first else [states, clean[None]])[:, TRACKED_INDEX]
    large_panels(figure, large_left, clean, clean_title, path, labels)
    return figure


def small_panel(figure: Figure, left: float, top: float, points: Tensor, title: str, labels: Tensor | None) -> None:
    """One panel of a sheet of points."""
    axes = canvas.place_axes(figure, left, top, PANEL, PANEL)
    axes.set_title(title, size=canvas.SMALL_TEXT_SIZE, pad=2)
    frame_plane(axes)
    show_points(axes, points, 1.8, labels)


def large_panels(
    figure: Figure, left: float, clean: Tensor, clean_title: str, path: Tensor, labels: Tensor | None
) -> None:
    """The two large panels of a contact sheet, with the axes that all of its panels share."""
    upper = canvas.place_axes(figure, left, 20, LARGE_PANEL, LARGE_PANEL)
    lower = canvas.place_axes(figure, left, 46 + LARGE_PANEL, LARGE_PANEL, LARGE_PANEL)
    show_points(upper, clean, 2.4, labels)
    show_path(lower, path, clean)
    for axes, title in ((upper, clean_title), (lower, "path of the green point")):
        frame_plane(axes, ticks=True)
        axes.set_title(title, pad=4)
        axes.set_ylabel("2nd coordinate (std. deviations)", size=canvas.SMALL_TEXT_SIZE, labelpad=2)
    upper.set_xticklabels([])
    lower.set_xlabel("1st coordinate (standard deviations)", size=canvas.SMALL_TEXT_SIZE, labelpad=2)


def prediction_sheet(way: Way) -> Figure:
    """Noisy points above the clean points that the network predicts from them: (F, N, 2) each, standardised."""
    timesteps = way.timesteps
    step = PANEL + 6
    figure = canvas.blank(96 + len(timesteps) * step, 2 * step + 24)
    for row, (title, sequence) in enumerate((("noisy\n$x_t$", way.states), ("predicted\n$x_0$", way.predicted))):
        top = 20 + row * step
        canvas.place_text(figure, 84, top + PANEL / 2, title, ha="right", va="center", parse_math=True)
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
    figure = canvas.blank(len(panels) * (side + 8) + 8, side + 36)
    artists = []
    for index, points in enumerate(panels.values()):
        axes = canvas.place_axes(figure, 8 + index * (side + 8), 28, side, side)
        frame_plane(axes)
        trail = axes.plot([], [], color=palette.TRAIL, lw=2, zorder=4)[0]
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
        yield palette.with_palette(canvas.rasterise(figure), points_palette(labels))


def points_palette(labels: Tensor | None) -> list[palette.Colour]:
    """The colours of a figure of points, whose classes are told apart or not."""
    return palette.POINTS_PALETTE if labels is None else palette.CLASSES_PALETTE


def encode_sheet(figure: Figure, labels: Tensor | None = None) -> bytes:
    """PNG of a figure of points."""
    return encoding.encode_png(palette.with_palette(canvas.rasterise(figure), points_palette(labels)))
