"""The samplers written here beside diffusers': full loops with the same network and the same noise, state by state.

Both walk from the same noise with the network that is perfect for Gaussian data, whose samples keep a sane size. Two
states a and b (diffusers') differ by max|a - b| / max|b|; what counts is the largest difference on the whole way.

In float32 diffusers' schedulers are taken as they are. In float64 they can't be: they multiply up alpha_bar, and from
it derive sigma, in float32, whatever the samples are. So there they are given alpha_bar and sigma in float64; all that
they do with them is theirs. DPM-Solver++ also rounds each state to float32 (see `Float64Sample`).

Some of diffusers' schedulers leave noise in what should be finished samples: DDPM adds it in a last step that isn't at
t = 0, and DDIM stops at t = 0, short of the data, where T // steps doesn't reach them. Ours never do. Such loops are
counted, and end for the comparison at the x_0 that diffusers predicted.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from diffusers import schedulers as diffusers_schedulers
from torch import Tensor

from diffusion_ladder import schedulers
from diffusion_ladder.diffusion.exact import gaussian_x0, prediction_of
from diffusion_ladder.diffusion.targets import PREDICTION_TYPES
from diffusion_ladder.params.samplers import VARIANTS
from diffusion_ladder.params.scheduler_comparison import SchedulerComparison
from diffusion_ladder.randomness import generator

SPACINGS = ("leading", "linspace", "trailing")
Precision = Literal["float32", "float64"]
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
RESCALED = "rescaled"  # the group of the schedules with zero terminal SNR

Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loop:
    """One run of both schedulers, from noise to samples."""

    sampler: str  # a key of VARIANTS
    schedule: str
    rescaled: bool
    dtype: Precision
    prediction_type: str
    spacing: str
    steps: int

    @property
    def group(self) -> str:
        """The key under which its difference is reported, such as `ddpm_linear_float32`."""
        return f"{self.sampler}_{RESCALED if self.rescaled else self.schedule}_{self.dtype}"

    def config(self, settings: SchedulerComparison) -> dict[str, Any]:
        """The arguments of both constructors."""
        config = {
            "num_train_timesteps": settings.T,
            "beta_start": settings.beta_start,
            "beta_end": settings.beta_end,
            "beta_schedule": self.schedule,
            "prediction_type": self.prediction_type,
            "timestep_spacing": self.spacing,
        }
        if VARIANTS[self.sampler].sampler.rescales:
            config["rescale_betas_zero_snr"] = self.rescaled
        if VARIANTS[self.sampler].sampler.stochastic:
            config["clip_sample"] = False  # which would hide differences; the others don't clip by default
        return config


def loops(settings: SchedulerComparison) -> list[Loop]:
    """All loops: short ones over everything, and long ones with v-prediction, which suits every schedule.

    Epsilon and zero terminal SNR exclude each other.
    """
    found = []
    for (name, variant), rescaled, dtype in itertools.product(VARIANTS.items(), (False, True), DTYPES):
        for schedule in variant.twin.schedules if variant.sampler.rescales or not rescaled else ():
            types = PREDICTION_TYPES[1:] if rescaled else PREDICTION_TYPES  # without epsilon
            short = itertools.product(types, SPACINGS, settings.steps)
            long = ("v_prediction", "trailing", settings.long_steps)
            found += [Loop(name, schedule, rescaled, dtype, *case) for case in [*short, long]]
    return found


def pair(class_name: str, **config: Any) -> tuple[Any, Any]:
    """Our scheduler and diffusers', configured alike."""
    ours, theirs = (getattr(family, class_name)(**config) for family in (schedulers, diffusers_schedulers))
    return ours, theirs


class Float64Sample(Tensor):
    """A float64 sample that declines the cast to float32 with which each step of diffusers' DPM-Solver++ begins."""

    def to(self, *arguments: Any, **options: Any) -> Tensor:
        """The sample itself where float32 is asked for, and as always for everything else."""
        return self if arguments == (torch.float32,) else super().to(*arguments, **options)


def give_float64(theirs: Any, alpha_bar: Tensor) -> None:
    """Replace what diffusers' scheduler, its timesteps set, has computed in float32; alpha_bar (T,) float64."""
    theirs.alphas_cumprod = alpha_bar
    if hasattr(theirs, "sigmas"):
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt().numpy()
        visited = np.interp(theirs.timesteps.double().numpy(), np.arange(len(sigma)), sigma)
        theirs.sigmas = torch.from_numpy(np.append(visited, 0.0))  # 0 for the data


