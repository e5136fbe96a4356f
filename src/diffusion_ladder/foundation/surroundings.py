"""A process's environment variables: what shapes results comes from params.yaml, never from an inherited shell."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

IGNORED = (  # names, or how they begin: of variables that would change what is computed or drawn, or stop it
    *("MPLBACKEND", "MATPLOTLIBRC"),
    *("ACCELERATE_GRADIENT_ACCUMULATION", "ACCELERATE_DYNAMO", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DISPATCH"),
    *("ATEN_CPU_CAPABILITY", "DNNL_", "ONEDNN_", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DYNAMIC"),
    *("OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_SCHEDULE", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_"),
    *("KMP_AFFINITY", "KMP_DETERMINISTIC", "KMP_DYNAMIC", "KMP_FORCE_REDUCTION", "KMP_HW_SUBSET", "KMP_ALL_THREADS"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_COMPILE", "TORCH_ALLOW_TF32", "NVIDIA_TF32_OVERRIDE", "TORCH_LOGS"),
    *("USE_TF", "USE_TORCH", "USE_JAX", "USE_FLAX", "DIFFUSERS_", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"),
    *("TQDM_MININTERVAL", "TQDM_MAXINTERVAL", "TQDM_MINITERS", "TQDM_NCOLS", "TQDM_NROWS"),
)


def ignored(environment: Mapping[str, str]) -> list[str]:
    """The names of the variables that stages and commands do without."""
    return sorted(name for name in environment if name.startswith(IGNORED))


def program() -> str | None:
    """The stage or the command (`python -m diffusion_ladder.NAME`) of the project that this process runs, if any."""
    script, modules = Path(sys.argv[0]) if sys.argv else Path(), sys.orig_argv[1:-1]
    if script.suffix == ".py" and script.parent.name == "stages":
        return script.stem
    module = sys.orig_argv[modules.index("-m") + 2] if "-m" in modules else ""
    return module if module.startswith("diffusion_ladder.") and sys.argv[:1] == ["-m"] else None


def start_clean() -> None:
    """Start the process of a stage or a command again without the variables that it ignores, if any, and say so.

    Some of them act when a library is loaded, so that taking them away later would be too late.
    """
    name = program()
    names = ignored(os.environ) if name else []
    if names:
        print(f"{name}: ignores the environment's {', '.join(names)}", file=sys.stderr, flush=True)
        kept = {name: value for name, value in os.environ.items() if name not in names}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)
