"""The report's first picture: the ladder itself, from each rung's artifacts."""

from pathlib import Path

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.figures.ladder import MOST_POINTS, Step
from diffusion_ladder.foundation.artifacts import read_json, read_metadata, read_tensors
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.report.metrics import headline_of, metrics_of
from diffusion_ladder.report.rendering import number


def step_of(root: Path, key: str, rung: RungParameters) -> Step:
    """A rung of the ladder; the samples are the first ones of each class in turn, points in standard deviations."""
    data = read_tensors(root / f"data/processed/{rung.dataset}.safetensors")
    normalisation = Normalisation.from_metadata(read_metadata(root / f"data/processed/{rung.dataset}.safetensors"))
    drawn = read_tensors(root / f"data/samples/{key}.safetensors")
    ways = read_tensors(root / f"data/samples/{key}.trajectories.safetensors")
    first = drawn["sampling_seed"] == 0
    samples = in_turn(drawn["samples"][first], drawn["labels"][first])
    held_out = in_turn(data["test"], data["test_labels"])
    parts = torch.cat([ways["sampling.states"], ways["sampling.final"][None]]), samples, held_out
    images = normalisation.bytes
    way, samples, held_out = (part if images else normalise(part, normalisation) for part in parts)
    return Step(rung.title, lines_of(root, key), way, samples, held_out)


def in_turn(samples: Tensor, labels: Tensor) -> Tensor:
    """The first samples (N, ...) of each class, one class after the other, MOST_POINTS in all at most."""
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]
    few = min(MOST_POINTS // len(members), *map(len, members))
    return samples[torch.stack([part[:few] for part in members], dim=1).flatten()]


def lines_of(root: Path, key: str) -> list[str]:
    """A rung's number beside that of real data, and what training and sampling took."""
    measured = read_json(root / f"reports/metrics/{key}.json")
    card = read_json(root / f"models/{key}/rung.json")
    headline = headline_of(metrics_of(measured))
    lines = []
    if headline is not None:
        lines.append(f"{headline.description.title}: {number(headline.samples.value)}")
        if headline.floor is not None:
            lines.append(f"real data in their place: {number(headline.floor.value)}")
    lines.append(f"{card['parameters']:,} weights")
    lines.append(f"{card['images_seen']:,} examples in training")
    return [*lines, f"{measured['nfe']} evaluations a sample"]