def perfect_network(prediction_type: str, timesteps: Tensor, alpha_bar: Tensor, mean: float, std: float) -> Network:
    """The best predictions for data N(mean, std^2), which are linear in x_t.

    timesteps: (steps,), which may be fractions; alpha_bar: (T,) float64.
    """
    visited = torch.from_numpy(np.interp(timesteps.double().numpy(), np.arange(len(alpha_bar)), alpha_bar.numpy()))
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(visited), 2)  # where the line is probed
    probes = prediction_of(prediction_type, gaussian_x0(x, visited, mean, std), x, visited)  # (steps, 2)
    lines = dict(zip(timesteps.tolist(), probes.tolist(), strict=True))

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        at_zero, at_one = lines[t.item()]
        return at_zero + (at_one - at_zero) * x_t

    return predict


def walk(scheduler: Any, network: Network, x: Tensor, **step_options: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The states of a scheduler with its timesteps set, from x (B, D) in the scheduler's own scale to the samples.

    Beside each is the x_0 predicted on the way, or the state itself where the scheduler doesn't tell.
    """
    for t in scheduler.timesteps:
        prediction = network(scheduler.scale_model_input(x, t), t)
        step = scheduler.step(prediction, t, x, **step_options)
        x = step.prev_sample
        yield x.as_subclass(Tensor), getattr(step, "pred_original_sample", x).as_subclass(Tensor)


class Comparison(NamedTuple):
    """How a loop came out."""

    difference: float | None  # the largest relative one between the two schedulers' states; None: diffusers' become NaN
    noise_left: bool  # by diffusers, in what should be finished samples


def compare(loop: Loop, settings: SchedulerComparison, seed: int) -> Comparison:
    """Run both schedulers, and hold each state against the other's."""
    variant, dtype = VARIANTS[loop.sampler], DTYPES[loop.dtype]
    ours, theirs = pair(variant.twin.class_name, **loop.config(settings))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(loop.steps)
    if dtype == torch.float64:
        give_float64(theirs, ours.schedule.alpha_bar)
    network = perfect_network(
        loop.prediction_type, ours.timesteps, ours.schedule.alpha_bar, settings.data_mean, settings.data_std
    )

    def states(scheduler: Any, kind: type[Tensor] = Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        draws = generator(seed, "compare_schedulers")
        x = torch.randn(settings.sample_shape, generator=draws, dtype=torch.float64).to(dtype)
        options: dict[str, Any] = {"generator": draws} if variant.sampler.stochastic else {}
        options |= {} if variant.eta is None else {"eta": variant.eta}
        x = (x * float(theirs.init_noise_sigma)).as_subclass(kind)
        return walk(scheduler, network, x, **options)

    keeps_float64 = variant.twin.rounds and dtype == torch.float64
    walked, predicted = zip(*states(theirs, Float64Sample if keeps_float64 else Tensor), strict=True)
    expected = torch.stack(walked)  # (steps, B, D)
    if not expected.isfinite().all():
        return Comparison(None, noise_left=False)
    noise_left = relative_differences(expected[-1:], predicted[-1][None]).item() > settings.limits[loop.dtype]
    if noise_left:
        expected[-1] = predicted[-1]
    found = torch.stack([state for state, _ in states(ours)])
    largest = relative_differences(found, expected).max().item() if found.isfinite().all() else math.inf
    return Comparison(largest, noise_left)


def relative_differences(found: Tensor, expected: Tensor) -> Tensor:
    """max|a - b| / max|b| of each state: (steps,) of (steps, B, D)."""
    return (found - expected).abs().amax(dim=(1, 2)) / expected.abs().amax(dim=(1, 2))


def differences_by_group(
    settings: SchedulerComparison, seed: int, progress: Callable[[], object]
) -> dict[str, int | float]:
    """The largest difference of each group of loops, and how many loops there are.

    Those that diffusers doesn't finish without noise are counted, and those in which its scheduler ends in NaN are
    counted apart: DDIM at eta = 1 takes the root of what is left of the variance, which is 0 at zero terminal SNR, and
    a little less after rounding.
    """
    found: dict[str, int | float] = {"loops": 0, "nan_loops_of_diffusers": 0, "noisy_loops_of_diffusers": 0}
    for loop in loops(settings):
        difference, noise_left = compare(loop, settings, seed)
        found["loops"] += 1
        found["noisy_loops_of_diffusers"] += noise_left
        if difference is None:
            found["nan_loops_of_diffusers"] += 1
        else:
            found[loop.group] = max(difference, found.get(loop.group, 0.0))
        progress()
    return found
