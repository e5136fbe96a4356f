"""Tables of portraits in parquet files: their checks, and the filter by label, which streams them."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.data.portraits.arrow_columns import (
    Image,
    holds_images,
    holds_labels,
    images_of,
    plain_label,
    values_of,
)
from diffusion_ladder.data.portraits.decoding import UndecodableImageError, decode_image
from diffusion_ladder.data.portraits.labels import Label, explain_lookalikes, lookalikes, told_apart, written
from diffusion_ladder.data.portraits.parallel import map_in_order
from diffusion_ladder.data.user_paths import one_line, printable
from diffusion_ladder.foundation.artifacts import read_json, replacing, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import LabelFilter

FILE_NAME = "portraits.parquet"
FILTERED = "filtered"  # the folder below data/interim/DATASET for what a stage of its own has kept
DROPPED_FILE = "dropped.tsv"
BATCH_ROWS = 16  # read and handled as one: few, because an image can have megabytes
# Read ahead a little of each column, instead of whole row groups, whose size others choose; pyarrow's own pre-buffering
# would keep all that has been read.
READING: dict[str, Any] = {"buffer_size": 1 << 20, "pre_buffer": False}
GROUP_ROWS, GROUP_BYTES = 500, 1 << 25  # of a row group that is written, at most
SHOWN_VALUES = 20  # of a label column, in messages and cards
SHOWN_ROWS = 20  # of those with an unusable image, in the card
# Pinned, so that equal rows give equal files; images are compressed already.
PARQUET_OPTIONS = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "NONE",
    "use_dictionary": False,
    "write_statistics": False,
}


@dataclass(frozen=True)
class Row:
    """A row that has been looked at.

    Attributes:
        value: of the label column; None where it is missing.
        reason: why it is dropped; None where it is kept.
        unusable: dropped although its label is wanted, because of its image.
    """

    image: bytes
    value: Label | None
    reason: str | None
    unusable: bool = False
    path: Any = None  # what the table calls an unusable image


@dataclass
class FilterCounts:
    """What a filter did: rows read, rows dropped by reason, rows kept by class, and where unusable images were."""

    kept: dict[int, int]
    rows_in: int = 0
    values: Counter[Label | None] = field(default_factory=Counter)  # of the label column, in all rows
    dropped_values: Counter[str] = field(default_factory=Counter)  # reasons, by value of the label column
    dropped_images: Counter[str] = field(default_factory=Counter)  # reasons, where the label was wanted
    unusable_rows: list[dict[str, Any]] = field(default_factory=list)  # the first SHOWN_ROWS

    @property
    def unusable(self) -> int:
        """Rows with a wanted label and an image that can't be used."""
        return self.dropped_images.total()

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by reason; rare values of a label column that has very many are counted as one."""
        common = dict(self.dropped_values.most_common(SHOWN_VALUES))
        others = self.dropped_values.total() - sum(common.values())
        return common | ({"other labels": others} if others else {}) | dict(self.dropped_images)

    def card(self, settings: LabelFilter) -> dict[str, Any]:
        """The data card's part about the filter."""
        return {
            "label_column": settings.label_column,
            "labels": {written(value): index for value, index in settings.labels.items()},
            "rows_in": self.rows_in,
            "kept": self.kept,
            "dropped": self.dropped,
            "unusable_rows": self.unusable_rows,
        }


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors into a UserError of one line that names the file."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{printable(path)}: can't be read as parquet ({one_line(error)})") from None


@contextlib.contextmanager
def open_portraits(path: Path, label_column: str | None = None) -> Iterator[Any]:
    """Open a parquet file with a column image (the bytes of image files) and one of labels, for pyarrow.

    The image is a binary column, or a struct with a binary field `bytes`, as the library datasets writes it.

    Args:
        label_column: numbers, text or booleans, in a dictionary or not; None if it doesn't matter yet.

    Yields:
        a pyarrow ParquetFile.

    Raises:
        UserError: the file is missing, is not parquet, is damaged, or has other columns.
    """
    import pyarrow.parquet

    with (
        reading(path),
        pyarrow.OSFile(os.fsencode(path)) as file,  # as bytes, because a name need not be UTF-8
        pyarrow.parquet.ParquetFile(file, **READING) as table,
    ):
        check_columns(path, table.schema_arrow, label_column)
        yield table


