"""Portraits that the user has: parquet files, or a folder with a folder of images for each class."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.files import copy_file
from diffusion_ladder.data.portrait_table import FILE_NAME, open_portraits, rows_writer
from diffusion_ladder.errors import UserError
from diffusion_ladder.params.datasets import FOLDER_COLUMN, ImagefolderSource, ParquetSource

SOURCES = "sources"


def fetch_parquet(settings: ParquetSource, folder: Path) -> dict[str, Any]:
    """Copy the parquet files that the user names.

    Raises:
        UserError: there is no such file, one has no column image, or their content is not the expected one.
    """
    shards = find_shards(settings.path)
    card = adopt(shards, folder, source="parquet", title=shards[0].stem, origin=describe_shards(shards))
    check_content(f"{SOURCES}.parquet.sha256", settings.sha256, card)
    return card


def find_shards(path: str | list[str] | None) -> list[Path]:
    """The parquet files that a parameter names, in its order; those of a folder or a pattern by name."""
    key = f"{SOURCES}.parquet.path"
    found: list[Path] = []
    for entry in [path] if isinstance(path, str) else path or []:
        pattern = os.path.join(glob.escape(entry), "*.parquet") if os.path.isdir(entry) else entry
        matches = [Path(entry)] if os.path.isfile(entry) else sorted(map(Path, glob.glob(pattern)))
        if not matches:
            raise UserError(f"{key}: there is no file {pattern}")
        found += matches
    if not found:
        raise UserError(f"{key}: name a parquet file, or several, with the column image and one of labels")
    return found


def describe_shards(shards: Sequence[Path]) -> str:
    """Names for the card; the folders that they lie in are the user's own business."""
    if len(shards) == 1:
        return f"a local file, {shards[0].name}"
    return f"{len(shards)} local files, {shards[0].name} to {shards[-1].name}"


def adopt(shards: Sequence[Path], folder: Path, **facts: Any) -> dict[str, Any]:
    """Check somebody's parquet files and copy them as they are; the raw card."""
    rows = 0
    for shard in shards:
        with open_portraits(shard) as table:
            rows += table.metadata.num_rows
    names = [FILE_NAME] if len(shards) == 1 else [f"portraits-{index:05d}.parquet" for index in range(len(shards))]
    targets = [folder / name for name in names]
    for shard, target in zip(shards, targets, strict=True):
        copy_file(shard, target)
    return raw_card(folder, targets, rows=rows, synthetic=False, **facts)


def fetch_folder(settings: ImagefolderSource, folder: Path) -> dict[str, Any]:
    """Pack a folder of images into one parquet file, with the names of the classes' folders in the column `folder`.

    Raises:
        UserError: there is no such folder, something in it is a symbolic link, or its content is not the expected one.
    """
    import pyarrow

    root = check_folder(settings.path)
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image), (FOLDER_COLUMN, pyarrow.string())])
    target, count = folder / FILE_NAME, 0
    with rows_writer(target, schema) as rows:
        for path in tqdm(sorted(files_below(root)), unit=" files", desc="pack"):
            name = path.relative_to(root)
            label = name.parts[0] if len(name.parts) > 1 else None
            rows.add({"bytes": path.read_bytes(), "path": name.as_posix()}, label)
            count += 1
    title = root.resolve().name
    card = raw_card(
        folder, [target], source="imagefolder", title=title, rows=count, synthetic=False, origin="a local folder"
    )
    check_content(f"{SOURCES}.imagefolder.sha256", settings.sha256, card)
    return card


def check_folder(path: str | None) -> Path:
    """The folder that a parameter names."""
    key = f"{SOURCES}.imagefolder.path"
    if path is None:
        raise UserError(f"{key}: name a folder with a folder of images for each class")
    if not Path(path).is_dir():
        raise UserError(f"{key}: there is no folder {path}")
    return Path(path)


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder, except hidden ones.

    Raises:
        UserError: a symbolic link, which could lead out of the folder, or something that is neither file nor folder.
    """
    for entry in os.scandir(root):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            raise UserError(f"{path} is a symbolic link, which could lead anywhere: put the file itself there")
        if entry.is_dir():
            yield from files_below(path)
        elif entry.is_file():
            yield path
        else:
            raise UserError(f"{path} is neither a file nor a folder")


def check_content(key: str, expected: str | None, card: dict[str, Any]) -> None:
    """Compare the SHA-256 of the files that a card lists (of several: of their SHA-256 sums, a line each).

    Raises:
        UserError: it is not the expected one.
    """
    sums = [file["sha256"] for file in card["files"]]
    found = sums[0] if len(sums) == 1 else hashlib.sha256("".join(f"{line}\n" for line in sums).encode()).hexdigest()
    if expected is None:
        print(f"SHA-256 of the content: {found} (as {key}, it makes a change of the content known)")
    elif found != expected:
        raise UserError(f"{key}: expected {expected}, but the content has {found}")
