"""The sampling loop, one for all rungs and all samplers: DDPM, algorithm 2 (arXiv 2006.11239).

It is a generator that yields its state at every step, so that trajectories and animations cost nothing. The noise that
enters a sample comes from the sample's own generator: neither the batch size nor the order of the batches changes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import unnormalise
from diffusion_ladder.params.samplers import MODULES
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.processes import ONE_PROCESS, Processes
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, build_scheduler
from diffusion_ladder.sampling.guidance import Predict, evaluations, guided


@dataclass(frozen=True)
class State:
    """The reverse process at one evaluation of the network, in normalised units.

    Attributes:
        index: evaluations done before.
        timestep: t, at which the network was evaluated: a fraction, with some spacings of Heun.
        x_t: (B, ...) the noisy samples that the network saw.
        x_0: (B, ...) the clean samples that the prediction implies (clipped, where the sampler clips).
        previous: (B, ...) the samples after the step, as the sampler has them: Heun's are not scaled like x_t.
    """

    index: int
    timestep: float
    x_t: Tensor
    x_0: Tensor
    previous: Tensor


@dataclass(frozen=True)
class Samples:
    """What `draw_samples` gives: everything in data units, and on the CPU.

    Attributes:
        samples: (S * N, ...) uint8 images or float32 points, N for each sampling seed.
        labels: (S * N,) int64; -1 for an unconditional model.
        sampling_seed: (S * N,) int64, rising from 0.
        states: (F, K, ...) the noisy samples of the first K of sampling seed 0 along the way.
        predicted: (F, K, ...) the clean samples predicted from them.
        timesteps: (F,) int64, falling; fractions are rounded.
        final: (K, ...) the same K samples when finished.
        nfe: network evaluations per sample.
    """

    samples: Tensor
    labels: Tensor
    sampling_seed: Tensor
    states: Tensor
    predicted: Tensor
    timesteps: Tensor
    final: Tensor
    nfe: int


def reverse_process(
    predict: Predict, scheduler: Any, x_T: Tensor, generators: Sequence[torch.Generator], **step_options: Any
) -> Iterator[State]:
    """Walk from noise to samples along the scheduler's timesteps.

    Args:
        predict: the network's prediction for (B, ...) noisy samples x_t and their timestep ().
        scheduler: with its timesteps set.
        x_T: (B, ...) standard normal noise.
        generators: one a sample, for the noise that a stochastic sampler adds.
        step_options: passed to the scheduler's step, such as eta.
    """
    x = x_T * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        x_t = scheduler.scale_model_input(x, timestep)
        step = scheduler.step(predict(x_t, timestep), timestep, x, generator=list(generators), **step_options)
        yield State(index, float(timestep), x_t, step.pred_original_sample, step.prev_sample)
        x = step.prev_sample


def frame_indices(timesteps: Sequence[float], frames: int) -> list[int]:
    """At most `frames` indices of timesteps, evenly spaced, the first and the last among them.

    Where a timestep is visited twice (Heun), it is the second visit, to the corrected state.
    """
    last_visits = [i for i, t in enumerate(timesteps) if i + 1 == len(timesteps) or timesteps[i + 1] != t]
    count = min(frames, len(last_visits))
    return [last_visits[round(i * (len(last_visits) - 1) / max(1, count - 1))] for i in range(count)]


def sampler_for(name: str, rung: Rung, settings: Sampling, steps: int | str) -> tuple[Any, dict[str, Any]]:
    """The scheduler called `name`, its timesteps set, and the options of its steps.

    Where x_0 is clipped, DDIM takes the noise that goes with the clipped x_0, so that the two still add up to x_t.
    """
    sampler, values = MODULES[name], option_values(settings)
    options = {option: values[option] for option in sampler.options if option in values}
    scheduler = build_scheduler(name, rung.schedule, timestep_spacing=settings.spacing, **options)
    scheduler.set_timesteps(rung.schedule.T if steps == "all" else steps)
    clipped = settings.clip_sample or settings.thresholding is not None
    of_steps = {"eta": settings.eta, "use_clipped_model_output": clipped}
    return scheduler, {option: of_steps[option] for option in sampler.step_options}


def option_values(settings: Sampling) -> dict[str, Any]:
    """What constructors of schedulers take of the settings, in diffusers' names; no thresholding where it is off."""
    values: dict[str, Any] = {"clip_sample": settings.clip_sample, "variance_type": settings.variance_type}
    if (kept := settings.thresholding) is None:
        return values
    ratio, largest = kept.ratio, kept.max_value
    return values | {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": largest}


def noise_of(rung: Rung, numbers: Tensor, sampling_seeds: Tensor, seed: int) -> tuple[Tensor, list[torch.Generator]]:
    """The pure noise (B, ...) that samples start from, and the generators of what they go on with.

    Each sample has its own, drawn on the CPU: neither its batch nor the device changes its noise. It depends on the
    data set, not on the rung, so that two rungs of the same data can be compared sample by sample.

    Args:
        rung: the model.
        numbers: (B,) of the samples within their class.
        sampling_seeds: (B,) sampling seeds: a repetition of everything with other noise.
        seed: the root seed.
    """
    pairs = zip(sampling_seeds.tolist(), numbers.tolist(), strict=True)
    purposes = [(repetition, number) if repetition else (number,) for repetition, number in pairs]
    generators = [generator(seed, "sample", rung.dataset, "noise", *purpose) for purpose in purposes]
    x_T = torch.stack([torch.randn(rung.sample_shape, generator=each) for each in generators])
    return x_T.to(device_of(rung)), generators


def run_to_the_end(
    process: Iterator[State], frames: Sequence[int], followed: Tensor, progress: Any
) -> tuple[Tensor, Tensor]:
    """The finished samples (B, ...), and x_t and x_0 of those `followed` (B,) at F steps: (K, F, 2, ...)."""
    kept = []
    for state in process:
        if state.index in frames:
            kept.append(torch.stack([state.x_t[followed], state.x_0[followed]], dim=1))
        if progress is not None:
            progress(len(followed))
    return state.previous, torch.stack(kept, dim=1)


@dataclass(frozen=True)
class Drawing:
    """Which samples are drawn, and how.

    Attributes:
        rung: the model, on the device to use.
        sampler: module name under schedulers/.
        settings: spacing, clipping, guidance, batch size and what is kept of the trajectories.
        steps: steps of the sampler, or "all" T.
        count: samples of each sampling seed, a multiple of the number of classes.
        seed: the root seed.
        seeds: sampling seeds, 0 and on.
        precision: of matrix products.
    """

    rung: Rung
    sampler: str
    settings: Sampling
    steps: int | str
    count: int
    seed: int
    seeds: int = 1
    precision: torch.dtype = torch.float32

    @property
    def total(self) -> int:
        """Samples of all sampling seeds."""
        return self.seeds * self.count

    def scheduler(self) -> tuple[Any, dict[str, Any]]:
        """A new scheduler, its timesteps set, and the options of its steps: it remembers where it is."""
        return sampler_for(self.sampler, self.rung, self.settings, self.steps)


@torch.no_grad()
def draw_samples(drawing: Drawing, progress: Any = None, processes: Processes = ONE_PROCESS) -> Samples:
    """Draw `count` samples for each sampling seed, an equal share for each class, the same noise under each class.

    Args:
        drawing: which samples, and how.
        progress: called after every step with the number of samples that made it (for a progress bar).
        processes: among which the samples are shared; each gets all of them.
    """
    rung, settings, count, total = drawing.rung, drawing.settings, drawing.count, drawing.total
    per_class = count // max(1, rung.num_classes)
    kept_per_class = settings.trajectory_count // max(1, rung.num_classes)
    every, share = torch.arange(total), processes.share(total)
    followed = (every < count) & (every % per_class < kept_per_class)
    classes, sampling_seeds = every % count // per_class, every // count
    finished, kept = [], []
    for indices in every[share].split(settings.batch_size):
        labels = classes[indices].to(device_of(rung)) if rung.num_classes else None
        scheduler, step_options = drawing.scheduler()
        frames = frame_indices(scheduler.timesteps.tolist(), settings.trajectory_frames)
        x_T, generators = noise_of(rung, indices % per_class, sampling_seeds[indices], drawing.seed)
        predict = guided(rung, labels, settings, drawing.precision)
        process = reverse_process(predict, scheduler, x_T, generators, **step_options)
        final, states = run_to_the_end(process, frames, followed[indices].to(x_T.device), progress)
        finished.append(final)
        kept.append(states)
    samples = processes.gather(unnormalise(torch.cat(finished), rung.normalisation).cpu(), share.start, total)
    trajectory = unnormalise(torch.cat(kept), rung.normalisation).cpu()  # (K of this process, F, 2, ...)
    before = int(followed[: share.start].sum())
    trajectory = processes.gather(trajectory, before, int(followed.sum())).movedim(0, 2)  # (F, 2, K, ...)
    return Samples(
        samples=samples,
        labels=classes if rung.num_classes else torch.full((total,), -1),
        sampling_seed=sampling_seeds,
        states=trajectory[:, 0],
        predicted=trajectory[:, 1],
        timesteps=scheduler.timesteps.cpu()[frames].round().long(),
        final=samples[followed],
        nfe=evaluations(scheduler.timesteps, rung.schedule.T, settings),
    )


def device_of(rung: Rung) -> torch.device:
    """Where the rung's network is."""
    return next(rung.network.parameters()).device
