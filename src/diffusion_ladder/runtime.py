"""What every stage shares: its parameters, device, threads, precision and run record."""

import hashlib
import importlib.metadata
import io
import os
import platform
import re
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import threadpoolctl
import yaml

from diffusion_ladder.artifacts import canonical_json, sha256_of_file, write_json
from diffusion_ladder.errors import ParameterError, UserError
from diffusion_ladder.params import Parameters, Runtime, load_parameters, look_up

if TYPE_CHECKING:
    import torch

RUN_RECORDS = Path("reports/run")
COMPUTING = ("torch", "diffusers", "numpy")  # the packages whose versions change what is computed
LAUNCHER = "DIFFUSION_LADDER_LAUNCHER"  # environment variable: the command that starts several processes of a stage


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
        """What `torchrun` and `accelerate launch` say in the environment variables; without them, the only process."""
        if "RANK" not in environment:
            return ALONE
        return cls(int(environment["RANK"]), int(environment["WORLD_SIZE"]))

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
        device, precision: what it computes with, in a stage that lists `runtime`.
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
        self._parameters = load_parameters()
        self._declared = declared_parameters(name, key, self._parameters)
        self._dependencies = declarations(name, key, self._parameters, "deps")
        self.circumstances: dict[str, Any] = {
            "device": "cpu",
            "device_name": processor_name(),
            "processes": launch.count,
        }
        if "runtime" in self._declared:
            self._configure(self.parameter("runtime"))
        else:
            threadpoolctl.threadpool_limits(1)  # so that nothing depends on the number of cores
            self.circumstances |= {"threads": 1, "precision": "float32"}

    @property
    def label(self) -> str:
        """The name that DVC gives the stage, such as `train@circles`."""
        return f"{self.name}@{self.key}" if self.key else self.name

    def declares(self, key: str) -> bool:
        """Whether dvc.yaml lists this parameter, or a section around it, for this stage."""
        return any(key == declared or key.startswith(declared + ".") for declared in self._declared) or (
            "" in self._declared
        )

    def parameter(self, key: str) -> Any:
        """The value or section at a dotted key of params.yaml.

        Raises:
            ParameterError: dvc.yaml does not declare it for this stage, so that DVC would not see it change.
        """
        if not self.declares(key):
            raise ParameterError(f"{self.label} reads the parameter {key}, which dvc.yaml does not list for it")
        self.parameters_read.add(key)
        return look_up(self._parameters, key)

    def all_parameters(self) -> Parameters:
        """The whole of params.yaml, for a stage that declares all of it."""
        if "" not in self._declared:
            raise ParameterError(f"{self.label} reads all parameters, but dvc.yaml does not list params.yaml for it")
        self.parameters_read.add("")
        return self._parameters

    @property
    def checkpoint_seconds(self) -> float:
        """Time between two checkpoints: it shapes no result, so that no stage declares it."""
        return self._parameters.checkpoints.seconds

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the stage's result: dependencies, parameters, and how this machine computes."""
        values = self._parameters.model_dump(mode="json")
        facts = {
            "stage": self.label,
            "dependencies": {path: sha256_of_file(path) for path in self._dependencies},
            "parameters": {key: look_up(values, key) for key in self._declared},
            "versions": {name: importlib.metadata.version(name) for name in COMPUTING},
            "computed_by": self.describe(),
        }
        return hashlib.sha256(canonical_json(facts).encode("utf-8")).hexdigest()

    def _configure(self, settings: Runtime) -> None:
        from diffusion_ladder.device import configure  # here, because it imports torch, which many stages don't need

        compute = configure(settings)
        self.device, self.precision = compute.device, compute.precision
        self.circumstances |= {"threads": settings.threads, **compute.circumstances}

    def note_work(self, what: str, count: int, seconds: float) -> None:
        """Take down for the run record how long it took to do something so many times; of nothing, nothing."""
        if count:
            self.work[what] = {"count": count, "seconds": round(seconds, 3)}

    def describe(self) -> str:
        """Device, threads, precision and number of processes in one line."""
        words = "{device} ({device_name}), {threads} threads, {precision}".format(**self.circumstances)
        return words + (f", {self.launch.count} processes" if self.launch.count > 1 else "")


def declared_parameters(name: str, key: str, parameters: Parameters, path: str | Path = "dvc.yaml") -> list[str]:
    """The parameters that dvc.yaml lists for a stage, with ${key} and ${item...} filled in; "" stands for all."""
    return declarations(name, key, parameters, "params", path)


def declarations(name: str, key: str, parameters: Parameters, what: str, path: str | Path = "dvc.yaml") -> list[str]:
    """The entries of a list in a stage of dvc.yaml, with ${key} and ${item...} filled in; "" for a mapping."""
    definition = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["stages"][name]
    values: dict[str, Any] = {"key": key}
    if "foreach" in definition:
        entries = look_up(parameters, definition["foreach"].strip("${}"))
        if key not in entries:
            raise UserError(f"{name}: there is no {key!r}; choose one of {', '.join(entries)}")
        values["item"] = entries[key]
        definition = definition["do"]
    return [
        "" if isinstance(entry, dict) else re.sub(r"\$\{(.+?)\}", lambda m: str(look_up(values, m[1])), entry)
        for entry in definition.get(what, [])
    ]


def processor_name() -> str:
    """The processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


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


def run_stage(main: Callable[[Stage], None], many_processes: bool = False) -> None:
    """Run a stage script: `python stages/NAME.py [KEY]`.

    Prints the device first; turns an error that the user can mend into one line and exit code 1; writes the run record.
    Of several processes, the main one alone writes to standard output.

    Args:
        main: the stage's work.
        many_processes: whether several processes can share it.
    """
    name, key = Path(sys.argv[0]).stem, "".join(sys.argv[1:2])
    start = time.perf_counter()
    launch = Launch.of(os.environ)
    try:
        if many_processes:
            start_processes(os.environ.pop(LAUNCHER, ""))
        elif launch.count > 1:
            raise UserError("this stage is the work of one process: start it without a launcher")
        if not launch.is_main:
            sys.stdout = io.StringIO()
        stage = Stage(name, key, launch)
        print(f"{stage.label}: {stage.describe()}", flush=True)
        main(stage)
    except UserError as error:
        process = "" if launch.is_main else f" (process {launch.rank})"
        sys.exit(f"{name}{'@' + key if key else ''}{process}: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if launch.is_main:
        write_json(RUN_RECORDS / f"{stage.label}.json", run_record(stage, time.perf_counter() - start))


def run_record(stage: Stage, seconds: float) -> dict[str, Any]:
    """How a stage ran: the only facts that may differ between two runs of the same work."""
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "stage": stage.label,
        "seconds": round(seconds, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peak_memory_mib": round(max(part.ru_maxrss for part in usage) / 1024, 1),
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
