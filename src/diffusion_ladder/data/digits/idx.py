"""IDX, the format of the MNIST family: a magic number, the sizes of the axes, and the values.

Specified at http://yann.lecun.com/exdb/mnist/: two zero bytes, a code for the type, the number of axes, each size as a
big-endian int32, then the values in C order, big-endian.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from diffusion_ladder.data.user_paths import one_line
from diffusion_ladder.foundation.errors import UserError

TYPES: dict[int, numpy.dtype[Any]] = {
    0x08: numpy.dtype("u1"),
    0x0C: numpy.dtype(">i4"),
}  # the two of the format's types that the family uses
MOST_ITEMS = 1_000_000  # the largest member of the family has 697,932
MOST_BYTES = MOST_ITEMS * 28 * 28 + 16


def read_idx(path: Path, item_shape: tuple[int, ...]) -> Tensor:
    """Read an IDX file, gzipped if its name ends in .gz, whose items have that shape.

    No more is unpacked than the header announces, and that is bounded: MOST_ITEMS items.

    Returns:
        uint8 or int32 (N, *item_shape)

    Raises:
        UserError: not such a file, another shape, cut short, or too long.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            header = file.read(4 + 4 * (1 + len(item_shape)))
            dtype, count = read_header(path, header, item_shape)
            length = count * math.prod(item_shape) * dtype.itemsize
            data = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be unpacked ({one_line(error)})") from None
    if len(data) != length:
        found = f"only {len(data):,}" if len(data) < length else "more"
        raise UserError(f"{path}: holds {found} bytes where its header announces {length:,}")
    values = numpy.frombuffer(bytearray(data), dtype=dtype)
    return torch.from_numpy(values.astype(dtype.newbyteorder("="), copy=False)).reshape(count, *item_shape)


def unpacked(path: Path) -> bytes:
    """What a file holds, gunzipped if its name ends in .gz; of a bomb, no more than the largest IDX file has.

    Raises:
        UserError: it can't be unpacked or read.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            return file.read(MOST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be unpacked ({one_line(error)})") from None


def read_header(path: Path, header: bytes, item_shape: tuple[int, ...]) -> tuple[numpy.dtype[Any], int]:
    """The type of the values and the number of items."""
    rank = 1 + len(item_shape)
    if len(header) != 4 + 4 * rank or header[:2] != b"\0\0" or header[2] not in TYPES or header[3] != rank:
        raise UserError(f"{path}: no IDX file of {rank} axes; it begins with the bytes {header[:4].hex(' ') or 'none'}")
    count, *shape = numpy.frombuffer(header, dtype=">i4", offset=4).tolist()
    if tuple(shape) != item_shape or not 0 < count <= MOST_ITEMS:
        raise UserError(
            f"{path}: has the shape {(count, *shape)}, not (N, {', '.join(map(str, item_shape))})"
            f" with N from 1 to {MOST_ITEMS:,}"
        )
    return TYPES[header[2]], count
