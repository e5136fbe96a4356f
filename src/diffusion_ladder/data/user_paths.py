"""Paths that a user gives: `~`, patterns and odd names in them, and whether they meet what stages write.

Imports no other library, so that the check of all parameters can use it.
"""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from diffusion_ladder.foundation.errors import ParameterError

MOST_LINKS = 40  # followed on the way to one path, as Linux does


def as_text(path: str | os.PathLike[str]) -> str:
    """A path as text for data and cards: bytes that are no UTF-8 stand as \\xNN, all else stays."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def printable(path: str | os.PathLike[str]) -> str:
    """A path for a message of one line: what can't be seen stands as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in as_text(path)
    )


def one_line(error: Exception) -> str:
    """What an error of a library says, on one line, with escapes for what can't be seen."""
    return printable(" ".join(str(error).split()))


def expand_home(path: str) -> str:
    """`~` and `~NAME` as a shell expands them; a folder that is really called `~` is `./~`."""
    return os.path.expanduser(path)


def readings(path: str) -> list[tuple[str, tuple[str, ...]]]:
    """The ways to read a pattern: a folder that exists by just that name, and the parts of the pattern below it.

    The most literal one comes first, so that `[work] x/*.parquet` means a folder called `[work] x` where there is one.
    """
    whole = expand_home(path)
    parts = Path(whole).parts
    first = 1 if os.path.isabs(whole) else 0
    bases = [(str(Path(*parts[:end])), parts[end:]) for end in range(len(parts) - 1, first - 1, -1)]
    return [(base, pattern) for base, pattern in bases if os.path.isdir(base)]


def is_pattern(path: str) -> bool:
    """Whether a path names no file or folder itself, but has characters of a pattern below the folders that exist."""
    if os.path.lexists(expand_home(path)):
        return False
    return any(glob.has_magic(os.path.join(*rest)) for _, rest in readings(path)[:1])


def matching_files(path: str, suffix: str) -> list[Path]:
    """The files that a path means: itself; those in a folder that end in `suffix`; or those that a pattern matches.

    `**` stands for any number of folders; hidden files are only matched by a pattern with their dot. Those of a folder
    or a pattern come by name, each once, whatever links lead to it.
    """
    whole = expand_home(path)
    if os.path.isfile(whole):
        return [Path(whole)]
    if os.path.isdir(whole):
        entries = (Path(whole) / name for name in os.listdir(whole) if not name.startswith("."))
        return unique(entry for entry in entries if entry.name.lower().endswith(suffix))
    for base, rest in readings(path):
        pattern = os.path.join("" if base == "." else glob.escape(base), *rest)
        if found := unique(map(Path, glob.glob(pattern, recursive=True))):
            return found
    return []


def unique(paths: Iterable[Path]) -> list[Path]:
    """The files among some paths, by name, the same file once."""
    by_content: dict[str, Path] = {}
    for path in sorted(paths):
        if path.is_file():
            by_content.setdefault(os.path.realpath(path), path)
    return list(by_content.values())


def where_else(path: str) -> str:
    """The end of a complaint about a missing path, if the project's own folder has it and DVC's temporary copy hasn't.

    `dvc exp run --temp` and `--queue` work in a copy that holds only what Git and DVC track.
    """
    folder = project_of_copy()
    if folder is None or os.path.isabs(expand_home(path)):
        return ""
    there = os.path.join(glob.escape(str(folder)), path)
    if not os.path.lexists(folder / path) and not glob.glob(there, recursive=True):
        return ""
    return (
        f"; this is DVC's temporary copy of the project, without what neither Git nor DVC tracks, and only"
        f" {printable(folder)} has it: name it by its absolute path, or run without --temp and --queue"
    )


def project_of_copy() -> Path | None:
    """The project of which the working folder is DVC's temporary copy; None if it is none."""
    copies = [parent for parent in Path.cwd().parents if parent.parts[-3:] == (".dvc", "tmp", "exps")]
    return copies[0].parents[2] if copies else None


# Whether what a user gives and what a stage writes contain each other


def refuse_collisions(given: Mapping[str, Sequence[str]], outputs: Sequence[str]) -> None:
    """Refuse paths of a user, by the parameters that name them, that meet an output of a stage.

    Raises:
        ParameterError: one does, as `collision` finds.
    """
    for key, paths in given.items():
        if complaint := collision(paths, outputs):
            raise ParameterError(f"params.yaml: {key}: {complaint}")


