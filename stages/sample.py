"""Draw one rung's samples with its two samplers, from the same noise."""

from dataclasses import replace

from tqdm import tqdm

from diffusion_ladder.artifacts import write_tensors
from diffusion_ladder.rungs import load_rung, parameter_count
from diffusion_ladder.runtime import Stage, run_stage
from diffusion_ladder.sampling.loop import Samples, draw_samples


def facts_of(stage: Stage, use: str, drawn: Samples) -> dict[str, object]:
    """How samples were drawn, for their file's metadata."""
    settings = stage.parameter(f"sampling.{stage.key}")
    return {
        "model": stage.key,
        "sampler": stage.parameter(f"models.{stage.key}.schedulers.{use}"),
        "nfe": drawn.nfe,
        "spacing": settings.spacing,
        "eta": settings.eta,
        "guidance_scale": settings.guidance_scale,
        "seed": stage.parameter("seed"),
    }


def main(stage: Stage) -> None:
    """Write the samples of both samplers, and the way of the first few from noise."""
    settings = stage.parameter(f"sampling.{stage.key}")
    rung = load_rung(f"models/{stage.key}")
    rung = replace(rung, network=rung.network.to(stage.device))
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters")
    trajectories, facts = {}, {}
    runs = {
        "sampling": (settings.steps, settings.count),
        "comparison": (settings.comparison_steps, settings.comparison_count),
    }
    for use, (steps, count) in runs.items():
        sampler = stage.parameter(f"models.{stage.key}.schedulers.{use}")
        total = count * (rung.schedule.T if steps == "all" else steps)
        with tqdm(total=total, desc=f"{stage.label} {sampler}", unit=" evaluations", unit_scale=True) as progress:
            drawn = draw_samples(
                rung, sampler, settings, steps, count, stage.parameter("seed"), stage.precision, progress.update
            )
        facts[use] = facts_of(stage, use, drawn)
        suffix = "" if use == "sampling" else ".comparison"
        samples = {"samples": drawn.samples, "labels": drawn.labels}
        write_tensors(f"data/samples/{stage.key}{suffix}.safetensors", samples, facts[use])
        for name in ("states", "predicted", "timesteps", "final"):
            trajectories[f"{use}.{name}"] = getattr(drawn, name)
    write_tensors(f"data/samples/{stage.key}.trajectories.safetensors", trajectories, facts)


if __name__ == "__main__":
    run_stage(main)
