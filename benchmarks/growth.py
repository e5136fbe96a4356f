"""Measures how seconds and memory grow with data, image side and samples: python benchmarks/growth.py.

Each task is done at 1x, 4x and 16x, every time in a process of its own, whose memory after its imports is left out. The
exponent is that of size in a fit to the three; 1 is a straight line. Results and a chart go to benchmarks/results/.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import growth_chart
import machine
import numpy
import page
import streaming
import torch
from processes import measure, measured
from training import Task, our_rung, our_training, task_of

from diffusion_ladder import device as compute
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.portraits.dataset import fetch
from diffusion_ladder.evaluation.classifier import new_classifier
from diffusion_ladder.evaluation.images import Trial, evaluate_images
from diffusion_ladder.evaluation.memorisation import nearest
from diffusion_ladder.foundation.artifacts import write_bytes, write_json
from diffusion_ladder.params.datasets import ParquetSource
from diffusion_ladder.params.whole import Parameters, load_parameters, validate
from diffusion_ladder.presets import merged_parameters
from diffusion_ladder.randomness import generator
from diffusion_ladder.sampling.loop import Drawing, draw_samples
from diffusion_ladder.training import loop

RESULTS = Path("benchmarks/results")
FACTORS = (1, 4, 16)
QUERIES = 256  # of the nearest neighbours
STEPS = 4  # of training
DRAWN_SIDE = 8  # portraits drawn at each side
EVALUATIONS = 4  # of the network for a portrait
STRAIGHT_WITHIN = 0.15  # the exponents of both halves differ by no more on a straight line
Work = Callable[[], int]


@dataclass(frozen=True)
class Setting:
    """What a task is given: its size, a folder of its own, and the project's parameters."""

    size: int
    folder: Path
    parameters: Parameters

    def rung(self, name: str, side: int | None = None) -> Task:
        """A rung, with images of another side where one is given."""
        task = task_of(name, self.parameters)
        if side is None:
            return task
        shape = (64, task.images.shape[1], side, side)
        images = torch.randint(256, shape, generator=generator(0, "growth"), dtype=torch.uint8)
        return Task(name, task.model, images, task.labels[:64], task.runtime)


def random_digits(count: int, purpose: str) -> torch.Tensor:
    """Images of the digits' size: (N, 1, 28, 28) uint8."""
    return torch.randint(256, (count, 1, 28, 28), generator=generator(0, "growth", purpose), dtype=torch.uint8)


def fetching(given: Setting) -> Work:
    """What fetch does with parquet files."""
    source = ParquetSource(path=str(given.folder / "offered"))
    return lambda: fetch("parquet", source, 0, given.folder / "raw")["rows"]


def searching(given: Setting) -> Work:
    """The nearest training images of some others, as the evaluation looks for copies."""
    queries, references = random_digits(QUERIES, "queries"), random_digits(given.size, "references")
    return lambda: len(nearest(queries, references).index)


def training(given: Setting) -> Work:
    """Training steps of the portraits' network, after one that warms up."""
    task = given.rung("faces", math.isqrt(given.size))
    steps = loop.train(our_training(task, task.runtime))
    next(steps)
    return lambda: len([next(steps) for _ in range(STEPS)])


def sampling(task: Task, count: int, steps: int) -> Work:
    """Samples of a rung with fresh weights, after some in one step that warm up."""
    chosen = compute.configure(task.runtime)
    rung, settings = our_rung(task, chosen.device), task.model.sampling
    kept = settings.model_copy(update={"trajectory_count": 0})
    drawing = Drawing(rung, settings.sampler, kept, steps, count, 0, precision=chosen.precision)
    draw_samples(replace(drawing, steps=1, count=rung.num_classes))
    return lambda: len(draw_samples(drawing).samples)


def evaluating(given: Setting) -> Work:
    """All that is measured of digits."""
    model, settings = given.parameters.rungs["mnist_scratch"], given.parameters.classifiers["mnist"]
    evaluation = model.evaluation.model_copy(update={"sample_count": given.size, "smaller_counts": []})
    labels = torch.arange(2 * given.size) % 10
    seeds = torch.arange(2).repeat_interleave(given.size)
    samples = {"samples": random_digits(2 * given.size, "samples"), "labels": labels, "sampling_seed": seeds}
    data = {name: random_digits(2 * given.size, name) for name in ("train", "test")}
    data |= {"train_labels": labels, "test_labels": labels}
    classifier = new_classifier((1, 28, 28), settings, 10, generator(0, "growth", "classifier")).eval()
    names = [str(digit) for digit in range(10)]
    purpose = lambda *words: generator(0, "growth", *words)  # noqa: E731
    trial = Trial(samples, data, IMAGES, classifier, settings, names, evaluation, purpose)
    return lambda: len(evaluate_images(trial).numbers)


