"""Trains digits for the same seconds by this project's recipe and by its peers': python benchmarks/peers.py.

Ours is the rung `mnist_scratch`, with as many steps as the budget has room for, so that its learning rate ends when the
time is up; once more without labels, since one of the peers knows none. The peers' learning rates are constant: each is
trained once for the longest budget, and sampled when a shorter one is over. Their settings are the best of those tried,
by their own loss on held-out images, in the fastest precision and memory format. Sampling is not in the budget. Results
go to benchmarks/results/ under the machine's name, after every training.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import course
import denoising_diffusion
import machine
import page
import torch
from judges import SETTINGS, Panel, panel_of
from peer import Digits, Mode, begin, fastest, trials
from torch import Tensor
from training import RESULTS, Task, defaults, our_training

from diffusion_ladder.foundation.artifacts import read_tensors, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.whole import Parameters, load_parameters, validate
from diffusion_ladder.presets import merged_parameters
from diffusion_ladder.sampling.loop import Drawing, draw_samples
from diffusion_ladder.training import loop

RUNG = "mnist_scratch"
WARM_UP_STEPS, TIMED_STEPS = 10, 40
SAMPLES_AT_ONCE = 100
RECIPES = {"course": course, "denoising_diffusion": denoising_diffusion}
Run = dict[str, Any]


@dataclass(frozen=True)
class Match:
    """What the contenders share.

    Attributes:
        parameters: of the project.
        tensors: the splits of the digits.
        panel: judges all.
        peer_evaluations: of the peers' networks for a sample, where not their own number.
    """

    parameters: Parameters
    tensors: dict[str, Tensor]
    panel: Panel
    peer_evaluations: int | None

    @property
    def digits(self) -> Digits:
        """What the peers are given."""
        return Digits(*(self.tensors[name] for name in ("train", "train_labels", "test", "test_labels")))

    @property
    def count(self) -> int:
        """Samples drawn of each."""
        return len(self.panel.reference)


def our_task(match: Match, labelled: bool, steps: int) -> Task:
    """The rung with as many steps, on the digits."""
    model = match.parameters.rungs[RUNG]
    training = model.training.model_copy(update={"steps": steps})
    model = model.model_copy(update={"training": training, "conditional": labelled})
    return Task(RUNG, model, match.tensors["train"], match.tensors["train_labels"], match.parameters.runtime)


def seconds_per_step(match: Match, labelled: bool) -> float:
    """Of our training, averaged over some steps after a warm-up."""
    total = WARM_UP_STEPS + TIMED_STEPS
    steps = loop.train(our_training(our_task(match, labelled, total), match.parameters.runtime))
    for _ in range(WARM_UP_STEPS):
        next(steps)
    start = time.perf_counter()
    for _ in steps:
        pass
    return (time.perf_counter() - start) / TIMED_STEPS


def draw_ours(given: loop.Task, model: RungParameters, count: int) -> tuple[Tensor, int]:
    """Samples as the rung's own stage draws them, and the evaluations of the network for each."""
    drawing = Drawing(given.rung, model.sampling.sampler, model.sampling, model.sampling.steps, count, 0)
    drawn = draw_samples(replace(drawing, precision=given.precision))
    return drawn.samples, drawn.nfe


def our_run(match: Match, budget: float, labelled: bool) -> Run:
    """Train ours for a budget, draw and judge."""
    steps = max(1, int(budget / seconds_per_step(match, labelled)))
    task = our_task(match, labelled, steps)
    given = our_training(task, match.parameters.runtime)
    start = time.perf_counter()
    for _ in loop.train(given):
        pass
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    samples, evaluations = draw_ours(given, task.model, match.count)
    return {
        "recipe": f"ours ({RUNG})" + ("" if labelled else ", without labels"),
        "ours": True,
        "budget": budget,
        "seconds": seconds,
        "steps": steps,
        "images": steps * task.model.training.batch_size,
        "sampler": task.model.sampling.sampler,
        "evaluations": evaluations,
        "sampling_seconds": time.perf_counter() - start,
        "distances": match.panel.distances(samples),
    }


@dataclass(frozen=True)
class Prepared:
    """A peer's recipe, how it is fastest, and what its settings led to."""

    recipe: ModuleType
    mode: Mode
    milliseconds: dict[str, float]
    tried: list[Run]

    @property
    def settings(self) -> dict[str, Any]:
        """The best."""
        return min(self.tried, key=lambda trial: trial["held_out_loss"])["settings"]

    def facts(self) -> Run:
        """How the peer was prepared, for the results."""
        found = {"mode": str(self.mode), "settings": self.settings}
        return found | {"milliseconds": self.milliseconds, "trials": self.tried}


