"""Seconds to 1,000 digits and to 64 portraits as good as DDPM's with all steps: python benchmarks/sampling.py.

The peer is the loop that a user of diffusers writes around DDPMScheduler, with all steps, on the same trained weights
as a plain UNet2DModel, in float32 or under bf16 autocast, whichever is faster; nothing of it is extrapolated. Ours is
the rung's own sampler and others in fewer steps. A sampler is good where its distance from held-out images is at most
the peer's plus the deviation that equal sets of real images have. Results go to benchmarks/results/ under the machine's
name.
"""

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import machine
import page
import torch
from plain_diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor
from training import RESULTS, defaults

from diffusion_ladder import device as compute
from diffusion_ladder.data.normalise import unnormalise
from diffusion_ladder.evaluation.bounds import mean_and_deviation, subsets
from diffusion_ladder.evaluation.classifier import judge, load_classifier
from diffusion_ladder.evaluation.images import frechet_distance
from diffusion_ladder.foundation.artifacts import read_tensors, write_json
from diffusion_ladder.networks.embeddings import unfold
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.whole import Parameters, load_parameters, validate
from diffusion_ladder.presets import merged_parameters
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, load_rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples

FLOORS = 5  # sets of training images
TIMED_STEPS = 4
WANTED = {"mnist_diffusers": 1000, "faces": 64}  # samples whose seconds count
JUDGED = {"mnist_diffusers": 1000, "faces": 256}  # and those whose distance does: 64 are too few for one
FEWER_STEPS = (10, 20, 30)
Distance = Callable[[Tensor], float]


@dataclass(frozen=True)
class Task:
    """A trained rung, its parameters, and how many samples are wanted and judged."""

    rung: Rung
    folder: Path
    model: RungParameters
    wanted: int
    judged: int

    @property
    def batches(self) -> list[int]:
        """Sizes of the batches: the wanted ones first, as the rung's batch size has them."""
        size = self.model.sampling.batch_size
        parts = (self.wanted, self.judged - self.wanted)
        return [min(size, part - first) for part in parts for first in range(0, part, size)]


def peer_batch(task: Task, unet: UNet2DModel, labels: Tensor, steps: int, bf16: bool) -> Iterator[Tensor]:
    """The plain loop: x after each of the first `steps` of all steps, (B, C, H, W) folded."""
    schedule = task.rung.schedule
    options = {"prediction_type": schedule.prediction_type, "clip_sample": task.model.sampling.clip_sample}
    if schedule.rescale_betas_zero_snr:
        options["rescale_betas_zero_snr"] = True
    scheduler = DDPMScheduler(schedule.T, schedule.beta_start, schedule.beta_end, schedule.name, **options)
    size = unet.config.sample_size
    x = torch.randn(len(labels), unet.config.in_channels, *([size] * 2 if isinstance(size, int) else size))
    for timestep in scheduler.timesteps[:steps]:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            predicted = unet(x, timestep, class_labels=labels).sample.float()
        x = scheduler.step(predicted, timestep, x).prev_sample
        yield x


def last(steps: Iterator[Tensor]) -> tuple[Tensor, float]:
    """The last state, and the seconds to it."""
    start = time.perf_counter()
    states = deque(steps, maxlen=1)
    return states[0], time.perf_counter() - start


def peer(task: Task, distance: Distance) -> dict[str, Any]:
    """Draw by the plain loop; the seconds are those of the wanted samples."""
    unet, settings = UNet2DModel.from_pretrained(task.folder, local_files_only=True).eval(), task.rung.settings
    torch.manual_seed(0)
    labels, T = torch.arange(task.judged) % task.rung.num_classes, task.rung.schedule.T
    tried = {
        bf16: last(peer_batch(task, unet, labels[: task.batches[0]], TIMED_STEPS, bf16))[1] for bf16 in (False, True)
    }
    bf16 = tried[True] < tried[False]
    batches = [last(peer_batch(task, unet, part, T, bf16)) for part in labels.split(task.batches)]
    folded = torch.cat([x for x, _ in batches])
    samples = unnormalise(unfold(folded, settings.patch_size, settings.folding == "haar"), task.rung.normalisation)
    return {
        "name": f"plain diffusers, DDPM, {'bf16' if bf16 else 'float32'}",
        "evaluations": T,
        "seconds": sum(seconds for _, seconds in batches[: wanted_batches(task)]),
        "distance": distance(samples),
    }


