"""Tables of portraits: the columns, the checks of a parquet file, and the filter by gender."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.artifacts import replacing
from diffusion_ladder.data.decoding import FORMATS, UndecodableImageError, decode_image
from diffusion_ladder.errors import UserError

FILE_NAME = "portraits.parquet"
BATCH_ROWS = 256
# Pinned, so that equal rows give equal files; images are compressed already.
PARQUET_OPTIONS = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "NONE",
    "use_dictionary": False,
    "write_statistics": False,
}
UNDECODABLE = "image cannot be decoded"


@dataclass(frozen=True)
class FilterCounts:
    """What a filter did: rows read, rows dropped by reason, rows kept by class."""

    rows_in: int
    dropped: dict[str, int]
    kept: dict[int, int]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors into a UserError of one line that names the file."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: can't be read as parquet ({' '.join(str(error).split())})") from None


def open_portraits(path: Path) -> Any:
    """Open a parquet file that has the columns image (the bytes of image files) and gender (numbers), for pyarrow.

    The image is a binary column, or a struct with a binary field `bytes`, as the library datasets writes it.

    Returns:
        a pyarrow ParquetFile, to be closed.

    Raises:
        UserError: the file is missing, is not parquet, is damaged, or has other columns.
    """
    import pyarrow.parquet

    with reading(path):
        table = pyarrow.parquet.ParquetFile(path)
        check_columns(path, table.schema_arrow)
        return table


def check_columns(path: Path, schema: Any) -> None:
    """Refuse a schema without usable columns image and gender, and say which columns there are."""
    from pyarrow import types

    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    for name in ("image", "gender"):
        if schema.names.count(name) != 1:
            raise UserError(f"{path}: needs one column {name}, but has {found}")
    image, gender = schema.field("image").type, schema.field("gender").type
    if types.is_struct(image):
        image = image.field("bytes").type if image.get_field_index("bytes") >= 0 else image
    if not (types.is_binary(image) or types.is_large_binary(image)):
        raise UserError(f"{path}: the column image must hold the bytes of image files, but is {image}")
    if not (types.is_integer(gender) or types.is_floating(gender)):
        raise UserError(f"{path}: the column gender must hold numbers, but is {gender}")


def filter_portraits(source: Path, labels: Mapping[int, int], target: Path) -> FilterCounts:
    """Keep the rows whose gender has a label and whose image can be decoded, in their order.

    Args:
        labels: gender value to class index.
        target: parquet with the columns image (binary: the image file's bytes, unchanged) and label (int64).

    Raises:
        UserError: the source can't be read, or no row is left of a class; names what was found.
    """
    import pyarrow
    import pyarrow.parquet

    dropped: Counter[str] = Counter()
    kept = Counter(dict.fromkeys(labels.values(), 0))
    genders: Counter[Any] = Counter()
    schema = pyarrow.schema([("image", pyarrow.binary()), ("label", pyarrow.int64())])
    with open_portraits(source) as table, replacing(target) as temporary:
        with pyarrow.parquet.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as writer:
            for batch in batches(table, source):
                rows = [row for row in batch if keep(row, labels, dropped)]
                genders.update(gender for _, gender in batch)
                classes = [labels[gender] for _, gender in rows]
                kept.update(classes)
                writer.write_batch(pyarrow.record_batch([[image for image, _ in rows], classes], schema=schema))
        refuse_empty(source, labels, kept, genders, dropped[UNDECODABLE], table.schema_arrow.names)
    return FilterCounts(rows_in=genders.total(), dropped=dict(dropped), kept=dict(kept))


def batches(table: Any, path: Path) -> Iterator[list[tuple[bytes | None, Any]]]:
    """The rows of an open parquet file as (image bytes, gender), a batch at a time, with a progress bar."""
    with reading(path), tqdm(total=table.metadata.num_rows, unit=" rows", desc="filter") as progress:
        for batch in table.iter_batches(BATCH_ROWS, columns=["image", "gender"]):
            images, genders = batch.column("image").to_pylist(), batch.column("gender").to_pylist()
            yield [
                (image.get("bytes") if isinstance(image, dict) else image, gender)
                for image, gender in zip(images, genders, strict=True)
            ]
            progress.update(len(images))


def filtered_rows(path: Path) -> Iterator[tuple[bytes, int]]:
    """The rows (image file's bytes, class index) that `filter_portraits` wrote, with a progress bar."""
    import pyarrow.parquet

    with (
        pyarrow.parquet.ParquetFile(path) as table,
        tqdm(total=table.metadata.num_rows, unit=" rows", desc="preprocess") as progress,
    ):
        for batch in table.iter_batches(BATCH_ROWS, columns=["image", "label"]):
            yield from zip(batch.column("image").to_pylist(), batch.column("label").to_pylist(), strict=True)
            progress.update(len(batch))


def keep(row: tuple[bytes | None, Any], labels: Mapping[int, int], dropped: Counter[str]) -> bool:
    """Whether a row stays; if not, count the reason."""
    image, gender = row
    if gender not in labels:
        dropped[f"gender {describe_gender(gender)}"] += 1
        return False
    try:
        decode_image(image)
    except UndecodableImageError:
        dropped[UNDECODABLE] += 1
        return False
    return True


def describe_gender(gender: float | None) -> str:
    """A gender value for a message; files written by pandas may hold 1.0 for 1."""
    if gender is None or math.isnan(gender):
        return "missing"
    return str(int(gender)) if gender == int(gender) else str(gender)


def refuse_empty(
    source: Path,
    labels: Mapping[int, int],
    kept: Mapping[int, int],
    genders: Mapping[Any, int],
    undecodable: int,
    columns: list[str],
) -> None:
    """Raise UserError if a class has no rows: there would be nothing to learn it from."""
    empty = [index for index, count in sorted(kept.items()) if count == 0]
    if not empty:
        return
    wanted = ", ".join(f"{gender} for class {index}" for gender, index in sorted(labels.items()) if index in empty)
    counts = sorted((describe_gender(gender), count) for gender, count in genders.items())
    found = ", ".join(f"{gender} ({count} rows)" for gender, count in counts) or "no rows"
    raise UserError(
        f"{source}: no usable row with gender {wanted} (datasets.faces.labels);"
        f" the column gender holds {found}; {undecodable} of their images can't be decoded as {' or '.join(FORMATS)};"
        f" columns: {', '.join(columns)}"
    )
