"""Zip archives that come from elsewhere: a few named members are taken, nothing else touches the disk."""

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from diffusion_ladder.data.files import refuse_full_disk
from diffusion_ladder.data.user_paths import one_line
from diffusion_ladder.foundation.artifacts import replacing
from diffusion_ladder.foundation.errors import UserError

# What reading a damaged archive raises; ValueError also where names are marked as UTF-8 but aren't.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
)
MOST_BYTES = 1 << 30  # unpacked, of the members that are taken


def extract_members(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Write the members whose file names are `names`, whatever folder they are in, to FOLDER/NAME.

    Raises:
        UserError: it is no intact zip archive, lacks one of them or has it twice, announces too many bytes, or holds a
            path that leads out of it, a link or a pickle.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                refuse_unsafe(archive, member)
            members = [only_member(archive, file, name) for name in names]
            if (size := sum(member.file_size for member in members)) > MOST_BYTES:
                raise UserError(f"{archive}: unpacks to {size:,} bytes, more than {MOST_BYTES:,}")
            for name, member in zip(names, members, strict=True):
                with file.open(member) as source, replacing(folder / name) as path, open(path, "wb") as target:
                    shutil.copyfileobj(source, target)
    except OSError as error:
        refuse_full_disk(error, folder / names[0], archive.stat().st_size)
        raise UserError(f"{archive}: can't be unpacked to {folder} ({error})") from None
    except DAMAGE as error:
        raise UserError(f"{archive}: can't be unpacked ({one_line(error)})") from None


def refuse_unsafe(archive: Path, member: zipfile.ZipInfo) -> None:
    """Raise UserError for a member that an honest archive of data doesn't have."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.filename:
        raise UserError(f"{archive}: refused, because its member {member.filename!r} leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{archive}: refused, because its member {member.filename!r} is a link")
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle"):
        raise UserError(f"{archive}: refused, because its member {member.filename!r} is a pickle")


def only_member(archive: Path, file: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The one member of that file name."""
    found = [member for member in file.infolist() if PurePosixPath(member.filename).name == name]
    if len(found) != 1:
        raise UserError(f"{archive}: holds {len(found)} files called {name}, not one")
    return found[0]