def collision(given: Sequence[str], outputs: Sequence[str], root: str | Path = "") -> str | None:
    """Whether a path of a user lies in an output of a stage or the other way round: DVC deletes outputs.

    Links are followed; of a pattern, what it matches now counts, and what it could match in an output.

    Args:
        given: files, folders or patterns, as parameters name them.
        outputs: of all stages.
        root: the project's folder, to which both are relative.

    Returns:
        a complaint of one line, to be put behind the parameter's key; None if they are apart.
    """
    places = {output: places_of(os.path.join(root, output)) for output in outputs}
    for path in given:
        whole = os.path.join(root, expand_home(path))
        relation = pattern_meets if is_pattern(whole) else path_meets
        if found := relation(whole, places):
            return (
                f"{printable(path)} {found}, which DVC deletes before the stage that writes it:"
                " keep your files in a folder that is no output and holds none"
            )
    return None


def path_meets(path: str, places: Mapping[str, set[str]]) -> str | None:
    """How a file or folder meets an output, in words; None if it doesn't."""
    way = visited(path)
    end = way[-1]
    if output := first_around([end], places):
        return f"lies inside {output}"
    if output := first_around(way, places):
        return f"leads through {output}"
    for output, those in places.items():
        if any(is_inside(place, end) for place in those):
            return f"contains {output}"
    return leads_into(links_below(path), places)


def pattern_meets(pattern: str, places: Mapping[str, set[str]]) -> str | None:
    """How a pattern meets an output, in words; None if it doesn't."""
    for base, rest in readings(pattern):
        if output := first_around(visited(base), places):
            return f"lies inside {output}"
        for output, those in places.items():
            if any(could_meet(base, rest, place) for place in those):
                return f"can match what is in {output}"
    return leads_into(matching_files(pattern, ""), places)


def places_of(output: str) -> set[str]:
    """Where an output stands, and where that leads if it is a link."""
    folder, name = os.path.split(os.path.normpath(output))
    return {os.path.join(os.path.realpath(folder), name), os.path.realpath(output)}


def first_around(entries: Iterable[str], places: Mapping[str, set[str]]) -> str | None:
    """The first output in which one of these entries lies."""
    listed = list(entries)
    around = (output for output, those in places.items() for p in those for entry in listed if is_inside(entry, p))
    return next(around, None)


def leads_into(paths: Iterable[str | Path], places: Mapping[str, set[str]]) -> str | None:
    """Into which output one of these paths leads, in words; there may be many of them, so names alone are compared."""
    entries = {entry for path in paths for entry in visited(path)}
    for output, those in places.items():
        if any(entry == place or entry.startswith(place + os.sep) for entry in entries for place in those):
            return f"leads by a link into {output}"
    return None


def visited(path: str | os.PathLike[str]) -> list[str]:
    """Every entry of a folder that is looked up on the way to a path, through all links; the last is where it ends.

    If one of them vanishes, the path leads nowhere.
    """
    here, seen, links = "/", ["/"], 0
    todo = [*reversed(Path(os.path.join(os.getcwd(), path)).parts)]
    while todo:
        part = todo.pop()
        here = os.path.dirname(here) if part == ".." else os.path.join(here, part)
        seen.append(here)
        if links < MOST_LINKS and os.path.islink(here):
            todo.extend(reversed(Path(os.readlink(here)).parts))
            here, links = os.path.dirname(here), links + 1
    return seen


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it, by its name or, where that exists, as the same entry of the disk.

    The latter knows other spellings, such as those of a file system that doesn't tell capitals from small letters.
    """
    ways = [Path(path), *Path(path).parents]
    if Path(folder) in ways:
        return True
    return os.path.exists(folder) and any(os.path.samefile(way, folder) for way in ways if os.path.exists(way))


def could_meet(base: str, pattern: Sequence[str], output: str) -> bool:
    """Whether a pattern below a folder could match an output, something in it, or a folder around it."""
    folder = Path(os.path.realpath(base))
    if not Path(output).is_relative_to(folder):
        return False
    return could_match(pattern, Path(output).relative_to(folder).parts)


def could_match(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a pattern agrees with a path as far as the shorter of the two goes."""
    if not pattern or not parts:
        return True
    if pattern[0] == "**":
        return could_match(pattern[1:], parts) or could_match(pattern, parts[1:])
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and could_match(pattern[1:], parts[1:])


def links_below(path: str) -> Iterator[str]:
    """The links in a folder, at any depth; links to folders are not entered."""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(entry := os.path.join(folder, name)):
                yield entry