def prepared(name: str, digits: Digits, seconds: float) -> Prepared:
    """Find the peer's fastest mode and best setting."""
    mode, milliseconds = fastest(RECIPES[name], digits)
    return Prepared(RECIPES[name], mode, milliseconds, trials(RECIPES[name], mode, digits, seconds))


def peer_runs(match: Match, peer: Prepared, budgets: dict[float, float]) -> Iterator[Run]:
    """Train a peer, and draw and judge when each budget is over.

    Args:
        budgets: with the seconds that ours really took, if they are more.
    """
    recipe, training = peer.recipe, begin(peer.recipe, peer.settings, peer.mode, match.digits)
    evaluations = match.peer_evaluations or recipe.EVALUATIONS
    for budget, seconds in budgets.items():
        training.until(max(budget, seconds))
        start = time.perf_counter()
        sizes = [min(SAMPLES_AT_ONCE, match.count - first) for first in range(0, match.count, SAMPLES_AT_ONCE)]
        samples = torch.cat([training.peer.draw(size, evaluations) for size in sizes])
        yield {
            "recipe": recipe.NAME,
            "ours": False,
            "budget": budget,
            "seconds": training.seconds,
            "steps": training.steps,
            "images": training.steps * training.peer.batch_size,
            "sampler": recipe.SAMPLER,
            "evaluations": evaluations,
            "sampling_seconds": time.perf_counter() - start,
            "distances": match.panel.distances(samples),
        }


def runs(match: Match, budgets: list[float], peers: list[Prepared], peer_budgets: list[float]) -> Iterator[Run]:
    """All trainings, one after the other."""
    ours = [our_run(match, budget, labelled=True) for budget in budgets]
    yield from ours
    yield our_run(match, budgets[0], labelled=False)
    taken = {run["budget"]: run["seconds"] for run in ours}
    defaults(match.parameters.runtime.threads)
    for peer in peers:
        yield from peer_runs(match, peer, {budget: taken.get(budget, budget) for budget in peer_budgets})


def measure(arguments: argparse.Namespace) -> None:
    """Train, judge, and write results and page."""
    preset = arguments.preset
    parameters = validate(merged_parameters(preset), preset) if preset else load_parameters()
    tensors = read_tensors(arguments.project / "data/processed/mnist.safetensors")
    defaults(parameters.runtime.threads)
    if "denoising_diffusion" in arguments.peers:
        denoising_diffusion.load_package()  # before any work is done
    judge = arguments.project / "data/judges/mnist/classifier"
    panel = panel_of(judge, tensors, arguments.samples, arguments.judge_steps)
    match = Match(parameters, tensors, panel, arguments.peer_evaluations)
    facts = machine.facts(torch.device("cpu"))
    peers = [prepared(name, match.digits, arguments.trial_seconds) for name in arguments.peers]
    budgets = sorted(arguments.seconds)
    result: Run = {
        "machine": facts,
        "samples": match.count,
        "training_images": len(tensors["train"]),
        "judge_images": len(tensors["test"]) - match.count,
        "accuracies": panel.accuracies,
        "floor": panel.floor(tensors["train"]),
        "peers": {peer.recipe.NAME: peer.facts() for peer in peers},
        "runs": [],
    }
    for run in runs(match, budgets, peers, sorted(arguments.peer_seconds or budgets)):
        result["runs"].append(run)
        distances = ", ".join(f"{name} {value:.1f}" for name, value in run["distances"].items())
        print(f"{run['recipe']}, {run['seconds']:.0f} s: {run['steps']} steps; {distances}", flush=True)
        write_json(arguments.results / f"peers-{machine.file_name(facts)}.json", result)
        page.write(arguments.results)


def main() -> None:
    """Parse the command line; a mistake is one line and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 120, 240], help="budgets of training")
    parser.add_argument("--peer-seconds", type=float, nargs="+", help="those after which the peers are judged; all")
    parser.add_argument("--samples", type=int, default=300, help="drawn of each, a multiple of ten")
    parser.add_argument("--peers", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--trial-seconds", type=float, default=30, help="training of each of a peer's settings")
    parser.add_argument("--peer-evaluations", type=int, help="of their networks for a sample; their own by default")
    parser.add_argument("--judge-steps", type=int, default=SETTINGS.steps, help="of the second classifier's training")
    parser.add_argument("--project", type=Path, default=Path(), help="the folder with data/ in it")
    parser.add_argument("--preset", help="an overlay on params.yaml, such as smoke")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    try:
        measure(parser.parse_args())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