def check_columns(path: Path, schema: Any, label_column: str | None) -> None:
    """Refuse a schema without usable columns, and say which columns there are."""
    found = printable(", ".join(f"{field.name} ({field.type})" for field in schema))
    for name in ("image", label_column):
        if name is not None and schema.names.count(name) != 1:
            alike = "".join(f"; {told_apart(each, name, ' there', '')}" for each in lookalikes([name], schema.names))
            raise UserError(f"{printable(path)}: needs one column {printable(name)}, but has {found}{alike}")
    image = schema.field("image").type
    if not holds_images(image):
        raise UserError(
            f"{printable(path)}: the column image must hold the bytes of image files, but is {printable(str(image))}"
        )
    if label_column is not None and not holds_labels(label := schema.field(label_column).type):
        raise UserError(
            f"{printable(path)}: the column {printable(label_column)} must hold numbers or text, but is"
            f" {printable(str(label))}"
        )


def filter_raw(raw: Path, folder: Path, settings: LabelFilter) -> FilterCounts:
    """Write to a folder what is kept of data/raw/DATASET, and card.json with what was dropped and why."""
    card = read_json(raw / "card.json")
    counts = filter_portraits([raw / file["name"] for file in card["files"]], settings, folder)
    write_json(folder / "card.json", {**card, **counts.card(settings)})
    if alike := explain_lookalikes(settings.labels, counts.values):
        print(f"datasets.{card['dataset']}.preprocess.labels: {alike}", flush=True)
    return counts


def filter_portraits(shards: Sequence[Path], settings: LabelFilter, folder: Path) -> FilterCounts:
    """Keep the rows whose label has a class and whose image can be decoded, in their order; a stream by all cores.

    Args:
        folder: for portraits.parquet, with the columns image (binary: the image file's bytes, unchanged) and label
            (int64: the class), and dropped.tsv, which lists the other rows: file, number from 0, reason.

    Raises:
        UserError: a shard can't be read, no row is left of a class, or too many images can't be used; nothing is
            written then.
    """
    import pyarrow

    counts = FilterCounts(kept=dict.fromkeys(sorted(set(settings.labels.values())), 0))
    schema = pyarrow.schema([("image", pyarrow.binary()), ("label", pyarrow.int64())])
    with replacing(folder / DROPPED_FILE) as listing, open(listing, "w", encoding="utf-8", newline="\n") as lines:
        lines.write("file\trow\treason\n")
        with rows_writer(folder / FILE_NAME, schema) as kept:
            for shard in shards:
                for number, row in enumerate(looked_at(shard, settings)):
                    note(row, shard, number, settings, counts)
                    if row.reason is None:
                        kept.add(row.image, settings.labels[row.value])  # type: ignore[index]
                    else:
                        lines.write(f"{shard.name}\t{number}\t{row.reason}\n")
            refuse_unusable(settings, counts)
            refuse_empty(shards, settings, counts)
    return counts


def looked_at(shard: Path, settings: LabelFilter) -> Iterator[Row]:
    """The rows of a shard with what is to become of them, with a progress bar."""
    with (
        open_portraits(shard, settings.label_column) as table,
        tqdm(total=table.metadata.num_rows, unit=" rows", desc="filter") as progress,
    ):
        batches = table.iter_batches(BATCH_ROWS, columns=["image", settings.label_column])
        for rows in map_in_order(partial(look_at, settings=settings), batches):
            yield from rows
            progress.update(len(rows))


def look_at(batch: Any, settings: LabelFilter) -> list[Row]:
    """Decide about the rows of a record batch."""
    images, values = images_of(batch.column("image")), values_of(batch.column(settings.label_column))
    return [decide(image, plain_label(value), settings) for image, value in zip(images, values, strict=True)]


def decide(image: Image, value: Label | None, settings: LabelFilter) -> Row:
    """Decide about one row. A path beside the image's bytes is not used: it could lead anywhere."""
    if value not in settings.labels:
        return Row(b"", value, f"{printable(settings.label_column)} {written(value)}")
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, Mapping) else (image, None)
    if data is None and path:
        return Row(b"", value, "a path without the image's bytes", unusable=True, path=path)
    try:
        decode_image(data, settings.max_pixels, smallest=True)
    except UndecodableImageError as error:
        return Row(b"", value, str(error), unusable=True, path=path)
    return Row(data or b"", value, None)


