"""Reading and writing artifacts: every writer is atomic and byte-stable.

Atomic: the bytes go to a temporary sibling that is flushed to the disk and renamed, so that a reader finds the old file
or the new one, never half of either. Byte-stable: equal contents give equal files, on which DVC's hashes rely.
"""

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors

from diffusion_ladder.foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# safetensors writes two or more metadata keys in random order: everything goes into this one.
METADATA_KEY = "json"
ELEMENT_TYPES = {"torch.int64": "I64", "torch.float32": "F32", "torch.uint8": "U8"}  # safetensors' names


def canonical_json(value: Any) -> str:
    """Dump to JSON with sorted keys; NaN and infinity, which JSON lacks, raise ValueError."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def partial(path: Path) -> Path:
    """Where a file or folder is put together. The name is fixed: what a killed process left is used up by the next."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write a file to; it takes the place of `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(path)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically, creating its folder.

    Raises:
        UserError: it can't be written, for example to a full disk; what stood there before still does.
    """
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with newlines as given, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON atomically; NaN and infinity raise ValueError."""
    write_text(path, canonical_json(value))


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(path: str | Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Write rows of the same columns as tab-separated values under a header, atomically: six significant digits.

    Text that holds a tab, a quotation mark or a line's end stands in quotation marks, as pandas and DVC read it.
    """
    lines = io.StringIO()
    table = csv.writer(lines, delimiter="\t", lineterminator="\n")
    table.writerow(rows[0])
    table.writerows([v if isinstance(v, str) else f"{v:.6g}" for v in row.values()] for row in rows)
    write_text(path, lines.getvalue())


def read_table(path: str | Path, text: Collection[str] = ()) -> list[dict[str, float | str]]:
    """Read what `write_table` wrote: numbers, but for the columns of text, where a name such as 01 stays one."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file, delimiter="\t", strict=True)]
    return [{name: cell if name in text else float(cell) for name, cell in row.items()} for row in rows]


def serialise(tensors: "dict[str, Tensor]", metadata: dict[str, Any]) -> bytes:
    """Named tensors and their metadata as safetensors: equal ones give equal bytes, in whatever order they come."""
    import safetensors.torch  # here and below, because torch takes a second that some stages needn't wait

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(ordered, {METADATA_KEY: canonical_json(metadata)})


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose bytes lie in a file, in row-major order, because they may not fit into memory."""

    file: BinaryIO
    dtype: "torch.dtype"
    shape: tuple[int, ...]


def write_tensors(path: str | Path, tensors: "Mapping[str, Tensor | StoredTensor]", metadata: dict[str, Any]) -> None:
    """Write named tensors and their metadata as safetensors, atomically.

    The same bytes, whether a tensor is stored or in memory; of stored ones, little is in memory at a time.
    """
    whole = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, StoredTensor)}
    if len(whole) == len(tensors):
        write_bytes(path, serialise(whole, metadata))
        return
    stored = {
        name: tensor if isinstance(tensor, StoredTensor) else store(tensor) for name, tensor in sorted(tensors.items())
    }
    # The library's order: by the size of an element, largest first, then by name.
    parts = dict(sorted(stored.items(), key=lambda item: -item[1].dtype.itemsize))
    try:
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            file.write(safetensors_header(parts, metadata))
            for part in parts.values():
                part.file.seek(0)
                shutil.copyfileobj(part.file, file, 1 << 20)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error


def store(tensor: "Tensor") -> StoredTensor:
    """A tensor in memory as a stored one."""
    return StoredTensor(io.BytesIO(tensor.numpy().tobytes()), tensor.dtype, tuple(tensor.shape))


def safetensors_header(parts: Mapping[str, StoredTensor], metadata: dict[str, Any]) -> bytes:
    """What a safetensors file begins with: a length (eight bytes), then names, types, shapes and places as JSON."""
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: canonical_json(metadata)}}
    end = 0
    for name, part in parts.items():
        start, end = end, end + part.dtype.itemsize * math.prod(part.shape)
        kind = ELEMENT_TYPES[str(part.dtype)]
        header[name] = {"dtype": kind, "shape": part.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_tensors(path: str | Path) -> "dict[str, Tensor]":
    """Read every tensor of a safetensors file."""
    import safetensors.torch

    return safetensors.torch.load_file(path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that `write_tensors` wrote, without loading the tensors."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def sha256_of_file(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
