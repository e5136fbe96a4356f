"""Times a training step beside a plain diffusers loop: python benchmarks/training.py [--preset NAME] [RUNG...].

Every contender does a few steps in turn, round after round, so that whatever else the machine does hits all alike; the
figures are medians over the rounds, and ratios are taken within a round. Results go to benchmarks/results/ under the
machine's name, and benchmarks/README.md is written anew from all of them.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import page
import plain_diffusers
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion_ladder import device as compute
from diffusion_ladder.data.normalise import IMAGES, normalise
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.networks import fused_norms
from diffusion_ladder.networks.embeddings import fold
from diffusion_ladder.networks.norm_kernel import kernel
from diffusion_ladder.params.network import DiffusersUNetNetwork
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.runtime import Runtime
from diffusion_ladder.params.whole import Parameters, load_parameters, validate
from diffusion_ladder.presets import merged_parameters
from diffusion_ladder.rehearsal import Rehearsal
from diffusion_ladder.rungs import Rung, network_module, parameter_count
from diffusion_ladder.training import loop

IMAGES_DRAWN = 1024  # their contents don't matter to the speed
RESULTS = Path("benchmarks/results")


@dataclass(frozen=True)
class Task:
    """A rung of params.yaml with images of its size."""

    name: str
    model: RungParameters
    images: Tensor  # (N, C, H, W) uint8, or (N, 2) float32 points
    labels: Tensor  # (N,) int64
    runtime: Runtime

    @property
    def rehearsal(self) -> Rehearsal:
        """The rung with these images."""
        return Rehearsal(self.name, self.model, self.images, self.labels)


@dataclass(frozen=True)
class Contender:
    """A training that can be advanced step by step, under switches of its own."""

    steps: Iterator[Any]
    switch: Callable[[], object]


def task_of(name: str, parameters: Parameters) -> Task:
    """The rung and random images, or points, of its data set's size."""
    rehearsal = Rehearsal.of(parameters, name)
    return Task(name, rehearsal.model, rehearsal.examples, rehearsal.labels, parameters.runtime)


def our_rung(task: Task, device: torch.device) -> Rung:
    """The rung with fresh weights."""
    return task.rehearsal.rung(device)


def our_training(task: Task, runtime: Runtime) -> loop.Task:
    """What the training loop is given, as its stage sets it up."""
    return task.rehearsal.task(compute.configure(runtime), runtime.compile)


def ours(task: Task, runtime: Runtime) -> Contender:
    """This project's training."""
    return Contender(loop.train(our_training(task, runtime)), lambda: compute.configure(runtime))


def plain_unet(task: Task, device: torch.device) -> plain_diffusers.UNet2DModel:
    """The rung's network as a UNet2DModel, whichever of the two U-Nets the rung itself uses."""
    settings = DiffusersUNetNetwork(**task.model.network.model_dump() | {"name": "diffusers_unet"})
    ours = network_module(settings).build(settings, tuple(task.images.shape[1:]), task.rehearsal.class_rows).unet
    return plain_diffusers.UNet2DModel.from_config(ours.config).to(device)  # without our shorter forwards


def plain(task: Task, device: torch.device, bf16: bool) -> Contender:
    """diffusers' plain loop on the same network, under PyTorch's own defaults."""
    schedule, training = task.model.schedule, task.model.training
    scheduler = plain_diffusers.DDPMScheduler(schedule.T, schedule.beta_start, schedule.beta_end, schedule.name)
    images = fold(normalise(task.images, IMAGES), task.model.network.patch_size)
    unet = plain_unet(task, device)
    steps = plain_diffusers.train(unet, scheduler, images, task.labels, training.batch_size, training.steps, bf16)
    return Contender(steps, lambda: defaults(task.runtime.threads))


def defaults(threads: int) -> None:
    """PyTorch as it comes, but for the number of threads."""
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)


def use_kernel(wanted: bool) -> None:
    """Norms, modulation and SiLU by our kernel where it can be compiled, or by PyTorch's operators."""
    fused_norms.kernel = kernel if wanted else lambda _: None  # type: ignore[assignment]


def without_kernel(runtime: Runtime) -> None:
    """Our settings, but for the kernel."""
    compute.configure(runtime)
    use_kernel(False)