@dataclass(frozen=True)
class Growth:
    """A task, what grows, and how much of it 1x is."""

    of: str
    base: int
    prepare: Callable[[Setting], Work]


TASKS = {
    "fetch": Growth("rows", 500, fetching),
    "filter_gender": Growth("rows", 500, lambda given: partial(streaming.run_filter, given.folder)),
    "preprocess": Growth("rows", 500, lambda given: partial(streaming.run_preprocess, given.folder)),
    "nearest neighbours": Growth("rows", 4000, searching),
    "training step": Growth("pixels", 16 * 16, training),
    "sampling portraits": Growth(
        "pixels", 16 * 16, lambda given: sampling(given.rung("faces", math.isqrt(given.size)), DRAWN_SIDE, EVALUATIONS)
    ),
    "sampling digits": Growth("samples", 100, lambda given: sampling(given.rung("mnist_scratch"), given.size, 10)),
    "evaluation": Growth("samples", 125, evaluating),
}


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of a straight line through the logarithms, by least squares."""
    return float(numpy.polyfit(numpy.log(sizes), numpy.log(values), 1)[0])


def growth_of(sizes: list[int], values: list[float]) -> dict[str, Any]:
    """The fitted exponent, those between neighbours, and whether the line is straight."""
    halves = [exponent(sizes[first : first + 2], values[first : first + 2]) for first in range(len(sizes) - 1)]
    straight = max(halves) - min(halves) <= STRAIGHT_WITHIN
    return {"exponent": exponent(sizes, values), "between": halves, "straight": straight}


def best_of(repeats: int, task: str, size: int, folder: Path, preset: str) -> dict[str, float]:
    """The shortest of several runs, with its memory beyond what the imports took."""
    runs = [measured(__file__, "--measure", task, str(size), str(folder), preset) for _ in range(repeats)]
    best = min(runs, key=lambda run: run["seconds"])
    memory = max(0.1, min(run["peak_mib"] - run["peak_mib_before"] for run in runs))
    return {"size": size, "seconds": best["seconds"], "mib": memory, "peak_mib": best["peak_mib"]}


def growths(names: list[str], shrink: int, repeats: int, preset: str, scratch: Path) -> dict[str, Any]:
    """Every task at every size, the stages in their order."""
    found: dict[str, Any] = {}
    for name in names:
        task, rows = TASKS[name], []
        base = task.base if task.of == "pixels" else max(8, task.base // shrink)
        for factor in FACTORS:
            size, folder = base * factor, scratch / str(factor)
            if name == "fetch":
                streaming.write_shards(folder / "offered", size)
            rows.append({"factor": factor, **best_of(repeats, name, size, folder, preset)})
            print(f"{name}, {size} {task.of}: {rows[-1]['seconds']:.2f} s, {rows[-1]['mib']:.0f} MiB", flush=True)
        sizes = [row["size"] for row in rows]
        curves = {key: growth_of(sizes, [row[key] for row in rows]) for key in ("seconds", "mib")}
        found[name] = {"of": task.of, "rows": rows, **curves}
    return found


def parameters_of(preset: str) -> Parameters:
    """params.yaml, with a preset where one is named."""
    return validate(merged_parameters(preset), preset) if preset else load_parameters()


def main() -> None:
    """Measure everything, write results, chart and page; or do one task and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="; ".join(TASKS))
    parser.add_argument("--repeats", type=int, default=2, help="runs of each size, of which the shortest counts")
    parser.add_argument("--shrink", type=int, default=1, help="rows and samples are fewer by this factor")
    parser.add_argument("--preset", default="", help="an overlay on params.yaml, such as smoke")
    parser.add_argument("--scratch", type=Path, help="where there is room for 1 GB; a temporary folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--measure", nargs=4, metavar=("TASK", "SIZE", "FOLDER", "PRESET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        task, size, folder, preset = options.measure
        given = Setting(int(size), Path(folder), parameters_of(preset))
        torch.set_num_threads(given.parameters.runtime.threads)
        print(json.dumps(measure(lambda: TASKS[task].prepare(given))))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        found = growths(options.tasks, options.shrink, options.repeats, options.preset, Path(scratch))
    torch.set_num_threads(parameters_of(options.preset).runtime.threads)
    facts = machine.facts(torch.device("cpu"))
    write_json(options.results / "growth.json", {"machine": facts, "repeats": options.repeats, "tasks": found})
    write_bytes(options.results / "growth.png", growth_chart.chart(found))
    page.write(options.results)


if __name__ == "__main__":
    main()
