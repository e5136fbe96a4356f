"""The films beside the report's pictures: their switches for the page's markup, and their content for its script."""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Film:
    """What a player of the page shows.

    Attributes:
        name: unique in the page, for ids.
        folder: of the sheets that it is cut out of, relative to reports/.
        content: as figures/film.py writes it.
    """

    name: str
    folder: str
    content: dict[str, Any]

    @property
    def switches(self) -> dict[str, list[str]]:
        """Name of each switch to its options, in the order of the scenes."""
        options: dict[str, dict[str, None]] = {}
        for scene in self.content["scenes"]:
            for switch, option in scene["choices"].items():
                options.setdefault(switch, {})[option] = None
        return {switch: list(found) for switch, found in options.items()}

    @property
    def frames(self) -> int:
        """Frames of the first scene; 0 for a film that stands still."""
        return len(self.content["scenes"][0]["timesteps"])

    @property
    def starts_at(self) -> int:
        """The frame that is shown first."""
        return max(0, self.frames - 1) if self.content["start"] == "last" else 0

    @property
    def sheets(self) -> list[str]:
        """The pictures that it is cut out of, relative to reports/."""
        found = [scene["sheet"] for scene in self.content["scenes"] if "sheet" in scene]
        return [f"{self.folder}{sheet}" for sheet in dict.fromkeys(found)]

    @property
    def json(self) -> Markup:
        """The content for a script element: nothing in it can end the element."""
        return Markup(json.dumps(self.content, separators=(",", ":")).replace("<", "\\u003c"))


def film_of(root: Path, picture: str) -> Film | None:
    """The film beside a picture of a path relative to root/reports, if there is one."""
    path = PurePosixPath(picture).with_suffix(".film.json")
    file = root / "reports" / path
    if not file.is_file():
        return None
    name = re.sub(r"\W+", "-", str(PurePosixPath(picture).with_suffix("")))
    return Film(name, f"{path.parent}/", json.loads(file.read_text(encoding="utf-8")))