def wanted_batches(task: Task) -> int:
    """How many batches the wanted samples fill."""
    return -(-task.wanted // task.model.sampling.batch_size)


def samplers(task: Task) -> list[tuple[str, int | str]]:
    """The rung's own sampler and steps, and what takes fewer of them."""
    own = task.model.sampling
    twin = "diffusers_dpm_solver" if own.sampler.startswith("diffusers") else "dpm_solver"
    T = task.rung.schedule.T
    fewer = [steps for steps in FEWER_STEPS if steps < (T if own.steps == "all" else own.steps)]
    return [(own.sampler, own.steps), *((name, steps) for name in (own.sampler, twin) for steps in fewer)]


def ours(task: Task, sampler: str, steps: int | str, precision: torch.dtype, distance: Distance) -> dict[str, Any]:
    """Draw by this project's loop: first the wanted samples, by the clock, then those that are judged."""
    settings = task.model.sampling.model_copy(update={"trajectory_count": 0})
    drawing = Drawing(task.rung, sampler, settings, steps, task.wanted, 0, precision=precision)
    start = time.perf_counter()
    drawn = draw_samples(drawing)
    seconds = time.perf_counter() - start
    if task.judged != task.wanted:
        drawn = draw_samples(replace(drawing, count=task.judged))
    return {
        "name": f"ours, {sampler}",
        "own": (sampler, steps) == (settings.sampler, settings.steps),
        "evaluations": drawn.nfe,
        "seconds": seconds,
        "distance": distance(drawn.samples),
    }


def compare(task: Task, project: Path, parameters: Parameters) -> dict[str, Any]:
    """The peer, ours, and the floor, of one rung."""
    tensors = read_tensors(project / f"data/processed/{task.rung.dataset}.safetensors")
    classifier, _ = load_classifier(project / f"data/judges/{task.rung.dataset}/classifier")

    def features(images: Tensor) -> Tensor:
        return judge(classifier, images, task.rung.normalisation).features

    reference = features(subsets(tensors["test"], task.judged, 1, generator(0, "reference"))[0])

    def distance(images: Tensor) -> float:
        return frechet_distance(features(images), reference)

    sets = subsets(tensors["train"], task.judged, FLOORS, generator(0, "floor"))
    floor, deviation = mean_and_deviation([distance(images) for images in sets])
    chosen = compute.configure(parameters.runtime)
    ours(task, *samplers(task)[-1], chosen.precision, distance)  # warms up
    rows = [ours(task, sampler, steps, chosen.precision, distance) for sampler, steps in samplers(task)]
    defaults(parameters.runtime.threads)
    theirs = peer(task, distance)
    for row in rows:
        row |= {"good": row["distance"] <= theirs["distance"] + deviation, "fewer": theirs["seconds"] / row["seconds"]}
    figures = {"wanted": task.wanted, "judged": task.judged, "floor": floor, "floor_deviation": deviation}
    return figures | {"peer": theirs, "ours": rows}


def task_of(name: str, wanted: int, judged: int, project: Path, parameters: Parameters) -> Task:
    """A rung as it was trained."""
    folder = project / "models" / name
    return Task(load_rung(folder), folder, parameters.rungs[name], wanted, judged)


def main() -> None:
    """Measure every rung, and write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rungs", nargs="*", default=list(WANTED), help="those with a network of diffusers")
    parser.add_argument("--wanted", type=int, help="samples by the clock; 1,000 digits and 64 portraits by default")
    parser.add_argument("--judged", type=int, help="samples that are judged; 1,000 digits and 256 portraits by default")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder with data/ and models/ in it")
    parser.add_argument("--preset", help="an overlay on params.yaml, such as smoke")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    parameters = validate(merged_parameters(options.preset), options.preset) if options.preset else load_parameters()
    found = {}
    for name in options.rungs:
        counts = options.wanted or WANTED[name], options.judged or JUDGED[name]
        found[name] = compare(task_of(name, *counts, options.project, parameters), options.project, parameters)
        fewer, peers = [row["fewer"] for row in found[name]["ours"] if row["good"]], found[name]["peer"]["seconds"]
        print(f"{name}: {max(fewer, default=0):.0f} times fewer seconds than the peer's {peers:.0f}", flush=True)
    facts = machine.facts(torch.device("cpu"))
    write_json(options.results / f"sampling-{machine.file_name(facts)}.json", {"machine": facts, "rungs": found})
    page.write(options.results)


if __name__ == "__main__":
    main()
