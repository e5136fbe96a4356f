"""The training loop, one for all rungs: DDPM, algorithm 1 (arXiv 2006.11239).

It is a generator that yields after every optimiser step, so that progress bars, logs and tests only have to listen. All
randomness of step k comes from generators derived from (seed, model, purpose, k): nothing depends on what was drawn
before.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.diffusion.targets import loss_weight, refuse_undefined_target, target_mean_square, training_target
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import Decay, LossWeight, TimestepDensity, Training
from diffusion_ladder.processes import ONE_PROCESS, Processes
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung
from diffusion_ladder.training.ema import ExponentialMovingAverage, ema_decay
from diffusion_ladder.training.optimisers import build_optimiser
from diffusion_ladder.training.pairing import transported


@dataclass(frozen=True)
class Step:
    """What one optimiser step did; the tensors are left on the device, so that reading them is the listener's choice.

    Attributes:
        number: steps done, from 1.
        loss: scalar, mean squared error of the prediction, weighted.
        losses: (B,) the same of each example.
        timesteps: (B,) int64, at which they were noised.
        gradient_norm: scalar, before clipping.
        learning_rate: of this step.
    """

    number: int
    loss: Tensor
    losses: Tensor
    timesteps: Tensor
    gradient_norm: Tensor
    learning_rate: float


@dataclass(frozen=True)
class Batch:
    """A batch of algorithm 1: clean samples, timesteps, noise and labels, on the device."""

    x0: Tensor  # (B, ...) normalised
    timesteps: Tensor  # (B,) int64 in [0, T)
    noise: Tensor  # (B, ...) standard normal
    labels: Tensor | None  # (B,) int64, or None for an unconditional model

    def rows(self, share: slice) -> "Batch":
        """Some of its examples."""
        labels = None if self.labels is None else self.labels[share]
        return Batch(self.x0[share], self.timesteps[share], self.noise[share], labels)


@dataclass
class TrainingState:
    """Everything that changes from step to step: with data, parameters and code, it decides all steps to come.

    Attributes:
        network: in training mode.
        optimiser: with its moments, see `build_optimiser`.
        average: of the network's weights.
        candidates: further averages of them, from which to choose at the end.
        steps: done so far.
    """

    network: nn.Module
    optimiser: Any
    average: ExponentialMovingAverage
    candidates: list[ExponentialMovingAverage]
    steps: int = 0

    def averages(self) -> dict[str, ExponentialMovingAverage]:
        """All averages by name."""
        return {"average": self.average} | {f"candidate_{i}": each for i, each in enumerate(self.candidates)}


def initial_state(rung: Rung, settings: Training) -> TrainingState:
    """Before the first step; the rung's network is trained in place."""
    network = rung.network.train()
    optimiser = build_optimiser(network, settings, rung.sample_shape[0])
    average = ExponentialMovingAverage(network, settings.ema_decay)
    decays = settings.ema_choice.decays if settings.ema_choice else []
    candidates = [ExponentialMovingAverage(network, decay) for decay in decays]
    return TrainingState(network, optimiser, average, candidates)


def learning_rate_at(step: int, settings: Training) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero or, with `decay`, as it says; `step` from 0."""
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    done = step / settings.steps
    return settings.learning_rate * warmup * (decayed(done, settings.decay) if settings.decay else half_cosine(done))


def half_cosine(done: float) -> float:
    """From 1 at the beginning to 0 at the end of the training, whose share `done` is over."""
    return 0.5 * (1 + math.cos(math.pi * done))


def decayed(done: float, decay: Decay) -> float:
    """1, and in the training's last part, `decay.share` of it, down to 0 (Haegele et al., arXiv 2405.18392)."""
    into = max(0.0, 1 - (1 - done) / decay.share)
    return 1 - into if decay.shape == "linear" else 1 - math.sqrt(into)


@functools.lru_cache(maxsize=2)  # a batch may reach over the end of an epoch
def epoch_order(epoch: int, count: int, seed: int, model: str) -> Tensor:
    """The order in which an epoch (counted from 0) shows its examples: (count,) int64."""
    return torch.randperm(count, generator=generator(seed, "train", model, "order", epoch))


