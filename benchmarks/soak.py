"""Faults on purpose, of a build with the smoke preset: python benchmarks/soak.py [PART ...] [--kills 100].

The parts, each of which writes its counts to benchmarks/results/soak-PART.json:

kills: SIGKILL at random moments of a stage, and of DVC around it, in one process and in two (torchrun). What was
    killed is started again until it is done; then every output is held against that of a run that nobody disturbed.
disk: every stage on a disk (a tmpfs, which takes root) that has room for nothing, or for half of what it writes.
around: a cache and a home that can't be written, two `dvc repro` at once, a clock that jumps back, files of the future.
fuzz: tests/test_fuzz_data.py with --examples of each kind of input.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from diffusion_ladder.foundation.artifacts import sha256_of_file, write_json
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.runtime import LAUNCHER
from diffusion_ladder.foundation.section import load_yaml

RESULTS = Path("benchmarks/results")
BUILT = ("data", "models", "reports")  # what stages write
TORCHRUN = "torchrun --standalone --nproc_per_node 2"


@dataclass(frozen=True)
class Target:
    """A stage that is killed.

    Attributes:
        stage: its name in DVC.
        processes: in which it runs.
        share: of all kills.
        by_dvc: whether DVC runs it, and is killed with it.
    """

    stage: str
    processes: int
    share: float
    by_dvc: bool = False

    @property
    def command(self) -> list[str]:
        """What runs the stage again, whether or not anything has changed, and nothing else."""
        if self.by_dvc:
            return ["dvc", "repro", "--single-item", "--force", self.stage]
        name, _, key = self.stage.partition("@")
        return [sys.executable, f"stages/{name}.py", *([key] if key else [])]

    @property
    def environment(self) -> dict[str, str]:
        """What starts the stage in so many processes."""
        return {} if self.processes == 1 else {LAUNCHER: TORCHRUN}


TARGETS = (
    Target("fetch@faces", 1, 0.1, by_dvc=True),
    Target("filter_gender", 1, 0.1, by_dvc=True),
    Target("train@circles", 1, 0.24),
    Target("train@circles", 1, 0.06, by_dvc=True),
    Target("train@mnist_scratch", 1, 0.1),
    Target("train@circles", 2, 0.1),
    Target("train@faces", 2, 0.06),
    Target("sample@faces", 1, 0.1),
    Target("sample@mnist_scratch", 2, 0.04),
    Target("report", 1, 0.1),
)


# A project to break


def variables(**changes: str) -> dict[str, str]:
    """The environment of a user who has activated this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": "src", "DVC_NO_ANALYTICS": "1"} | changes


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a project to its end."""
    changed = variables(**environment)
    return subprocess.run(command, cwd=folder, env=changed, capture_output=True, text=True, check=False)


def succeed(command: list[str], folder: Path, **environment: str) -> str:
    """Run a program that must succeed; what it wrote."""
    ran = run(command, folder, **environment)
    if ran.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        )
    return ran.stdout + ran.stderr


def build(folder: Path) -> None:
    """Build the smoke graph, with a checkpoint after every step of a training."""
    succeed([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(folder)], Path())
    path = folder / "params.yaml"
    path.write_text(re.sub(r"(checkpoints:\s+seconds:) \S+", r"\1 0", path.read_text()))
    succeed(["git", "init", "--quiet"], folder)
    succeed(["dvc", "repro"], folder)


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that stages have written, by path.

    Left out are what tells of the run itself, and the report's copies of model cards, which go with a model's folder.
    """
    files = [path for part in BUILT for path in sorted((folder / part).rglob("*")) if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {
        name: sha256_of_file(path)
        for path, name in names.items()
        if not re.match(r"reports/run/|models/\w+/README\.md", name)
    }


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The files that are other ones, or on one side only."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def leftovers(folder: Path) -> list[str]:
    """Files that were being written."""
    found = [path for part in (*BUILT, ".checkpoints") for path in (folder / part).rglob("*.partial")]
    return sorted(str(path.relative_to(folder)) for path in found)


# Kills


def outputs_of(folder: Path, stage: str) -> list[str]:
    """The paths that a stage writes."""
    name, _, key = stage.partition("@")
    definition = read_graph(load_yaml(folder / "params.yaml"), folder / "dvc.yaml")[name]
    return [path for kind in ("outs", "metrics", "plots") for path in definition.listed(kind, key)]


def others(found: dict[str, str], outputs: list[str]) -> dict[str, str]:
    """What belongs to other stages, without what was being written."""
    mine = tuple(path for output in outputs for path in (output, f"{output}/"))
    return {
        name: digest
        for name, digest in found.items()
        if not (name in mine or name.startswith(mine) or name.endswith(".partial"))
    }


def forget(folder: Path, outputs: list[str]) -> None:
    """Remove what a stage writes, as DVC does before it runs the stage."""
    for path in (folder / output for output in outputs):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def last_step(folder: Path, stage: str) -> int:
    """The step of the latest checkpoint of a training; 0 where there is none."""
    found = (folder / ".checkpoints" / stage.partition("@")[2]).glob("*/[0-9]*.safetensors")
    return max((int(path.name.partition("-")[0]) for path in found), default=0)


def send_all(process: subprocess.Popen[bytes], *numbers: int) -> None:
    """Send signals to a process and all that descend from it, each to all of them before the next."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for number in numbers:
        for member in family:
            if member.is_running():
                member.send_signal(number)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and all that descend from it, as if the power had gone: none sees another's end."""
    family = psutil.Process(process.pid).children(recursive=True)
    send_all(process, signal.SIGSTOP, signal.SIGKILL)
    psutil.wait_procs(family)
    process.wait()


def has_begun(log: Path, target: Target) -> bool:
    """Whether the stage has said what it computes on."""
    return f"{target.stage}: " in log.read_text(errors="replace")


def disturb(folder: Path, target: Target, delay: Callable[[], float]) -> tuple[bool, str]:
    """Run a stage, and kill it some seconds after it has begun: whether that met it, and what it had said."""
    log = folder / "soak.log"
    if not target.by_dvc:
        forget(folder, outputs_of(folder, target.stage))
    with open(log, "wb") as file:
        environment = variables(**target.environment)
        process = subprocess.Popen(target.command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    while process.poll() is None and not has_begun(log, target):
        time.sleep(0.01)
    end = time.monotonic() + delay()
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    met = process.poll() is None
    if met:
        kill_all(process)
    elif process.returncode:
        raise RuntimeError(f"{target.stage} failed:\n{log.read_text(errors='replace')[-3000:]}")
    return met, log.read_text(errors="replace")


def mend_lock(folder: Path, good: bytes) -> bool:
    """Put dvc.lock back, as Git would, where a kill has met DVC writing it, which it doesn't do in one step."""
    path = folder / "dvc.lock"
    try:
        whole = bool(load_yaml(path)["stages"])
    except (ParameterError, KeyError, TypeError):
        whole = False
    if not whole:
        path.write_bytes(good)
    return not whole


def seconds_of(folder: Path, target: Target) -> float:
    """How long an undisturbed run takes from its first line on, with DVC's work after it."""
    start = [time.monotonic()]

    def began() -> float:
        start[0] = time.monotonic()
        return 1e9

    disturb(folder, target, began)
    return time.monotonic() - start[0]


def kill(folder: Path, target: Target, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kill a stage so many times, starting it again each time; what the kills met, and what is different in the end."""
    seconds, outputs = seconds_of(folder, target), outputs_of(folder, target.stage)
    reference, before = contents(folder), others(contents(folder), outputs)
    good = (folder / "dvc.lock").read_bytes()
    met, done, steps, lost, damaged, cut = 0, 0, [], 0, 0, 0
    while met < kills:
        kept = last_step(folder, target.stage)
        hit, said = disturb(folder, target, lambda: draw.uniform(0, seconds))
        gone_on = re.search(r"goes on after step (\d+)", said)
        lost += bool(kept) and "another process" not in said and (int(gone_on[1]) if gone_on else kept) < kept
        if hit:
            met += 1
            cut += mend_lock(folder, good)
            steps.append(last_step(folder, target.stage))
            damaged += bool(changed(before, others(contents(folder), outputs)))
        else:
            done += 1
            damaged += bool(changed(reference, contents(folder)))
    succeed(target.command, folder, **target.environment)
    result = {"stage": target.stage, "processes": target.processes, "by_dvc": target.by_dvc}
    result |= {"kills": met, "completed_between": done}
    result |= {"different_files": len(changed(reference, contents(folder))), "steps_lost": lost, "damaged": damaged}
    result |= {"leftovers": len(leftovers(folder)), "dvc_lock_cut_short": cut}
    return result | ({"steps": steps} if target.stage.startswith("train@") else {})


def kills(folder: Path, count: int) -> dict[str, Any]:
    """All kills, and whether DVC finds the project as it was before them."""
    draw, before, rows = random.Random(0), contents(folder), []
    for target in TARGETS:
        row = kill(folder, target, round(count * target.share), draw)
        print(row, flush=True)
        rows.append(row)
        if target.processes > 1:  # the numbers of one process again
            succeed(Target(target.stage, 1, 0).command, folder)
    succeed(["dvc", "repro"], folder)
    succeed([sys.executable, "-m", "diffusion_ladder.verify"], folder)
    return {
        "kills": sum(row["kills"] for row in rows),
        "different_files": len(changed(before, contents(folder))),
        "stages": rows,
    }


# A full disk


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes in a folder."""
    folder.mkdir()
    succeed(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], Path())
    try:
        yield folder
    finally:
        succeed(["umount", str(folder)], Path())


def every_stage(folder: Path) -> list[tuple[str, str]]:
    """Name and key of every stage in the order of dvc.yaml."""
    graph = read_graph(load_yaml(folder / "params.yaml"), folder / "dvc.yaml")
    return [(name, key) for name, definition in graph.items() for key in definition.loop or [""]]


def fill(folder: Path, room: int) -> None:
    """Leave so many bytes of a disk."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    state = os.statvfs(folder)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - room)


def fills(folder: Path, room: int, name: str, key: str) -> dict[str, Any]:
    """Run a stage on a disk with so much room left; how it ended."""
    before, log = contents(folder), folder / f"reports/training/{key}.tsv"  # which a training writes anew and lets grow
    rows = log.read_bytes() if log.is_file() else b""
    fill(folder, room)
    ran = run([sys.executable, f"stages/{name}.py", *([key] if key else [])], folder, TMPDIR=str(folder / "tmp"))
    last = ran.stderr.splitlines()[-1] if ran.stderr else ""
    (folder / "ballast").unlink()
    label = f"{name}@{key}" if key else name
    row = {"stage": label, "room": room, "ended_with": ran.returncode, "traceback": "Traceback" in ran.stderr}
    row |= {"said": last, "one_line": last.startswith(f"{label}: ") and "No space left on device" in last}
    if rows:
        log.write_bytes(rows)
    return row | {"different_files": len(changed(before, contents(folder))), "leftovers": len(leftovers(folder))}


def disk(folder: Path) -> dict[str, Any]:
    """Every stage with no room at all, and with room for half of what it writes."""
    rows = []
    with small_disk(folder.parent / "disk", 400 << 20) as mount:
        project = mount / "project"
        shutil.copytree(folder, project, ignore=shutil.ignore_patterns("cache", ".git", "soak.log"))
        (project / "tmp").mkdir()
        for name, key in every_stage(project):
            paths = [project / path for path in outputs_of(project, f"{name}@{key}")]
            files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
            for room in (0, sum(file.stat().st_size for file in files if file.is_file()) // 2):
                row = fills(project, room, name, key)
                if row["ended_with"] != 1 or not row["one_line"] or row["different_files"] or row["leftovers"]:
                    print(row, flush=True)
                rows.append(row)
    faults = [row for row in rows if row["traceback"] or row["different_files"] or row["leftovers"]]
    stopped = [row for row in rows if row["ended_with"] == 1 and row["one_line"]]
    finished = [row for row in rows if row["ended_with"] == 0]
    return {"runs": len(rows), "stopped": len(stopped), "finished": len(finished), "faults": len(faults), "rows": rows}


# What else goes wrong around a build


def read_only_cache(folder: Path) -> dict[str, Any]:
    """A shared cache that can't be written: what has changed is built, and DVC says that it can't be kept."""
    with read_only(folder / ".dvc/cache"):
        idle = run(["dvc", "repro"], folder)
        rebuilt = run(["dvc", "repro", "--force", "--single-item", "fetch@circles"], folder)
    words = [line for line in rebuilt.stderr.splitlines() if line.startswith("ERROR")]
    status = run(["dvc", "repro"], folder)
    return {
        "nothing_to_do": idle.returncode == 0 and "up to date" in idle.stdout,
        "said": words[-1].replace(f"{folder}/", "") if words else "",
        "ended_with": rebuilt.returncode,
        "well_again": status.returncode == 0,
    }


def read_only_home(folder: Path) -> dict[str, Any]:
    """A home and the libraries' caches in it that can't be written."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    before, ended = contents(folder), {}
    with read_only(home):
        for name, key in (("fetch", "mnist"), ("train", "faces"), ("render", "faces"), ("report", "")):
            command = [sys.executable, f"stages/{name}.py", *([key] if key else [])]
            gone = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hub")}
            ended[f"{name}@{key}".rstrip("@")] = run(command, folder, **gone).returncode
    return {"ended_with": ended, "different_files": len(changed(before, contents(folder)))}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, so that nothing can be written there: root may write whatever a mode forbids."""
    succeed(["mount", "--bind", str(folder), str(folder)], Path())
    succeed(["mount", "-o", "remount,ro,bind", str(folder)], Path())
    try:
        yield
    finally:
        succeed(["umount", str(folder)], Path())


def two_at_once(folder: Path) -> dict[str, Any]:
    """A second `dvc repro` while one is at work, and a second training of the same model beside DVC."""
    target = Target("train@mnist_scratch", 1, 0, by_dvc=True)
    log = folder / "soak.log"
    with open(log, "wb") as file:
        first = subprocess.Popen(target.command, cwd=folder, env=variables(), stdout=file, stderr=subprocess.STDOUT)
    while first.poll() is None and not last_step(folder, target.stage):
        time.sleep(0.01)
    send_all(first, signal.SIGSTOP)  # so that it is at work until the others have ended
    beside = run([sys.executable, "stages/train.py", "mnist_scratch"], folder)
    second = run(["dvc", "repro", "train@circles"], folder)
    send_all(first, signal.SIGCONT)
    words = [line.replace(f"{folder}/", "") for line in second.stderr.splitlines() if line.startswith("ERROR")]
    return {
        "first_ended_with": first.wait(),
        "second_ended_with": second.returncode,
        "second_said": words[-1] if words else "",
        "training_beside_ended_with": beside.returncode,
        "training_beside_said": beside.stderr.splitlines()[-1] if beside.stderr else "",
    }


BACKWARDS = """
import itertools, time
hours, true = itertools.count(), time.time
time.time = lambda: true() - 3600 * next(hours)
"""


def clock(folder: Path) -> dict[str, Any]:
    """A clock that jumps back by an hour whenever it is asked, and files from a year to come."""
    before, early = contents(folder), folder.parent / "clock"
    early.mkdir(exist_ok=True)
    (early / "sitecustomize.py").write_text(BACKWARDS)
    ended = {}
    for name, key in (("fetch", "faces"), ("train", "circles"), ("sample", "circles"), ("report", "")):
        command = [sys.executable, f"stages/{name}.py", *([key] if key else [])]
        ended[f"{name}@{key}".rstrip("@")] = run(command, folder, PYTHONPATH=f"{early}{os.pathsep}src").returncode
    future = time.time() + 366 * 86400
    for part in (*BUILT, "src", "stages"):
        for path in (folder / part).rglob("*"):
            os.utime(path, (future, future))
    idle = run(["dvc", "repro"], folder)
    return {
        "ended_with": ended,
        "different_files": len(changed(before, contents(folder))),
        "nothing_to_do": idle.returncode == 0 and "Running stage" not in idle.stdout,
    }


def around(folder: Path) -> dict[str, Any]:
    """All of them."""
    found = {}
    for work in (two_at_once, read_only_cache, read_only_home, clock):
        found[work.__name__] = work(folder)
        print(work.__name__, found[work.__name__], flush=True)
    return found


# Any bytes


def fuzz(examples: int) -> dict[str, Any]:
    """How many examples of each kind of input were tried, and how many failed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=36000"]
    command += ["--hypothesis-show-statistics", "tests/test_fuzz_data.py"]
    ran = run(command, Path(), DIFFUSION_LADDER_FUZZ=str(examples))
    parts = re.split(r"^tests/test_fuzz_data\.py::(\w+):$", ran.stdout, flags=re.MULTILINE)[1:]
    counts = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        phases = re.findall(r"(\d+) passing, (\d+) failing, and (\d+) invalid", text)
        sums = [sum(int(phase[place]) for phase in phases) for place in range(3)]
        counts[name] = dict(zip(("passed", "failed", "invalid"), sums, strict=True))
    return {"ended_with": ran.returncode, "tests": counts}


def main() -> None:
    """Run the parts that are asked for, each on a fresh copy of one build."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", help="of kills, disk, around, fuzz; all of them where none is named")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--examples", type=int, default=20000, help="of each kind of input, for fuzz")
    parser.add_argument("--built", type=Path, help="a smoke build of this code to start from, instead of a new one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    parts = options.parts or ["kills", "disk", "around", "fuzz"]
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "built"
        if parts != ["fuzz"]:
            shutil.copytree(options.built, built, symlinks=True) if options.built else build(built)
        works: dict[str, Callable[[Path], dict[str, Any]]] = {
            "kills": lambda folder: kills(folder, options.kills),
            "disk": disk,
            "around": around,
            "fuzz": lambda _: fuzz(options.examples),
        }
        for part in parts:
            folder = Path(scratch) / part / "project"
            if part != "fuzz":
                shutil.copytree(built, folder, symlinks=True)
            write_json(options.results / f"soak-{part}.json", works[part](folder))


if __name__ == "__main__":
    main()
