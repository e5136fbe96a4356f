"""The figures of the report: what captions.json says of them, and the files themselves."""

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from diffusion_ladder.foundation.artifacts import read_json

REPORTS = Path("reports")
MEDIA_TYPES = {"PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif", "JPEG": "image/jpeg"}
EMBEDDED_BYTES = 5_400_000  # of pictures in base64; with the rest, which is far smaller, the page stays under 6 MB


@dataclass(frozen=True)
class Picture:
    """A figure: what captions.json says, and the file itself.

    Attributes:
        path: relative to reports/.
        command: what draws it again, and nothing else, from the artifacts at hand.
        data: the file's bytes.
    """

    path: str
    command: str
    title: str
    caption: str
    alt: str
    media_type: str
    width: int
    height: int
    animated: bool
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.path).stem

    @property
    def embedded_length(self) -> int:
        """Characters of the data URI's payload."""
        return 4 * math.ceil(len(self.data) / 3)

    @property
    def data_uri(self) -> str:
        """The file within a URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def pictures_in(folder: Path, root: Path, command: str) -> list[Picture]:
    """The figures that a command draws into a folder below root/reports, in the order of captions.json."""
    captions = folder / "captions.json"
    if not captions.is_file():
        return []
    return [read_picture(folder / entry["file"], root, command, entry) for entry in read_json(captions)]


def read_picture(path: Path, root: Path, command: str, entry: Mapping[str, str]) -> Picture:
    """One figure and its entry in captions.json."""
    with Image.open(path) as image:
        (width, height), media_type = image.size, MEDIA_TYPES[str(image.format)]
        animated = getattr(image, "n_frames", 1) > 1
    return Picture(
        path=path.relative_to(root / REPORTS).as_posix(),
        command=command,
        title=entry["title"],
        caption=entry["caption"],
        alt=entry["alt"],
        media_type=media_type,
        width=width,
        height=height,
        animated=animated,
        data=path.read_bytes(),
    )


def embedded_pictures(pictures: Iterable[Picture], budget: int = EMBEDDED_BYTES) -> set[str]:
    """The paths of the pictures that fit into the page, in the order of the ladder."""
    chosen: set[str] = set()
    for picture in pictures:
        if picture.embedded_length <= budget:
            budget -= picture.embedded_length
            chosen.add(picture.path)
    return chosen
