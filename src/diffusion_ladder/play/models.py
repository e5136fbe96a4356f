"""What the page is told of a rung: its network with the weights, its forward process, and how it is sampled from."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import read_json, read_tensors
from diffusion_ladder.params.samplers import MODULES, ROWS, Sampler
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.rungs import CARD, Rung, load_rung, parameter_count

NETWORKS = ("mlp", "unet", "diffusers_unet")  # those that mlp.js and unet.js compute
MOST_STEPS = 100  # of a sampler, in the page
SPEED = 5e9  # additions and multiplications a second that any core reaches: the kernel does several times as many
MOST_SECONDS = 30  # for a picture of PATIENT_STEPS steps
PATIENT_STEPS = 20


@dataclass(frozen=True)
class Plan:
    """What params.yaml says of a rung that its folder under models/ doesn't: its title, and how it is sampled from."""

    title: str
    sampling: Sampling


@dataclass(frozen=True)
class Model:
    """A rung whose network can run in the page.

    Attributes:
        key, title: of the rung.
        kind: points | pictures.
        settings: what the page's scripts read of it, as JSON has it.
        weights: float16 in base64, in the order of the settings' `shapes`.
        data: the training points, normalised, (N, 2) float16 in base64; empty for pictures.
        flops: additions and multiplications of one evaluation of the network for one sample.
        parameters: of the network.
    """

    key: str
    title: str
    kind: str
    settings: dict[str, Any]
    weights: str
    data: str
    flops: int
    parameters: int

    @property
    def size(self) -> int:
        """Bytes that it adds to the page, but for a few settings."""
        return len(self.weights) + len(self.data)


def read_model(key: str, plan: Plan, root: Path) -> Model:
    """Read a trained rung from models/ and, of points, its training data from data/processed/."""
    folder = root / "models" / key
    rung, card = load_rung(folder), read_json(folder / CARD)
    weights = {name.removeprefix("unet."): values for name, values in sorted(rung.network.state_dict().items())}
    points, settings = rung.sample_shape == (2,), settings_of(rung, card, plan.sampling, weights)
    data = read_tensors(root / f"data/processed/{rung.dataset}.safetensors") if points else {}
    if points and rung.num_classes:
        settings["labels"] = base64_of(data["train_labels"].to(torch.uint8))
    return Model(
        key=key,
        title=plan.title,
        kind="points" if points else "pictures",
        settings=settings,
        weights=base64_of(*(values.half() for values in weights.values())),
        data=base64_of(normalise(data["train"], rung.normalisation).half()) if points else "",
        flops=flops_of(rung),
        parameters=parameter_count(rung.network),
    )


def settings_of(
    rung: Rung, card: Mapping[str, Any], sampling: Sampling, weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What mlp.js or unet.js, the samplers and the controls need to know."""
    schedule = rung.schedule
    samplers = [row for row in ROWS if row.rescales or not schedule.rescale_betas_zero_snr]
    most = min(MOST_STEPS, *(row.most_steps(schedule.T, sampling.spacing) for row in samplers))
    steps = schedule.T if sampling.steps == "all" else int(sampling.steps)
    return {
        "network": rung.settings.model_dump(),
        "shapes": [[name, list(values.shape)] for name, values in weights.items()],
        "shape": list(rung.sample_shape),
        "classes": card["class_names"][: rung.num_classes],
        "nullLabel": rung.null_label,
        "interval": sampling.guidance_interval or [0, 1],
        "process": {
            "alphaBar": base64_of(forward_process(schedule).alpha_bar),
            "prediction_type": schedule.prediction_type,
            "spacing": sampling.spacing,
            "variance_type": sampling.variance_type,
            "clip_sample": sampling.clip_sample,
        },
        "samplers": [described(row) for row in samplers],
        "mostSteps": most,
        "chosen": {
            "sampler": MODULES[sampling.sampler].name,
            "steps": min(steps, most),
            "eta": sampling.eta,
            "scale": sampling.guidance_scale,
        },
    }


def described(row: Sampler) -> dict[str, Any]:
    """A sampler as the controls know it."""
    return {
        "name": row.name,
        "title": row.title,
        "evaluations": row.evaluations,
        "takesEta": "eta" in row.step_options,
    }


@torch.no_grad()
def flops_of(rung: Rung) -> int:
    """Additions and multiplications of one evaluation of the network for one sample."""
    sample = torch.zeros(1, *rung.sample_shape)
    first = torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        rung.network(sample, first, first if rung.num_classes else None)
    return counter.get_total_flops()


def base64_of(*tensors: Tensor) -> str:
    """The numbers one after the other, little endian."""
    return base64.b64encode(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).decode("ascii")


def unsuitable(network: str, sampling: Sampling) -> str | None:
    """Why a rung can't run in the page, whatever it has learnt; None where it can."""
    if network not in NETWORKS:
        return f"its network, `{network}`, has no twin in JavaScript"
    if sampling.thresholding is not None:
        return "its samples are thresholded, which the page's samplers don't do"
    return None


def too_slow(model: Model) -> str | None:
    """Why a model is left out for its slowness; None if it isn't slow."""
    seconds = model.flops * PATIENT_STEPS / SPEED
    if seconds <= MOST_SECONDS:
        return None
    return (
        f"a sample of {PATIENT_STEPS} steps takes {model.flops * PATIENT_STEPS / 1e9:,.0f} GFLOP, about"
        f" {seconds:,.0f} seconds of one processor core: more than {MOST_SECONDS}"
    )