def contenders_of(task: Task, device: torch.device) -> dict[str, Contender]:
    """Ours and the peer's in both precisions, and ours with one measure taken back."""
    bf16, float32 = (task.runtime.model_copy(update={"precision": name}) for name in ("bf16", "float32"))
    fused = ours(task, bf16)  # whose turns differ in one switch
    modes = {"compiled": "default", "CUDA graphs": "reduce-overhead"} if device.type == "cuda" else {}
    compiled = {f"ours, {name}": bf16.model_copy(update={"compile": mode}) for name, mode in modes.items()}
    return {
        "ours": ours(task, bf16),
        "plain float32": plain(task, device, bf16=False),
        "plain bf16": plain(task, device, bf16=True),
        "ours in float32": ours(task, float32),
        "ours, without the kernel": Contender(fused.steps, functools.partial(without_kernel, bf16)),
        "ours, fused attention": Contender(
            fused.steps, lambda: (compute.configure(bf16), torch.backends.cuda.enable_flash_sdp(True))
        ),
        **{name: ours(task, runtime) for name, runtime in compiled.items()},
    }


def seconds_per_step(contender: Contender, steps: int, device: torch.device) -> float:
    """The time of a step, averaged over `steps`."""
    use_kernel(True)
    contender.switch()
    machine.settle(device)
    start = time.perf_counter()
    for _ in range(steps):
        next(contender.steps)
    machine.settle(device)
    return (time.perf_counter() - start) / steps


def flops_per_step(task: Task, device: torch.device) -> int:
    """Floating-point operations of the matrix products and convolutions of a step, forward and backward."""
    contender = plain(task, device, bf16=False)
    contender.switch()
    with FlopCounterMode(display=False) as counter:
        next(contender.steps)
    return int(counter.get_total_flops())


def measure(task: Task, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """Alternate between all contenders, after a warm-up of one turn."""
    contenders = contenders_of(task, device)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            taken = seconds_per_step(contender, steps, device)
            if turn:
                seconds[name].append(taken)
    flops = flops_per_step(task, device)
    return {
        "batch_size": task.model.training.batch_size,
        "parameters": parameter_count(our_rung(task, device).network),
        "gflop_per_step": flops / 1e9,
        "contenders": [
            {"name": name, **summary(taken, seconds["ours"], task, flops)} for name, taken in seconds.items()
        ],
    }


def summary(seconds: list[float], ours: list[float], task: Task, flops: int) -> dict[str, float]:
    """Medians of a contender's rounds, and of its time against ours within a round."""
    median = statistics.median(seconds)
    return {
        "milliseconds": 1e3 * median,
        "fastest_milliseconds": 1e3 * min(seconds),
        "images_per_second": task.model.training.batch_size / median,
        "tflop_per_second": flops / median / 1e12,
        "times_ours": statistics.median(taken / our for taken, our in zip(seconds, ours, strict=True)),
        "fastest_times_ours": min(seconds) / min(ours),
    }


def main() -> None:
    """Measure, write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rungs", nargs="*", default=["mnist_diffusers", "faces"], help="keys of rungs in params.yaml")
    parser.add_argument("--preset", help="an overlay on params.yaml, such as full")
    parser.add_argument("--rounds", type=int, default=25, help="turns of every contender")
    parser.add_argument("--steps", type=int, default=1, help="steps in a turn")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    arguments = parser.parse_args()
    preset = arguments.preset
    parameters = validate(merged_parameters(preset), preset) if preset else load_parameters()
    device = compute.configure(parameters.runtime).device
    facts = machine.facts(device)
    peaks = {name: machine.matmul_rate(getattr(torch, name), device) / 1e12 for name in ("float32", "bfloat16")}
    models = {}
    for name in arguments.rungs:
        models[name] = measure(task_of(name, parameters), device, arguments.rounds, arguments.steps)
        print(f"{name}: {models[name]['contenders'][0]['images_per_second']:.0f} images/s")
    sizes = preset or "default"
    result = {"machine": facts, "sizes": sizes, "peak_tflop_per_second": peaks, "rounds": arguments.rounds}
    write_json(arguments.results / f"training-{machine.file_name(facts)}-{sizes}.json", result | {"models": models})
    page.write(arguments.results)


if __name__ == "__main__":
    main()
