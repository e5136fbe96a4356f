"""The machine that a benchmark ran on, and how fast it multiplies matrices."""

import importlib.metadata
import os
import re
import time
from typing import Any

import torch

from diffusion_ladder.foundation.runtime import processor_name

SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices: large enough to reach the peak
REPETITIONS = 8


def facts(device: torch.device) -> dict[str, Any]:
    """What names the machine: processor or GPU, its instructions for bfloat16, threads, other load and versions."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name() if device.type == "cuda" else processor_name(),
        "amx": bool(capabilities.get("amx_bf16")),
        "avx512_bf16": bool(capabilities.get("avx512_bf16")),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
    }


def file_name(machine: dict[str, Any]) -> str:
    """The machine's name as part of a file's: letters, digits and hyphens."""
    units = "" if machine["device"] == "cuda" else f" {machine['threads']} threads"
    instructions = " amx" if machine["amx"] and machine["device"] == "cpu" else ""
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['name']}{instructions}{units}".lower()).strip("-")


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The best rate of a large matrix product, in floating-point operations per second: the peak to be measured by."""
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(REPETITIONS):
        settle(device)
        start = time.perf_counter()
        a @ b
        settle(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)
