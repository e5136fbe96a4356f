"""The content hashes of dvc.lock, computed anew from the bytes themselves."""

import hashlib
import json
from pathlib import Path

import pathspec


def md5_of_file(path: Path) -> str:
    """The file's MD5 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def ignored_by_dvc(root: Path) -> pathspec.GitIgnoreSpec:
    """What DVC never sees: the patterns of .dvcignore."""
    file = root / ".dvcignore"
    return pathspec.GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [])


def md5_of_output(path: str | Path, root: Path) -> str:
    """The hash in dvc.lock of a path below root: of a file, or of the list of a folder's files, ending in .dir."""
    whole, ignored = root / path, ignored_by_dvc(root)
    if not whole.is_dir():
        return md5_of_file(whole)
    files = sorted(file for file in whole.rglob("*") if file.is_file())
    seen = [file for file in files if not ignored.match_file(file.relative_to(root).as_posix())]
    listing = [{"md5": md5_of_file(file), "relpath": file.relative_to(whole).as_posix()} for file in seen]
    ordered = sorted(listing, key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(ordered, sort_keys=True).encode()).hexdigest() + ".dir"
