"""Reading and writing artifacts: every writer is atomic and byte-stable.

Atomic: the bytes go to a temporary sibling that is flushed to the disk and renamed, so that a reader finds the old file
or the new one, never half of either. Byte-stable: equal contents give equal files, on which DVC's hashes rely.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from diffusion_ladder.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# safetensors writes two or more metadata keys in random order: everything goes into this one.
METADATA_KEY = "json"


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


def serialise(tensors: "dict[str, Tensor]", metadata: dict[str, Any]) -> bytes:
    """Named tensors and their metadata as safetensors: equal ones give equal bytes, in whatever order they come."""
    import safetensors.torch  # here and below, because torch takes a second that some stages needn't wait

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(ordered, {METADATA_KEY: canonical_json(metadata)})


def write_tensors(path: str | Path, tensors: "dict[str, Tensor]", metadata: dict[str, Any]) -> None:
    """Write named tensors and their metadata as safetensors, atomically."""
    write_bytes(path, serialise(tensors, metadata))


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
