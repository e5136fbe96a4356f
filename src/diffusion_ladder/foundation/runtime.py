"""What every stage shares: its parameters, device, threads, precision and run record."""

import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import threadpoolctl

from diffusion_ladder.foundation.artifacts import canonical_json, write_json
from diffusion_ladder.foundation.errors import ParameterError, UserError
from diffusion_ladder.foundation.graph import label, read_graph
from diffusion_ladder.foundation.hashes import md5_of_output
from diffusion_ladder.foundation.section import load_yaml, look_up, look_up_or_none, rung_section, validated
from diffusion_ladder.params.runtime import Checkpoints, Runtime

if TYPE_CHECKING:
    import torch


T = TypeVar("T")

RUN_RECORDS = Path("reports/run")
FORECAST = Path(".dvc/tmp/forecast.json")  # seconds that each stage is expected to take, by `diffusion_ladder.forecast`
COMPUTING = ("torch", "diffusers", "numpy")  # the packages whose versions change what is computed
MAXRSS_UNITS = 1024 * 1024 if sys.platform == "darwin" else 1024  # in a MiB: macOS counts bytes, Linux kibibytes
FORECAST_WEIGHT = 60.0  # seconds of finished stages that count as much as the forecast itself
TESTED_SYSTEM = "Linux"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # a disk is full or read-only
BUILT = ("data/", "models/", "reports/")  # where stages write
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")  # environment variables, in which several processes find each other
LAUNCHER = "DIFFUSION_LADDER_LAUNCHER"  # environment variable: the command that starts several processes of a stage


class Compute(Protocol):
    """Where a stage computes, as `device.configure` chooses it."""

    @property
    def device(self) -> "torch.device":
        """CPU or GPU."""

    @property
    def precision(self) -> "torch.dtype":
        """Of matrix products."""

    @property
    def circumstances(self) -> dict[str, Any]:
        """What a run record tells of it."""


@dataclass(frozen=True)
class Launch:
    """Which process of a stage this is.

    Attributes:
        rank: from 0, which is the main process: it alone writes.
        count: of all processes.
    """

    rank: int
    count: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Launch":
        """What `torchrun` and `accelerate launch` say in the environment variables; without them, the only process.

        Raises:
            UserError: there is a part of what they say, or numbers that no launcher sets.
        """
        said = {name: environment[name] for name in ("RANK", "WORLD_SIZE") if name in environment}
        if not said:
            return ALONE
        found = " and ".join(f"{name}={value}" for name, value in said.items())
        remedy = "unset what is there, or start this stage by torchrun"
        if len(said) < 2 or not all(value.isascii() and value.isdigit() for value in said.values()):
            raise UserError(
                f"the environment has {found}, but a launcher sets RANK and WORLD_SIZE to numbers: {remedy}"
            )
        launch = cls(int(said["RANK"]), int(said["WORLD_SIZE"]))
        if not launch.rank < launch.count:
            raise UserError(f"the environment has {found}, but ranks count from 0 and end below WORLD_SIZE: {remedy}")
        if launch.count > 1 and (missing := [name for name in RENDEZVOUS if name not in environment]):
            raise UserError(
                f"the environment has {found} without {' and '.join(missing)}, where the processes find each other:"
                f" {remedy}"
            )
        return launch

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


ALONE = Launch(0, 1)


