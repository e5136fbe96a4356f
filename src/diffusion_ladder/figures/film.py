"""Films: what the report's players show beside a still picture, as JSON that a small script in the page plays.

A film has scenes, one for each combination of its switches (such as sampler and class); a scene has panels that are
shown side by side, and timesteps that a slider runs over. A panel of points carries its coordinates; a panel of images
names rows of tiles in the scene's sheet, which is the still picture itself, so that nothing is stored twice.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diffusion_ladder.figures.mosaic import MosaicLayout

REACH = 3.5  # coordinates are stored up to so many standard deviations; points farther out lie on the frame
POINTS = 180  # of a film, at most: each costs two bytes a frame

Scene = dict[str, Any]


def points_panel(title: str, points: Tensor) -> dict[str, Any]:
    """A panel of moving points, of which the first are kept: (F, N, 2) standardised, in steps of 2 REACH / 255."""
    steps = ((points[:, :POINTS].clamp(-REACH, REACH) + REACH) * (255 / (2 * REACH))).round().byte()  # (F, n, 2)
    return {
        "title": title,
        "count": steps.shape[1],
        "points": base64.b64encode(steps.numpy().tobytes()).decode("ascii"),
    }


def points_scene(choices: Mapping[str, str], timesteps: Sequence[int], panels: Mapping[str, Tensor]) -> Scene:
    """A scene of moving points: title to (F, N, 2) standardised points, and the F timesteps."""
    shown = [points_panel(title, points) for title, points in panels.items()]
    return {"choices": dict(choices), "timesteps": list(timesteps), "panels": shown}


def tiles_scene(
    choices: Mapping[str, str],
    timesteps: Sequence[int],
    panels: Mapping[str, Sequence[int]],
    sheet: str,
    layout: MosaicLayout,
) -> Scene:
    """A scene cut out of a still picture.

    Args:
        choices: name of each switch to the option that this scene is for.
        timesteps: of the sheet's columns, which are the frames; empty where all columns are shown at once.
        panels: title to the rows of the sheet that a panel shows.
        sheet: file of the still picture.
        layout: of its tiles.
    """
    return {
        "choices": dict(choices),
        "timesteps": list(timesteps),
        "panels": [{"title": title, "rows": list(rows)} for title, rows in panels.items()],
        "sheet": sheet,
        "x": [layout.corner(0, column)[0] for column in range(layout.columns)],
        "y": [layout.corner(row, 0)[1] for row in range(layout.rows)],
        "tile": [layout.tile_width, layout.tile_height],
    }


def film(scenes: Sequence[Scene], frames_per_second: int, start: str) -> bytes:
    """The film as JSON; `start` says which end is shown at first: "first" or "last"."""
    content = {"frames_per_second": frames_per_second, "start": start, "scenes": list(scenes)}
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8")
