"""Portraits that the user has: parquet files, or a folder with a folder of images for each class."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.files import copy_file
from diffusion_ladder.data.portraits.portrait_table import FILE_NAME, open_portraits, rows_writer
from diffusion_ladder.data.user_paths import as_text, expand_home, is_pattern, matching_files, printable, where_else
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import FOLDER_COLUMN, ImagefolderSource, ParquetSource

SOURCES = "sources"
MOST_BYTES = 1 << 30  # of one image file, which is in memory as a whole
SHOWN_FILES = 8  # of those that a pattern matches


def fetch_parquet(settings: ParquetSource, folder: Path) -> dict[str, Any]:
    """Copy the parquet files that the user names.

    Raises:
        UserError: there is no such file, one has no column image, or their content is not the expected one.
    """
    shards = find_shards(settings.path)
    card = adopt(shards, folder, source="parquet", title=as_text(shards[0].stem), origin=describe_shards(shards))
    check_content(f"{SOURCES}.parquet.sha256", settings.sha256, card)
    return card


def find_shards(path: str | list[str] | None) -> list[Path]:
    """The parquet files that a parameter names, in its order; those of a folder or a pattern by name.

    Raises:
        UserError: there is no such file, or one is named twice, so that its rows would count twice.
    """
    key = f"{SOURCES}.parquet.path"
    found: dict[str, Path] = {}
    for entry in [path] if isinstance(path, str) else path or []:
        shards = matching_files(entry, ".parquet")
        if not shards:
            raise UserError(f"{key}: {describe_missing(entry)}{where_else(entry)}")
        if os.path.isdir(expand_home(entry)):
            tell_of_deeper(entry, shards)
        for shard in shards:
            if (place := os.path.realpath(shard)) in found:
                raise UserError(f"{key}: {printable(entry)} names {printable(shard)} once more: name each file once")
            found[place] = shard
    if not found:
        raise UserError(f"{key}: name a parquet file, or several, with the column image and one of labels")
    return list(found.values())


def deeper(folder: str) -> str:
    """The pattern of the parquet files in a folder and in all below it."""
    return os.path.join(folder, "**", "*.parquet")


def tell_of_deeper(folder: str, shards: Sequence[Path]) -> None:
    """Say how many parquet files lie in folders below one that was named, whose own files alone are taken."""
    if left_out := len({*matching_files(deeper(folder), ".parquet")} - {*shards}):
        print(
            f"{printable(folder)}: {left_out} more in folders below it; to take these, too: {printable(deeper(folder))}"
        )


def describe_missing(path: str) -> str:
    """Why a path means no parquet file."""
    whole = expand_home(path)
    if os.path.isdir(whole):
        return (
            f"there is no file *.parquet in the folder {printable(path)}; those in folders below it:"
            f" {printable(deeper(path))}"
        )
    if is_pattern(path):
        return f"there is no file {printable(path)}, by that name or as a pattern"
    return f"there is no file {printable(whole)}"


def describe_shards(shards: Sequence[Path]) -> str:
    """Names for the card; the folders that they lie in are the user's own business."""
    first, last = as_text(shards[0].name), as_text(shards[-1].name)
    return f"a local file, {first}" if len(shards) == 1 else f"{len(shards)} local files, {first} to {last}"


def adopt(shards: Sequence[Path], folder: Path, **facts: Any) -> dict[str, Any]:
    """Check somebody's parquet files and copy them as they are; the raw card."""
    counts = []
    for shard in shards:
        with open_portraits(shard) as table:
            counts.append(table.metadata.num_rows)
    files, rows = (
        f"{each:,} {name}{'s' * (each != 1)}" for each, name in ((len(shards), "file"), (sum(counts), "row"))
    )
    print(f"{files}, {rows}: {list_shards(shards, counts)}", flush=True)
    names = [FILE_NAME] if len(shards) == 1 else [f"portraits-{index:05d}.parquet" for index in range(len(shards))]
    targets = [folder / name for name in names]
    for shard, target in zip(shards, targets, strict=True):
        copy_file(shard, target)
    return raw_card(folder, targets, rows=sum(counts), synthetic=False, **facts)


def list_shards(shards: Sequence[Path], counts: Sequence[int]) -> str:
    """Files with their rows; of very many, the first and the last."""
    lines = [f"{printable(shard)} ({count:,})" for shard, count in zip(shards, counts, strict=True)]
    return ", ".join(lines if len(lines) <= SHOWN_FILES else [*lines[: SHOWN_FILES - 1], "...", lines[-1]])


def fetch_folder(settings: ImagefolderSource, folder: Path) -> dict[str, Any]:
    """Pack a folder of images into one parquet file, with the names of the classes' folders in the column `folder`.

    Raises:
        UserError: there is no such folder, it holds no folder of a class, something in it is a symbolic link, or its
            content is not the expected one.
    """
    import pyarrow

    root = check_folder(settings.path)
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image), (FOLDER_COLUMN, pyarrow.string())])
    target, files = folder / FILE_NAME, files_of_classes(root)
    with rows_writer(target, schema) as rows:
        for path in tqdm(files, unit=" files", desc="pack"):
            name = path.relative_to(root)
            label = as_text(name.parts[0]) if len(name.parts) > 1 else None
            rows.add({"bytes": content_of(path), "path": as_text(name)}, label)
    title = as_text(root.resolve().name)
    card = raw_card(
        folder, [target], source="imagefolder", title=title, rows=len(files), synthetic=False, origin="a local folder"
    )
    check_content(f"{SOURCES}.imagefolder.sha256", settings.sha256, card)
    return card


def check_folder(path: str | None) -> Path:
    """The folder that a parameter names."""
    key = f"{SOURCES}.imagefolder.path"
    if not path:
        raise UserError(f"{key}: name a folder with a folder of images for each class")
    if not os.path.isdir(whole := expand_home(path)):
        raise UserError(f"{key}: there is no folder {printable(whole)}{where_else(path)}")
    return Path(whole)


def files_of_classes(root: Path) -> list[Path]:
    """Every file below a folder of folders of images, by name.

    Raises:
        UserError: as `files_below`; or none of them lies in a folder of its own.
    """
    files = sorted(files_below(root))
    if files and all(path.parent == root for path in files):
        raise UserError(
            f"{SOURCES}.imagefolder.path: {printable(root)} holds files, but no folder of them for each class: name the"
            " folder above it"
        )
    return files


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder, except hidden ones.

    Raises:
        UserError: a symbolic link, which could lead out of the folder, or something that is neither file nor folder.
    """
    try:
        entries = list(os.scandir(root))
    except OSError as error:
        raise UserError(f"{printable(root)} can't be read: {error.strerror}") from None
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            raise UserError(
                f"{printable(path)} is a symbolic link, which could lead anywhere: put the file itself there"
            )
        if entry.is_dir():
            yield from files_below(path)
        elif entry.is_file():
            yield path
        else:
            raise UserError(f"{printable(path)} is neither a file nor a folder")


def content_of(path: Path) -> bytes:
    """The bytes of a file that should be an image.

    Raises:
        UserError: it can't be read, or is larger than any image.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{printable(path)} has {size:,} bytes, more than any image: take it out of the folder")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{printable(path)} can't be read: {error.strerror}") from None


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
