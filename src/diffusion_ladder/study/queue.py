"""DVC's queue of experiments, through its own commands, and the experiments that it has finished, through Git."""

import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.overlays import in_hydra

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(?P<name>[^/]+)")
WORKERS = re.compile(r"Worker status: (\d+) active, (\d+) idle")
PROGRESS = re.compile(r"\d+%\|")  # a bar of tqdm
LAST_LINES = 15  # of a failed experiment's log
TRIES = 3
PATIENCE = 30  # times that the queue is asked whether a run has ended that was killed


def output_of(command: list[str]) -> str:
    """What a command prints.

    Raises:
        UserError: it fails; with the last line of what it said.
    """
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as complained:  # a worker keeps a pipe
        try:
            code = subprocess.run(command, stdout=printed, stderr=complained, check=False).returncode
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; activate the project's environment") from None
        printed.seek(0)
        complained.seek(0)
        output, said = printed.read(), complained.read()
    if code:
        last = (said.strip() or output.strip() or "it says nothing").splitlines()[-1]
        raise UserError(f"`{shlex.join(command)}` failed: {last}")
    return output


def finished() -> dict[str, list[str]]:
    """The commits of all experiments that have been finished, by name, the newest first."""
    listing = ["git", "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps"]
    found: dict[str, list[str]] = {}
    for line in output_of(listing).splitlines():
        commit, _, ref = line.partition(" ")
        if match := EXPERIMENT.fullmatch(ref):
            found.setdefault(match["name"], []).append(commit)
    return found


def baselines() -> list[str]:
    """The commits from which experiments were made."""
    refs = output_of(["git", "for-each-ref", "--format=%(refname)", "refs/exps"]).splitlines()
    return sorted({"".join(ref.split("/")[2:4]) for ref in refs if EXPERIMENT.fullmatch(ref)})


def newly_finished(names: set[str], before: Mapping[str, list[str]]) -> set[str]:
    """Those of some experiments that have a commit which they didn't have before."""
    now = finished()
    return {name for name in names if set(now.get(name, [])) - set(before.get(name, []))}


def free(name: str) -> None:
    """Remove the finished experiment of that name that was made from the present commit, if there is one."""
    head = output_of(["git", "rev-parse", "HEAD"]).strip()
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    if output_of(["git", "for-each-ref", ref]):
        output_of(["dvc", "exp", "remove", ref])


def add(name: str, target: str, changes: Mapping[str, Any]) -> None:
    """Put an experiment into the queue: `changes` are options of `dvc exp run -S`."""
    options = [word for key, value in changes.items() for word in ("-S", f"{key}={in_hydra(value)}")]
    output_of(["dvc", "exp", "run", "--queue", "--name", name, *options, target])


def start(workers: int) -> None:
    """See to it that so many workers empty the queue in the background."""
    output_of(["dvc", "queue", "start", "--jobs", str(workers)])


def states() -> tuple[dict[str, str], int]:
    """The states of the queue's experiments by name (Queued, Running, Success, Failed), and how many workers live."""
    text = output_of(["dvc", "queue", "status"])
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    found = {row[1]: row[-1] for row in rows if len(row) == 4 and row[0] != "Task"}
    alive = WORKERS.search(text)
    return found, sum(map(int, alive.groups())) if alive else 0


def ended_among(names: set[str], at_work: bool = True) -> set[str]:
    """Those of some experiments that are neither waiting in the queue nor running.

    Args:
        at_work: whether there are workers; without, none is running, whatever the queue says.
    """
    found, _ = states()
    return {name for name in names if found.get(name) not in ("Queued", "Running" if at_work else None)}


def is_deserted() -> bool:
    """Whether no worker answers, asked several times: on a busy machine one may be late."""
    return all(states()[1] == 0 for _ in range(TRIES))


def give_up(names: Iterable[str]) -> None:
    """Take from the queue what has ended there, or was left running by workers that are gone."""
    for name in names:
        for _ in range(PATIENCE):
            if states()[0].get(name) != "Running":
                break
            subprocess.run(["dvc", "queue", "kill", "--force", name], capture_output=True, check=False)
            time.sleep(1)
        output_of(["dvc", "queue", "remove", name])


def last_words(name: str) -> list[str]:
    """The end of an experiment's log: why it failed."""
    try:
        log = output_of(["dvc", "queue", "logs", name])
    except UserError as error:
        return [str(error)]
    lines = [line for line in log.splitlines() if line.strip() and not PROGRESS.search(line)]
    return lines[-LAST_LINES:]


def file_at(commit: str, path: str) -> str | None:
    """A tracked file as it is in a commit; None where it is not."""
    done = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
