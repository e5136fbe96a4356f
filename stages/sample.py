"""Draw one rung's samples with its two samplers, from the same noise; those of its own sampler with several seeds."""

import time
from dataclasses import replace
from typing import Any

from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.device import configure
from diffusion_ladder.foundation.artifacts import write_tensors
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.processes import Processes, processes_of
from diffusion_ladder.rungs import load_rung, parameter_count
from diffusion_ladder.sampling.loop import Drawing, Samples, draw_samples


def facts_of(stage: Stage, sampler: str, seeds: int, drawn: Samples) -> dict[str, object]:
    """How samples were drawn, for their file's metadata."""
    settings = stage.section("sampling", Sampling)
    return {
        "model": stage.key,
        "sampler": sampler,
        "nfe": drawn.nfe,
        "spacing": settings.spacing,
        "eta": settings.eta,
        "guidance_scale": settings.guidance_scale,
        "guidance_interval": settings.guidance_interval or [0.0, 1.0],
        "seed": stage.parameter("seed", int),
        "sampling_seeds": seeds,
    }


def draw_files(stage: Stage, processes: Processes) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
    """Tensors and metadata of each file: the samples of both samplers, and the way of the first few from noise."""
    settings = stage.section("sampling", Sampling)
    rung = load_rung(f"models/{stage.key}")
    rung = replace(rung, network=rung.network.to(stage.device))
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters")
    files, trajectories, facts = {}, {}, {}
    runs = {
        "sampling": (settings.sampler, settings.steps, settings.count, settings.seeds),
        "comparison": (
            stage.parameter(f"rungs.{stage.key}.schedulers.comparison", str),
            settings.comparison_steps,
            settings.comparison_count,
            1,
        ),
    }
    precision, seed = stage.precision, stage.parameter("seed", int)
    for use, (sampler, steps, count, seeds) in runs.items():
        drawing = Drawing(rung, sampler, settings, steps, count, seed, seeds, precision)
        total = drawing.total * len(drawing.scheduler()[0].timesteps)
        bar: dict[str, Any] = {"desc": f"{stage.label} {sampler}", "unit": " steps", "unit_scale": True}
        with tqdm(total=total // processes.count, disable=not stage.launch.is_main, **bar) as progress:
            start = time.perf_counter()
            drawn = draw_samples(drawing, progress.update, processes)
            stage.note_work(f"sample by {sampler}, {drawn.nfe} evaluations", drawing.total, time.perf_counter() - start)
        facts[use] = facts_of(stage, sampler, seeds, drawn)
        suffix = "" if use == "sampling" else ".comparison"
        files[suffix] = {name: getattr(drawn, name) for name in ("samples", "labels", "sampling_seed")}, facts[use]
        for name in ("states", "predicted", "timesteps", "final"):
            trajectories[f"{use}.{name}"] = getattr(drawn, name)
    return files | {".trajectories": (trajectories, facts)}


def main(stage: Stage) -> None:
    """Draw with all processes, and let the main one write."""
    with processes_of(stage.launch, stage.device) as processes:
        files = draw_files(stage, processes)
    if stage.launch.is_main:
        for suffix, (tensors, metadata) in files.items():
            write_tensors(f"data/samples/{stage.key}{suffix}.safetensors", tensors, metadata)


if __name__ == "__main__":
    run_stage(main, configure, many_processes=True)