def note(row: Row, shard: Path, number: int, settings: LabelFilter, counts: FilterCounts) -> None:
    """Count a row."""
    counts.rows_in += 1
    counts.values[row.value] += 1
    if row.reason is None:
        counts.kept[settings.labels[row.value]] += 1  # type: ignore[index]
    elif row.unusable:
        counts.dropped_images[row.reason] += 1
        if len(counts.unusable_rows) < SHOWN_ROWS:
            named = {"path": row.path} if isinstance(row.path, str) else {}
            counts.unusable_rows.append({"file": shard.name, "row": number, "reason": row.reason, **named})
    else:
        counts.dropped_values[row.reason] += 1


def refuse_unusable(settings: LabelFilter, counts: FilterCounts) -> None:
    """Raise UserError if too many images can't be used: more likely, something is wrong with all of them."""
    labelled = counts.unusable + sum(counts.kept.values())
    if counts.unusable <= settings.max_unusable_share * labelled:
        return
    reasons = ", ".join(f"{reason} ({count} rows)" for reason, count in sorted(counts.dropped_images.items()))
    first = counts.unusable_rows[0]
    named = f" ({printable(first['path'])})" if "path" in first else ""
    raise UserError(
        f"{counts.unusable} of {labelled} labelled rows have an image that can't be used, a larger share than"
        f" preprocess.max_unusable_share = {settings.max_unusable_share:g}: {reasons};"
        f" the first is row {first['row']} of {first['file']}{named}"
    )


def refuse_empty(shards: Sequence[Path], settings: LabelFilter, counts: FilterCounts) -> None:
    """Raise UserError if a class has no rows: there would be nothing to learn it from."""
    empty = [index for index, count in counts.kept.items() if count == 0]
    if not empty:
        return
    wanted = ", ".join(
        f"{written(value)} for class {index}" for value, index in settings.labels.items() if index in empty
    )
    common = counts.values.most_common(SHOWN_VALUES)
    others = counts.rows_in - sum(count for _, count in common)
    shown = sorted((written(value), count) for value, count in common) + [("others", others)] * (others > 0)
    found = ", ".join(f"{value} ({count} rows)" for value, count in shown) or "no rows"
    column = settings.label_column
    if alike := explain_lookalikes(settings.labels, counts.values):
        found += f"; {alike}"
    raise UserError(
        f"{' '.join(printable(shard) for shard in shards[:3])}: no usable row with {column} {wanted}"
        f" (preprocess.labels); the column {column} holds {found};"
        f" {counts.unusable} of their images"
        " can't be used"
    )


class RowsWriter:
    """Writes rows to a parquet file in row groups of bounded size, so that memory stays bounded."""

    def __init__(self, writer: Any, schema: Any) -> None:
        self.writer = writer
        self.schema = schema
        self.rows: list[tuple[Any, ...]] = []
        self.bytes = 0

    def add(self, image: Any, label: int | str | None) -> None:
        """Add a row; `image` is bytes, or a mapping with `bytes`."""
        self.rows.append((image, label))
        self.bytes += len(image["bytes"] if isinstance(image, Mapping) else image)
        if len(self.rows) >= GROUP_ROWS or self.bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has been added as a row group."""
        import pyarrow

        if self.rows:
            columns = [list(column) for column in zip(*self.rows, strict=True)]
            self.writer.write_batch(pyarrow.record_batch(columns, schema=self.schema))
        self.rows, self.bytes = [], 0


@contextlib.contextmanager
def rows_writer(path: Path, schema: Any) -> Iterator[RowsWriter]:
    """Write a parquet file of two columns atomically; equal rows give equal bytes."""
    import pyarrow.parquet

    with replacing(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as writer:
        rows = RowsWriter(writer, schema)
        yield rows
        rows.flush()


def filtered_batches(path: Path) -> Iterator[list[tuple[bytes, int]]]:
    """The rows (image file's bytes, class) that `filter_portraits` wrote, some at a time, with a progress bar."""
    import pyarrow.parquet

    with (
        pyarrow.parquet.ParquetFile(path, **READING) as table,
        tqdm(total=table.metadata.num_rows, unit=" rows", desc="preprocess") as progress,
    ):
        for batch in table.iter_batches(BATCH_ROWS, columns=["image", "label"]):
            yield list(zip(batch.column("image").to_pylist(), batch.column("label").to_pylist(), strict=True))
            progress.update(len(batch))
