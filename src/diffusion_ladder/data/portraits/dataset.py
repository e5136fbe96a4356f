"""Portraits with a label: drawn, from the hub, or the user's own; and how they become square images."""

import contextlib
import io
import json
import math
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.portraits.decoding import decode_image, to_pixels, to_square
from diffusion_ladder.data.portraits.drawn_portraits import (
    Portrait,
    check_options,
    draw_portraits,
    plan_portraits,
    style_facts,
)
from diffusion_ladder.data.portraits.hub import fetch_from_hub
from diffusion_ladder.data.portraits.local_portraits import fetch_folder, fetch_parquet
from diffusion_ladder.data.portraits.parallel import map_in_order
from diffusion_ladder.data.portraits.portrait_table import (
    FILE_NAME,
    FILTERED,
    PARQUET_OPTIONS,
    filter_raw,
    filtered_batches,
)
from diffusion_ladder.data.split import Splits, count_duplicates, in_test, refuse_empty_split, row_number
from diffusion_ladder.foundation.artifacts import StoredTensor, write_bytes
from diffusion_ladder.params.datasets import (
    DicebearSource,
    HubSource,
    ImagefolderSource,
    ParquetSource,
    PortraitsPreprocess,
)

# The columns of ashraq/tmdb-celeb-10k, with the names that the library datasets gives their types.
COLUMNS = {
    "adult": "bool",
    "also_known_as": "string",
    "biography": "string",
    "birthday": "string",
    "deathday": "string",
    "gender": "int64",
    "homepage": "string",
    "id": "int64",
    "imdb_id": "string",
    "known_for_department": "string",
    "name": "string",
    "place_of_birth": "string",
    "popularity": "float64",
    "profile_path": "string",
    "image": "Image",
}
ROW_GROUP_ROWS = 500
SOURCES = {"dicebear": DicebearSource, "hub": HubSource, "parquet": ParquetSource, "imagefolder": ImagefolderSource}
PREPROCESS = PortraitsPreprocess


def fetch(
    source: str,
    settings: DicebearSource | HubSource | ParquetSource | ImagefolderSource,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Write parquet files to FOLDER: drawn (dicebear), downloaded and verified (hub), copied or packed (local ones).

    Returns:
        the raw card, which lists the files.

    Raises:
        UserError: the source can't be had, or is not what it should be.
    """
    if isinstance(settings, DicebearSource):
        return fetch_drawn(settings, seed, folder)
    if isinstance(settings, HubSource):
        return fetch_from_hub(settings, folder)
    if isinstance(settings, ParquetSource):
        return fetch_parquet(settings, folder)
    return fetch_folder(settings, folder)


def fetch_drawn(settings: DicebearSource, seed: int, folder: Path) -> dict[str, Any]:
    """Draw the portraits, into the same columns as ashraq/tmdb-celeb-10k has."""
    check_options(settings)
    portraits = plan_portraits(settings, seed)
    path = folder / FILE_NAME
    write_bytes(path, portraits_as_parquet(portraits, list(draw_portraits(portraits))))
    return raw_card(
        folder,
        [path],
        source="dicebear",
        title=f"Portraits drawn with DiceBear, style {settings.style}",
        rows=len(portraits),
        synthetic=True,
        parameters=settings.model_dump(mode="json"),
        **style_facts(settings.style),
    )


def portraits_as_parquet(portraits: list[Portrait], pictures: list[bytes]) -> bytes:
    """The table of drawn portraits as a parquet file: the same rows give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    types = {name: image if kind == "Image" else pyarrow.type_for_alias(kind) for name, kind in COLUMNS.items()}
    features = {
        name: {"_type": "Image"} if kind == "Image" else {"dtype": kind, "_type": "Value"}
        for name, kind in COLUMNS.items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}  # so that datasets shows images as images
    rows = [portrait_row(portrait, picture) for portrait, picture in zip(portraits, pictures, strict=True)]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(types.items(), metadata=metadata))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=ROW_GROUP_ROWS, **PARQUET_OPTIONS)
    return buffer.getvalue()


def portrait_row(portrait: Portrait, picture: bytes) -> dict[str, Any]:
    """One row; what a drawn portrait has no value for is left out, and becomes null."""
    return {
        "adult": False,
        "also_known_as": "[]",
        "gender": portrait.gender,
        "id": portrait.number,
        "known_for_department": "Drawing",
        "name": f"Portrait {portrait.number:05d}",
        "popularity": portrait.popularity,
        "image": {"bytes": picture, "path": f"portrait_{portrait.number:05d}.png"},
    }


