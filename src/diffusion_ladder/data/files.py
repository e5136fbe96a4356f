"""Files that come from elsewhere: copied or downloaded, verified by checksum, and put in place in one step."""

import hashlib
import http.client
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.artifacts import replacing, sha256_of_file
from diffusion_ladder.errors import UserError

TIMEOUT_SECONDS = 30  # without a byte from a server
CHUNK_BYTES = 1 << 16


def copy_file(source: Path, target: Path) -> None:
    """Copy a file byte by byte; its times and permissions stay behind."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


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


def download_from_mirrors(mirrors: Sequence[str], name: str, md5: str, target: Path, advice: str) -> None:
    """Download `name` from the first of `mirrors` (URLs that end in a slash) that sends a file with that MD5.

    A mirror that answers with an error, or with another file (such as a page that says "not found"), leads to the next.

    Raises:
        UserError: no mirror sent the file; names each one and what it answered, and ends in `advice`.
    """
    failures = []
    for mirror in mirrors:
        try:
            with replacing(target) as temporary:
                download(mirror + name, temporary)
                if md5_of_file(temporary) != md5:
                    raise ValueError("sent another file (its MD5 is wrong)")
            return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{mirror} ({' '.join(str(error).split())})")
    raise UserError(f"{name} could not be downloaded from any mirror: {'; '.join(failures)}; {advice}")


def download(url: str, path: Path) -> None:
    """Download a URL to a file, with a progress bar."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, open(path, "wb") as file:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]) as progress:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                progress.update(len(chunk))