def batch_indices(step: int, batch_size: int, count: int, seed: int, model: str) -> Tensor:
    """The examples of a step (counted from 0): (B,) indices out of an endless row of shuffles of all `count` examples.

    Every example is seen once before any is seen twice; which ones a step sees follows from its number alone.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)  # in the endless row
    indices = torch.empty_like(positions)
    for epoch in range(int(positions[0]) // count, int(positions[-1]) // count + 1):
        order = epoch_order(epoch, count, seed, model)
        inside = positions // count == epoch
        indices[inside] = order[positions[inside] - epoch * count]
    return indices


@dataclass(frozen=True)
class Task:
    """What a training is given; none of it changes from step to step, but for the network that is trained in place.

    Attributes:
        rung: the model, its network on the device of `data`.
        scheduler: gives x_t (`add_noise`).
        data: (N, C, H, W) uint8 or (N, D) float32, in data units.
        labels: (N,) int64; used by conditional models.
        settings: steps, batch size, learning rate and so on.
        seed: of the training.
        precision: of matrix products; loss, optimiser and average stay in float32.
    """

    rung: Rung
    scheduler: Any
    data: Tensor
    labels: Tensor
    settings: Training
    seed: int
    precision: torch.dtype = torch.float32

    @functools.cached_property
    def by_class(self) -> tuple[Tensor, Tensor]:
        """The examples in the order of their classes, (N,) indices, and how many each class has, (K,); on the CPU.

        Raises:
            UserError: a class of `settings.class_weights` has no example.
        """
        labels = self.labels.cpu()
        counts = labels.bincount(minlength=len(self.settings.class_weights or []))
        if not counts.all():
            key, empty = f"rungs.{self.rung.model}.training.class_weights", counts.argmin().item()
            raise UserError(f"{key}: the training split has no example of class {empty}")
        return labels.argsort(stable=True), counts


def weighted_indices(task: Task, step: int) -> Tensor:
    """The examples of a step (counted from 0) where the classes have shares of their own: (B,) indices.

    Each is drawn on its own: first a class by `settings.class_weights`, then one of its examples, all alike.
    """
    examples, counts = task.by_class
    size, random = task.settings.batch_size, generator(task.seed, "train", task.rung.model, "order", "weighted", step)
    weights = torch.tensor(task.settings.class_weights, dtype=torch.float64)  # (K,)
    classes = weights.multinomial(size, replacement=True, generator=random)  # (B,)
    within = (torch.rand(size, generator=random, dtype=torch.float64) * counts[classes]).long()
    return examples[(counts.cumsum(0) - counts)[classes] + within]


def indices_of(task: Task, step: int) -> Tensor:
    """The examples of a step: (B,) indices."""
    if task.settings.class_weights is not None:
        return weighted_indices(task, step)
    return batch_indices(step, task.settings.batch_size, len(task.labels), task.seed, task.rung.model)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; a GPU fetches it from pinned memory while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def log_snr_density(schedule: Schedule, density: TimestepDensity) -> Tensor:
    """The probability of each timestep where log-SNR is to be normal: (T,) float64, summing to 1.

    The normal density at a timestep's log-SNR, times the range of log-SNR that the timestep stands for.
    """
    alpha_bar = forward_process(schedule).alpha_bar
    least = alpha_bar[alpha_bar > 0].min() / 2  # in place of 0 at zero terminal SNR, so that T - 1 is trained too
    log_snr = alpha_bar.clamp(min=least).logit()  # (T,) falling
    normal = (-0.5 * ((log_snr - density.log_snr_mean) / density.log_snr_deviation).square()).exp()
    weights = normal * -torch.gradient(log_snr)[0]
    return weights / weights.sum()


def draw_timesteps(count: int, schedule: Schedule, settings: Training, random: torch.Generator) -> Tensor:
    """Timesteps of a batch, (B,) int64 in [0, T): uniform, or of the density that the settings name.

    Stratified, one lies in each of B equal parts of the probability, in random order: each is distributed as before,
    and the mean over a batch varies less (Kingma et al. 2021, arXiv 2107.00630, appendix I.1).
    """
    if not settings.stratified_timesteps and settings.timestep_density is None:
        return torch.randint(schedule.T, (count,), generator=random)
    places = torch.rand(count, generator=random, dtype=torch.float64)  # (B,) in [0, 1)
    if settings.stratified_timesteps:
        places = (torch.randperm(count, generator=random) + places) / count
    if settings.timestep_density is None:
        return (places * schedule.T).long().clamp(max=schedule.T - 1)
    cumulative = log_snr_density(schedule, settings.timestep_density).cumsum(0)  # (T,)
    return torch.searchsorted(cumulative, places, right=True).clamp(max=schedule.T - 1)


def draw_batch(task: Task, step: int) -> Batch:
    """Lines 2 to 4 of algorithm 1: x_0 from the data, t uniform over all T steps, epsilon standard normal."""
    rung, settings = task.rung, task.settings
    indices = sent(indices_of(task, step), task.data.device)
    x0 = normalise(task.data[indices], rung.normalisation)
    random = generator(task.seed, "train", rung.model, "noise", step)
    timesteps = draw_timesteps(len(x0), rung.schedule, settings, random)
    noise = torch.randn(x0.shape, generator=random)
    labels = None
    if rung.num_classes:
        labels = task.labels[indices]
        if rung.null_label is not None:  # classifier-free guidance (arXiv 2207.12598), algorithm 1
            dropped = torch.rand(len(x0), generator=random) < settings.label_dropout
            labels = labels.masked_fill(sent(dropped, labels.device), rung.null_label)
    if settings.flip:
        mirrored = sent(torch.rand(len(x0), generator=random) < 0.5, x0.device)
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
    if settings.pairing:
        noise = transported(x0.cpu(), noise)
    return Batch(x0, sent(timesteps, x0.device), sent(noise, x0.device), labels)


def losses_of(rung: Rung, scheduler: Any, batch: Batch, weighting: LossWeight | None, precision: torch.dtype) -> Tensor:
    """weight(t) |target - network(x_t, t)|^2 of each example (DDPM, eq. 14), averaged over its values: (B,).

    In float32 whatever the network's precision.
    """
    prediction_type = rung.schedule.prediction_type
    alpha_bar = forward_process(rung.schedule).alpha_bar_at(batch.timesteps)  # (B,) float64
    x_t = scheduler.add_noise(batch.x0, batch.noise, batch.timesteps)
    if x_t.ndim == 4:
        x_t = x_t.contiguous(memory_format=torch.channels_last)
    with torch.autocast(x_t.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        prediction = rung.network(x_t, batch.timesteps, batch.labels)
    target = training_target(prediction_type, batch.x0, batch.noise, alpha_bar)
    error = (prediction.float() - target).square().flatten(1).mean(1)  # (B,)
    return weight_of(prediction_type, alpha_bar, weighting).float().to(error.device) * error


def weight_of(prediction_type: str, alpha_bar: Tensor, weighting: LossWeight | None) -> Tensor:
    """The weight of the squared error at alpha_bar (B,); 1 without a weighting."""
    if weighting is None:
        return torch.ones_like(alpha_bar)
    return loss_weight(weighting.name, prediction_type, alpha_bar / (1 - alpha_bar), weighting.gamma)


def zero_loss(rung: Rung, weighting: LossWeight | None, data_mean_square: float) -> float:
    """The expected loss of a network that always answers zero; data_mean_square is that of the normalised data."""
    prediction_type, alpha_bar = rung.schedule.prediction_type, forward_process(rung.schedule).alpha_bar  # (T,)
    square = target_mean_square(prediction_type, alpha_bar, data_mean_square)
    return (weight_of(prediction_type, alpha_bar, weighting) * square).mean().item()


@torch.no_grad()
def best_average(task: Task, state: TrainingState) -> ExponentialMovingAverage:
    """The average with the least loss, chosen after training as Karras et al. (arXiv 2312.02696) advise.

    The losses are on the batches that training would have seen next: known examples under new noise. The held-out
    examples stay out of it, so that the evaluation on them remains fair.
    """
    settings = task.settings
    count = settings.ema_choice.batches if settings.ema_choice else 0
    batches = [draw_batch(task, settings.steps + number) for number in range(count)]

    def loss(average: ExponentialMovingAverage) -> float:
        average.copy_to(state.network)
        parts = (losses_of(task.rung, task.scheduler, each, settings.loss_weight, task.precision) for each in batches)
        return torch.cat(list(parts)).mean().item()

    return min(state.averages().values(), key=loss)


def train(task: Task, state: TrainingState | None = None, processes: Processes = ONE_PROCESS) -> Iterator[Step]:
    """Train a rung's network in place; at the end it holds the averaged weights.

    Args:
        state: of the rung's network, from which to go on; None to begin.
        processes: among which each batch is shared; state and steps are the same in all of them.

    Yields:
        A `Step` after each optimiser step and update of the average; `state` is then that after the step.

    Raises:
        ProcessLostError: another process has ended; `state` is that after the last whole step.
        ValueError: epsilon is to be predicted at zero terminal SNR.
    """
    rung, settings = task.rung, task.settings
    refuse_undefined_target(rung.schedule.prediction_type, forward_process(rung.schedule).alpha_bar)
    state = state or initial_state(rung, settings)
    parameters = list(state.network.parameters())
    shared = replace(rung, network=processes.distribute(state.network))
    share = processes.share(settings.batch_size)
    for step in range(state.steps, settings.steps):
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        batch = draw_batch(task, step)
        part = losses_of(shared, task.scheduler, batch.rows(share), settings.loss_weight, task.precision)
        state.optimiser.zero_grad()
        processes.backward(part, settings.batch_size)
        losses = processes.gather(part.detach(), share.start, settings.batch_size)
        gradient_norm = nn.utils.clip_grad_norm_(parameters, settings.gradient_clip or math.inf)
        state.optimiser.step()
        state.steps = step + 1
        for average in state.averages().values():
            average.update(state.network, ema_decay(state.steps, average.longest, settings.ema_warmup))
        rate = learning_rate_at(step, settings)
        yield Step(state.steps, losses.mean(), losses, batch.timesteps, gradient_norm, rate)
    state.network.eval()
    if state.candidates:
        state.average = best_average(task, state)
    state.average.copy_to(state.network)
