"""What every stage shares: its parameters, device, threads, precision and run record."""

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import threadpoolctl
import torch
import yaml

from diffusion_ladder.artifacts import write_json
from diffusion_ladder.errors import ParameterError, UserError
from diffusion_ladder.params import Parameters, Runtime, load_parameters, look_up

RUN_RECORDS = Path("reports/run")


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes an accelerator where there is one.

    Raises:
        UserError: the device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"runtime.device: {name} was asked for, but torch finds none; use auto or cpu")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: `auto` takes bfloat16 on a GPU and on a processor with instructions for it."""
    if name == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else processor_has_bf16()
        name = "bf16" if fast and device.type != "mps" else "float32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices natively (AMX or AVX512-BF16)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


class Stage:
    """A running stage: which one it is, the parameters that it may read, and where it computes.

    Attributes:
        name: the stage's name in dvc.yaml, such as `train`.
        key: the entry of its `foreach`, such as `circles`; empty for a stage without one.
    """

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.parameters_read: set[str] = set()
        self._parameters = load_parameters()
        self._declared = declared_parameters(name, key, self._parameters)
        self.device = torch.device("cpu")
        self.precision = torch.float32
        if self.declares("runtime"):
            self._configure(self.parameter("runtime"))

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

    def _configure(self, settings: Runtime) -> None:
        self.device = choose_device(settings.device)
        self.precision = choose_precision(settings.precision, self.device)
        torch.set_num_threads(settings.threads)
        threadpoolctl.threadpool_limits(settings.threads)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling uninitialised memory would cost time, and nothing reads it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def describe(self) -> str:
        """Device, threads and precision in one line."""
        precision = "bf16" if self.precision == torch.bfloat16 else "float32"
        return f"{self.device.type} ({device_name(self.device)}), {torch.get_num_threads()} threads, {precision}"


def declared_parameters(name: str, key: str, parameters: Parameters, path: str | Path = "dvc.yaml") -> list[str]:
    """The parameters that dvc.yaml lists for a stage, with ${key} and ${item...} filled in; "" stands for all."""
    definition = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["stages"][name]
    values: dict[str, Any] = {"key": key}
    if "foreach" in definition:
        entries = look_up(parameters, definition["foreach"].strip("${}"))
        if key not in entries:
            raise UserError(f"{name}: there is no {key!r}; choose one of {', '.join(entries)}")
        values["item"] = entries[key]
        definition = definition["do"]
    declared = definition.get("params", [])
    return [
        "" if isinstance(entry, dict) else re.sub(r"\$\{(.+?)\}", lambda m: str(look_up(values, m[1])), entry)
        for entry in declared
    ]


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def run_stage(main: Callable[[Stage], None]) -> None:
    """Run a stage script: `python stages/NAME.py [KEY]`.

    Prints the device first; turns an error that the user can mend into one line and exit code 1; writes the run record.
    """
    name, key = Path(sys.argv[0]).stem, "".join(sys.argv[1:2])
    start = time.perf_counter()
    try:
        stage = Stage(name, key)
        print(f"{stage.label}: {stage.describe()}", flush=True)
        main(stage)
    except UserError as error:
        sys.exit(f"{name}{'@' + key if key else ''}: {error}")
    write_json(RUN_RECORDS / f"{stage.label}.json", run_record(stage, time.perf_counter() - start))


def run_record(stage: Stage, seconds: float) -> dict[str, Any]:
    """How a stage ran: the only facts that may differ between two runs of the same work."""
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "stage": stage.label,
        "seconds": round(seconds, 2),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peak_memory_mib": round(max(part.ru_maxrss for part in usage) / 1024, 1),
        "device": stage.device.type,
        "device_name": device_name(stage.device),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if stage.precision == torch.bfloat16 else "float32",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "imports": project_files(),
        "parameters": sorted(stage.parameters_read),
    }


def project_files() -> list[str]:
    """The files of this project that have been imported, relative to the working directory."""
    root = Path.cwd().resolve()
    origins = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = [Path(origin).resolve() for origin in origins if origin]
    inside = [file for file in files if file.is_relative_to(root) and not file.is_relative_to(root / ".venv")]
    inside = [file for file in inside if file.is_file()]  # some modules of torch name files that aren't there
    return sorted({file.relative_to(root).as_posix() for file in inside})