@contextlib.contextmanager
def kept_rows(raw: Path, interim: Path, settings: PortraitsPreprocess) -> Iterator[Path]:
    """The folder of the rows that are kept: what a stage has filtered, or what is filtered now, for as long."""
    if (interim / FILTERED).is_dir():
        yield interim / FILTERED
        return
    folder = interim.with_name(f".{interim.name}.{FILTERED}")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        filter_raw(raw, folder, settings)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def preprocess(folder: Path, settings: PortraitsPreprocess) -> Splits:
    """Decode, crop to a square, resize, and split by the pixels' hash; a stream by all cores.

    Args:
        folder: what filter_gender wrote: a parquet file with the columns image and label.

    Returns:
        train and test as uint8 (N, channels, image_size, image_size), stored on the disk; the facts describe the
        pictures before.
    """
    train, test, sizes = Part(folder), Part(folder), Sizes(settings)
    for squares in map_in_order(partial(squares_of, settings=settings), filtered_batches(folder / FILE_NAME)):
        for square in squares:
            (test if in_test(square.number, settings.test_fraction) else train).add(square)
            sizes.add(*square.size)
    return splits_of(train, test, settings, sizes.facts())


@dataclass(frozen=True)
class Square:
    """A preprocessed portrait.

    Attributes:
        pixels: uint8 (channels, image_size, image_size).
        number: the pixels' hash, which decides about its split.
        size: (width, height) as it came.
    """

    pixels: numpy.ndarray
    label: int
    number: int
    size: tuple[int, int]


def squares_of(rows: list[tuple[bytes, int]], settings: PortraitsPreprocess) -> list[Square]:
    """Preprocess some rows of what filter_gender kept."""
    squares = []
    for data, label in rows:
        picture = decode_image(data, settings.max_pixels)
        pixels = to_pixels(to_square(picture, settings.image_size, settings.crop), settings.channels)
        squares.append(Square(pixels, label, row_number(pixels), picture.size))
    return squares


class Part:
    """A split that grows: its pixels in an unnamed file in a folder, which vanishes with the process."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.labels = array("q")
        self.numbers = array("Q")

    def add(self, square: Square) -> None:
        """Add a row."""
        self.file.write(square.pixels.tobytes())
        self.labels.append(square.label)
        self.numbers.append(square.number)

    def tensor(self, shape: Sequence[int]) -> StoredTensor:
        """The pixels, uint8 (N, *shape)."""
        return StoredTensor(self.file, torch.uint8, (len(self.labels), *shape))


def splits_of(train: Part, test: Part, settings: PortraitsPreprocess, facts: dict[str, Any]) -> Splits:
    """What has grown, as a data set."""
    refuse_empty_split(len(test.labels), len(train.labels), settings.test_fraction)
    shape = (settings.channels, settings.image_size, settings.image_size)
    return Splits(
        train=train.tensor(shape),
        test=test.tensor(shape),
        train_labels=torch.tensor(train.labels, dtype=torch.int64),
        test_labels=torch.tensor(test.labels, dtype=torch.int64),
        class_names=settings.class_names,
        normalisation=IMAGES,
        duplicates=count_duplicates(numpy.array(train.numbers), numpy.array(test.numbers)),
        facts={"pictures": facts},
    )


class Sizes:
    """Collects the pictures' (width, height) as they came."""

    def __init__(self, settings: PortraitsPreprocess) -> None:
        self.settings = settings
        self.smallest: tuple[int, int] | None = None
        self.largest: tuple[int, int] | None = None
        self.changed = Counter({"cropped": 0, "shrunk": 0, "enlarged": 0})

    def add(self, width: int, height: int) -> None:
        """Add a picture's size."""
        size, side = (width, height), min(width, height)
        self.smallest = min(self.smallest or size, size, key=math.prod)
        self.largest = max(self.largest or size, size, key=math.prod)
        self.changed["cropped"] += width != height
        self.changed["shrunk"] += side > self.settings.image_size
        self.changed["enlarged"] += side < self.settings.image_size

    def facts(self) -> dict[str, Any]:
        """What was done to the pictures, for the data card."""
        return {
            "smallest": list(self.smallest or ()),
            "largest": list(self.largest or ()),
            "crop": self.settings.crop,
            "image_size": self.settings.image_size,
            **self.changed,
        }
