"""A stage's environment variables: what shapes results comes from params.yaml, never from a shell that is inherited."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

IGNORED = (  # names, or how they begin: of variables that would change what is computed or drawn, or stop it
    *("MPLBACKEND", "MATPLOTLIBRC"),
    *("ACCELERATE_GRADIENT_ACCUMULATION", "ACCELERATE_DYNAMO", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DISPATCH"),
    *("ATEN_CPU_CAPABILITY", "DNNL_", "ONEDNN_", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_COMPILE", "TORCH_ALLOW_TF32", "NVIDIA_TF32_OVERRIDE"),
)


def ignored(environment: Mapping[str, str]) -> list[str]:
    """The names of the variables that a stage does without."""
    return sorted(name for name in environment if name.startswith(IGNORED))


def runs_a_stage() -> bool:
    """Whether this process runs one of the scripts under stages/."""
    script = Path(sys.argv[0]) if sys.argv else Path()
    return script.suffix == ".py" and script.parent.name == "stages"


def start_clean() -> None:
    """Start a stage's process again without the variables that it ignores, if there are any, and say so.

    Some of them act when a library is loaded, so that taking them away later would be too late.
    """
    names = ignored(os.environ) if runs_a_stage() else []
    if names:
        print(f"{Path(sys.argv[0]).stem}: ignores the environment's {', '.join(names)}", file=sys.stderr, flush=True)
        kept = {name: value for name, value in os.environ.items() if name not in names}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)