class Stage:
    """A running stage: which one it is, the parameters that it may read, and where it computes.

    Attributes:
        name: the stage's name in dvc.yaml, such as `train`.
        key: the entry of its `foreach`, such as `circles`; empty for a stage without one.
        launch: which of its processes this is.
        device, precision: what it computes with, in a stage that is given `configure`.
        circumstances: the device, its name, threads, precision and number of processes, for the run record.
        work: what was done how often in how many seconds, for the run record.
    """

    device: "torch.device"
    precision: "torch.dtype"

    def __init__(self, name: str, key: str, launch: Launch = ALONE) -> None:
        self.name = name
        self.key = key
        self.launch = launch
        self.parameters_read: set[str] = set()
        self.work: dict[str, dict[str, float]] = {}
        self._values = load_yaml("params.yaml")
        definition = read_graph(self._values)[name]
        self._declared, self._dependencies = definition.listed("params", key), definition.listed("deps", key)
        self.circumstances: dict[str, Any] = {
            "device": "cpu",
            "device_name": processor_name(),
            "processes": launch.count,
        }

    @property
    def label(self) -> str:
        """The name that DVC gives the stage, such as `train@circles`."""
        return label(self.name, self.key)

    def declares(self, key: str) -> bool:
        """Whether dvc.yaml lists this parameter, or a section around it, for this stage."""
        return any(key == listed or key.startswith(f"{listed}.") for listed in self._declared)

    def _read(self, key: str) -> Any:
        if not self.declares(key):
            raise ParameterError(f"{self.label} reads the parameter {key}, which dvc.yaml does not list for it")
        self.parameters_read.add(key)
        return look_up(self._values, key)

    def parameter(self, key: str, kind: type[T]) -> T:
        """The value or section at a dotted key of params.yaml, as its type.

        Raises:
            ParameterError: dvc.yaml does not declare it for this stage, so that DVC would not see it change; or it is
                not of its type.
        """
        return validated(kind, self._read(key), key)

    def section(self, name: str, kind: type[T]) -> T:
        """A section of the stage's rung, with what `every_rung` adds to it, as its type.

        Raises:
            ParameterError: as `parameter`.
        """
        for place in (f"every_rung.{name}", f"rungs.{self.key}.{name}"):
            if look_up_or_none(self._values, place) is not None:
                self._read(place)
        return validated(kind, rung_section(self._values, self.key, name), f"rungs.{self.key}.{name}")

    @property
    def checkpoint_seconds(self) -> float:
        """Time between two checkpoints: it shapes no result, so that no stage declares it."""
        return validated(Checkpoints, self._values["checkpoints"], "checkpoints").seconds

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the stage's result: dependencies, parameters, and how this machine computes."""
        facts = {
            "stage": self.label,
            "dependencies": {path: md5_of_output(path, Path()) for path in self._dependencies},
            "parameters": {key: look_up(self._values, key) for key in self._declared},
            "versions": {name: importlib.metadata.version(name) for name in COMPUTING},
            "computed_by": self.describe(),
        }
        return hashlib.sha256(canonical_json(facts).encode("utf-8")).hexdigest()

    def prepare(self, configure: Callable[[Runtime], Compute] | None) -> None:
        """Choose device, precision and threads by the parameters; without `configure`, one thread of the CPU."""
        if configure is None:
            threadpoolctl.threadpool_limits(1)  # so that nothing depends on the number of cores
            self.circumstances |= {"threads": 1, "precision": "float32"}
            return
        settings = self.parameter("runtime", Runtime)
        compute = configure(settings)
        self.device, self.precision = compute.device, compute.precision
        self.circumstances |= {"threads": settings.threads, **compute.circumstances}

    def refuse_missing(self) -> None:
        """Say what to run where the work of another stage isn't there, as in a fresh clone: DVC doesn't look itself.

        Raises:
            UserError: a dependency that another stage writes is missing.
        """
        built = (path for path in self._dependencies if path.startswith(BUILT))
        if missing := next((path for path in built if not os.path.exists(path)), None):
            raise UserError(f"{missing} is missing: `dvc repro {self.label}`, without -s, builds it first")

    def note_work(self, what: str, count: int, seconds: float) -> None:
        """Take down for the run record how long it took to do something so many times; of nothing, nothing."""
        if count:
            self.work[what] = {"count": count, "seconds": round(seconds, 3)}

    def describe(self) -> str:
        """Device, threads, precision and number of processes in one line."""
        words = "{device} ({device_name}), {threads} threads, {precision}".format(**self.circumstances)
        return words + (f", {self.launch.count} processes" if self.launch.count > 1 else "")


