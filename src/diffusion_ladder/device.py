"""Where and in which precision a stage computes: the section `runtime` of params.yaml.

It stands apart from runtime.py so that stages which only read, draw and write don't wait for torch.
"""

import os
from dataclasses import dataclass

import threadpoolctl
import torch

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.runtime import Runtime


@dataclass(frozen=True)
class Compute:
    """What torch computes with.

    Attributes:
        device: where tensors live.
        precision: dtype of the matrix products.
    """

    device: torch.device
    precision: torch.dtype

    @property
    def circumstances(self) -> dict[str, str]:
        """Both in words, and the name of a GPU, for the run record."""
        float32 = "tf32" if torch.backends.cudnn.allow_tf32 else "float32"
        facts = {"device": self.device.type, "precision": "bf16" if self.precision == torch.bfloat16 else float32}
        return facts | ({"device_name": torch.cuda.get_device_name()} if self.device.type == "cuda" else {})


def configure(settings: Runtime) -> Compute:
    """Set this process up as `runtime` in params.yaml says: threads, and algorithms that repeat themselves."""
    torch.set_num_threads(settings.threads)
    threadpoolctl.threadpool_limits(settings.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    # As torch.use_deterministic_algorithms(True, warn_only=True), without its second of imports for the compiler.
    torch.set_deterministic_debug_mode("warn")
    # Filling uninitialised memory would cost time, and nothing reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    choose_tf32(settings.precision == "tf32")
    choose_attention(device, precision)
    return Compute(device, precision)


def choose_tf32(wanted: bool) -> None:
    """Let a GPU round the factors of float32 products to TF32, or not, alike for matrices and convolutions.

    By default PyTorch rounds them for convolutions only, so that float32 would not be what it says.
    """
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def choose_attention(device: torch.device, precision: torch.dtype) -> None:
    """Take PyTorch's plain attention for bf16 on a CPU, where the fused one is slow backwards.

    Both multiply in bf16. The switches are called after CUDA, but hold for CPUs too.
    """
    plain = device.type == "cpu" and precision == torch.bfloat16
    torch.backends.cuda.enable_flash_sdp(not plain)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(plain)


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
    """The dtype of matrix products: `auto` takes bfloat16 on a GPU and on a processor with instructions for it.

    Raises:
        UserError: TF32 is asked for, and the device is no GPU.
    """
    if name == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else processor_has_bf16()
        name = "bf16" if fast and device.type != "mps" else "float32"
    if name == "tf32" and device.type != "cuda":
        raise UserError(f"runtime.precision: tf32 is a GPU's, and the device is {device.type}; use auto or float32")
    return torch.bfloat16 if name == "bf16" else torch.float32


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices natively (AMX or AVX512-BF16)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
