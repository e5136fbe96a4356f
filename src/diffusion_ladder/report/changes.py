"""What changed since the report before: the metrics at hand beside those of an earlier commit.

The report itself can't tell, since it depends on nothing but the artifacts at hand; the page about the last run can.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = "reports/metrics"
SUFFIXES = ("_std", "_floor", "_ceiling")


@dataclass(frozen=True)
class Change:
    """A number that is another one than before; None for one that was not there, or is no more.

    Attributes:
        file: the metrics file, without folder and ending.
        spread: the standard deviation now; None where there is none.
    """

    file: str
    name: str
    before: float | None
    now: float | None
    spread: float | None

    @property
    def difference(self) -> float | None:
        """By how much it grew."""
        return None if self.before is None or self.now is None else self.now - self.before

    @property
    def is_large(self) -> bool:
        """Whether it changed by more than its standard deviation."""
        return self.difference is not None and abs(self.difference) > (self.spread or 0.0)


@dataclass(frozen=True)
class Changes:
    """The changes since a commit.

    Attributes:
        commit: the present one, in short; empty where there is no Git.
        edited: whether files differ from it.
        since: the commit that is compared with, in short; empty where there is none.
        numbers: how many were compared.
    """

    commit: str
    edited: bool
    since: str
    numbers: int
    changes: Sequence[Change]


def git(root: Path, *arguments: str) -> str:
    """What Git says; nothing where it can't."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def commit_before(root: Path) -> str:
    """The commit whose metrics are compared with: the present one, or if they are its own, the last with others."""
    if git(root, "status", "--porcelain", "--", METRICS):
        return git(root, "rev-parse", "HEAD") if git(root, "ls-files", METRICS) else ""
    last = git(root, "log", "-1", "--format=%H", "--", METRICS)
    before = git(root, "rev-parse", "--verify", f"{last}^") if last else ""
    return before if before and git(root, "ls-tree", "-r", "--name-only", before, "--", METRICS) else ""


def numbers_of(text: str) -> dict[str, Any]:
    """The numbers in a metrics file; none in one that is broken."""
    try:
        values = json.loads(text or "{}")
    except ValueError:
        return {}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def changes_in(file: str, before: dict[str, float], now: dict[str, float]) -> list[Change]:
    """The numbers of a file that differ, without deviations and bounds."""
    names = [name for name in {**before, **now} if not name.endswith(SUFFIXES)]
    differing = [name for name in sorted(names) if before.get(name) != now.get(name)]
    return [Change(file, name, before.get(name), now.get(name), now.get(f"{name}_std")) for name in differing]


def changes_since(root: Path) -> Changes:
    """Compare the metrics below a folder with those of the commit before."""
    head, since = git(root, "rev-parse", "HEAD"), commit_before(root)
    present = {path.relative_to(root).as_posix() for path in (root / METRICS).rglob("*.json")}
    earlier = set(git(root, "ls-tree", "-r", "--name-only", since, "--", METRICS).split()) if since else set()
    found, numbers = [], 0
    for path in sorted(present | earlier) if since else []:
        before = numbers_of(git(root, "show", f"{since}:./{path}") if path in earlier else "")
        now = numbers_of((root / path).read_text(encoding="utf-8") if path in present else "")
        numbers += len({**before, **now})
        found += changes_in(path.removeprefix(f"{METRICS}/").removesuffix(".json"), before, now)
    edited = bool(git(root, "status", "--porcelain", "--untracked-files=no"))
    return Changes(head[:12], edited, since[:12], numbers, found)