def processor_name() -> str:
    """The processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def time_left(stage: str) -> str:
    """How long this stage and those after it will take, if it was forecast, corrected by those that have finished."""
    if not FORECAST.exists():
        return ""
    plan = json.loads(FORECAST.read_text(encoding="utf-8"))
    begun, expected = FORECAST.stat().st_mtime, plan["seconds"]
    paths = {name: RUN_RECORDS / f"{name}.json" for name in expected}
    done = [name for name, path in paths.items() if path.exists() and path.stat().st_mtime > begun]
    if stage not in expected or stage in done:
        return ""
    took = sum(json.loads(paths[name].read_text(encoding="utf-8"))["seconds"] for name in done)
    pace = (took + FORECAST_WEIGHT) / (sum(expected[name] for name in done) + FORECAST_WEIGHT)
    left = [seconds * pace + plan["start"] for name, seconds in expected.items() if name not in done]
    return f"; about {in_minutes(sum(left))} left of all"


def in_minutes(seconds: float) -> str:
    """Seconds, minutes or hours, to two digits or so: what a forecast is worth."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def start_processes(command: str) -> None:
    """Become the command that starts this stage's processes, if there is one.

    Raises:
        UserError: it can't be run.
    """
    if words := shlex.split(command):
        try:
            os.execvp(words[0], [*words, *sys.argv])
        except OSError as error:
            raise UserError(f"{LAUNCHER}: {words[0]} can't be run: {error.strerror}") from None


def run_stage(
    main: Callable[[Stage], None],
    configure: Callable[[Runtime], Compute] | None = None,
    many_processes: bool = False,
) -> None:
    """Run a stage script: `python stages/NAME.py [KEY]`.

    Prints the device first; turns an error that the user can mend into one line and exit code 1; writes the run record.
    Of several processes, the main one alone writes to standard output.

    Args:
        main: the stage's work.
        configure: `device.configure`, of a stage that computes with torch; others don't wait for its import.
        many_processes: whether several processes can share it.
    """
    name, key = Path(sys.argv[0]).stem, "".join(sys.argv[1:2])
    start, launch = time.perf_counter(), ALONE
    try:
        launch = Launch.of(os.environ)
        if many_processes:
            start_processes(os.environ.pop(LAUNCHER, ""))
        elif launch.count > 1:
            raise UserError("this stage is the work of one process: start it without a launcher")
        if not launch.is_main:
            sys.stdout = io.StringIO()
        elif isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of a class
        stage = Stage(name, key, launch)
        stage.refuse_missing()
        stage.prepare(configure)
        print(f"{stage.label}: {stage.describe()}{time_left(stage.label)}", flush=True)
        if (system := platform.system()) != TESTED_SYSTEM:
            print(f"{stage.label}: {system} is untested here, only {TESTED_SYSTEM} is; it may work", flush=True)
        main(stage)
        if launch.is_main:
            write_json(RUN_RECORDS / f"{stage.label}.json", run_record(stage, time.perf_counter() - start))
    except (UserError, OSError) as error:
        process = "" if launch.is_main else f" (process {launch.rank})"
        sys.exit(f"{label(name, key)}{process}: {in_words(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def in_words(error: UserError | OSError) -> str:
    """What a user can mend, in one line; any other error is raised again."""
    if isinstance(error, UserError):
        return str(error)
    if error.errno not in UNWRITABLE:
        raise error
    place = error.filename or f"a file below {Path.cwd()} or {tempfile.gettempdir()}"
    return f"{place} can't be written: {os.strerror(error.errno)}"


def run_record(stage: Stage, seconds: float) -> dict[str, Any]:
    """How a stage ran: the only facts that may differ between two runs of the same work."""
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "stage": stage.label,
        "seconds": round(seconds, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peak_memory_mib": round(max(part.ru_maxrss for part in usage) / MAXRSS_UNITS, 1),
        **({"work": stage.work} if stage.work else {}),
        **stage.circumstances,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
        "imports": project_files(),
        "parameters": sorted(stage.parameters_read),
    }


def project_files() -> list[str]:
    """The files of this project that have been imported, relative to the working directory."""
    root = os.getcwd()
    origins = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = {os.path.relpath(origin, root) for origin in origins if origin and os.path.abspath(origin).startswith(root)}
    # Some modules of torch name files that aren't there.
    return sorted(file for file in files if not file.startswith((".venv/", "../")) and os.path.isfile(file))
