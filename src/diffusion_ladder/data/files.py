"""Files that come from elsewhere: copied or downloaded, verified by checksum, and put in place in one step."""

import errno
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.foundation.artifacts import replacing, sha256_of_file
from diffusion_ladder.foundation.errors import UserError

TIMEOUT_SECONDS = 30  # without a byte from a server
SLOWEST_RATE = 20_000  # bytes per second, below which a mirror is given up
CHUNK_BYTES = 1 << 16


class OtherFileError(Exception):
    """A server sent something else than the file that was asked for."""


def copy_file(source: Path, target: Path) -> None:
    """Copy a file byte by byte; its times and permissions stay behind.

    Raises:
        UserError: the disk is full.
    """
    try:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        refuse_full_disk(error, target, source.stat().st_size)
        raise


def describe_file(path: Path, folder: Path) -> dict[str, Any]:
    """Name relative to `folder`, SHA-256 and size in bytes: a file's entry in a data card."""
    return {
        "name": path.relative_to(folder).as_posix(),
        "sha256": sha256_of_file(path),
        "size": path.stat().st_size,
    }


def md5_of_file(path: Path) -> str:
    """The file's MD5 in hexadecimal: not safe against forgery, but what some publishers state."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def refuse_full_disk(error: OSError, path: Path, size: int) -> None:
    """Raise UserError if `error` says that there is no room to write: trying elsewhere would not help."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise UserError(
            f"{path.parent}: {path.name} ({size:,} bytes) can't be written: {error.strerror}; nothing of it was kept:"
            " make room and run again"
        ) from None


def download_from_mirrors(urls: Sequence[str], target: Path, md5: str, size: int, advice: str) -> None:
    """Download the file of that MD5 and size from the first of `urls` that sends it.

    A mirror that answers with an error, sends less, more or another file (such as a page that says "not found"), or
    keeps still leads to the next.

    Raises:
        UserError: no mirror sent the file; names each one and what it answered, and ends in `advice`. Or the disk is
            full.
    """
    failures = []
    for url in urls:
        try:
            with replacing(target) as temporary:
                download(url, temporary, size)
                if (found := md5_of_file(temporary)) != md5:
                    raise OtherFileError(f"sent another file: MD5 {found}, not {md5}")
            return
        except (OSError, OtherFileError, http.client.HTTPException) as error:
            if isinstance(error, OSError):
                refuse_full_disk(error, target, size)
            failures.append(f"{url} {describe_failure(error)}")
    raise UserError(f"{target.name} could not be downloaded from any mirror: {'; '.join(failures)}; {advice}")


def describe_failure(error: Exception) -> str:
    """Why a mirror failed, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f"answered {error.code} {error.reason}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return "timed out"
    if isinstance(error, urllib.error.URLError):
        return f"can't be reached ({' '.join(str(error.reason).split())})"
    return " ".join(str(error).split()) or type(error).__name__


def download(url: str, path: Path, size: int) -> None:
    """Download a URL to a file of exactly `size` bytes, with a progress bar.

    Raises:
        OSError, http.client.HTTPException: the server can't be reached, answers with an error, or keeps still.
        OtherFileError: it sends a web page, or another number of bytes; no more than `size` of them are read.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS + size / SLOWEST_RATE
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, open(path, "wb") as file:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise OtherFileError("sent a web page instead of the file")
        with tqdm(total=size, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]) as progress:
            while chunk := response.read1(CHUNK_BYTES):
                progress.update(len(chunk))
                if progress.n > size:
                    raise OtherFileError(f"sent another file: more than {size:,} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
                file.write(chunk)
        if progress.n < size:
            raise OtherFileError(f"sent only {progress.n:,} of {size:,} bytes")
