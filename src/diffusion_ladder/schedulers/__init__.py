"""Samplers of the reverse process, written from the papers, with the interface of diffusers' schedulers.

`from diffusion_ladder.schedulers import DDPMScheduler, DDIMScheduler` gives classes that are diffusers schedulers too
(configs, save_pretrained, pipelines). The modules ddpm, ddim, dpm_solver, heun, diffusers_ddpm and diffusers_ddim each
hold one `Scheduler`, to be loaded by name; all but the last two get along without diffusers, which takes seconds to
import.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.clipping import dynamic_threshold
from diffusion_ladder.diffusion.noise import Generators, draw_noise
from diffusion_ladder.diffusion.schedules import (
    NoiseSchedule,
    make_beta,
    schedule_from_betas,
)
from diffusion_ladder.diffusion.targets import CleanAndNoise, velocity, x0_and_epsilon
from diffusion_ladder.diffusion.timesteps import checked_timesteps, spaced_timesteps

__all__ = ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # by name and only now: the module imports diffusers
        return getattr(importlib.import_module(f"{__name__}.diffusers_interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class StepOutput(NamedTuple):
    """What a step of a sampler returns."""

    prev_sample: Tensor  # (B, ...): x at the previous timestep, the next input of the network
    pred_original_sample: Tensor  # (B, ...): the x_0 predicted on the way, clipped where the config says so


class Config(dict[str, Any]):
    """The constructor's arguments, by key and by attribute, fixed."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the scheduler's config has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the scheduler's config is fixed: make a new scheduler with another {name!r}")

    __setitem__ = __setattr__

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:  # copies and pickles are built at once, too
        return Config, (dict(self),)


def keeps_config(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate a constructor: its arguments, defaults included, become `self.config` before it runs."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def init_with_config(self: "DiscreteScheduler", *arguments: Any, **keywords: Any) -> None:
        bound = signature.bind(self, *arguments, **keywords)
        bound.apply_defaults()
        self.register_to_config(**dict(list(bound.arguments.items())[1:]))  # all but self
        init(self, *arguments, **keywords)

    return init_with_config


def refuse_options(config: Mapping[str, Any], supported: Mapping[str, Sequence[Any]]) -> None:
    """Raise NotImplementedError, by name, for an option of diffusers whose value isn't among the supported ones."""
    for name, values in supported.items():
        if config[name] not in values:
            known = " or ".join(str(value) for value in values)
            raise NotImplementedError(f"{name} {config[name]} is not implemented: only {known}")


class DiscreteScheduler:
    """What samplers over T discrete timesteps share: the schedule, the timesteps, the reading of a prediction."""

    order = 1  # evaluations of the network per step
    init_noise_sigma = 1.0  # standard deviation of the sample to start from
    output_class: type = StepOutput
    config: Config
    schedule: NoiseSchedule
    timesteps: Tensor  # (steps,) int64, falling
    num_inference_steps: int | None

    def register_to_config(self, **values: Any) -> None:
        """Keep the constructor's arguments."""
        self.config = Config(values)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **overrides: Any) -> Self:
        """A scheduler with this config, of whatever scheduler; entries that this one doesn't know are left out."""
        known = inspect.signature(cls).parameters
        return cls(**{name: value for name, value in {**config, **overrides}.items() if name in known})

    def prepare(self) -> None:
        """Build the schedule that the config describes; until `set_timesteps`, all T timesteps are visited."""
        rescale = self.config.get("rescale_betas_zero_snr", False)
        self.schedule = schedule_from_betas(self.beta_of_config(torch.float64), rescale)
        self.num_inference_steps = None
        self.timesteps = torch.arange(self.config.num_train_timesteps).flip(0)

    def beta_of_config(self, dtype: torch.dtype) -> Tensor:
        """beta (T,) that the config describes, not rescaled yet."""
        config = self.config
        if config.trained_betas is not None:
            return torch.as_tensor(np.asarray(config.trained_betas), dtype=dtype)
        return make_beta(config.beta_schedule, config.num_train_timesteps, config.beta_start, config.beta_end, dtype)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @property
    def betas(self) -> Tensor:
        """beta (T,) float64, by diffusers' name."""
        return self.schedule.beta

    @property
    def alphas(self) -> Tensor:
        """alpha (T,) float64, by diffusers' name."""
        return self.schedule.alpha

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar (T,) float64, by diffusers' name."""
        return self.schedule.alpha_bar

    def alpha_bar_table(self, dtype: torch.dtype) -> Tensor:
        """alpha_bar (T,), float64, from which a step on samples of that dtype derives its coefficients."""
        return self.schedule.alpha_bar

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose the timesteps to visit, spaced as the config says. Raises ValueError unless 1 <= steps <= T."""
        spacing, T = self.config.timestep_spacing, self.config.num_train_timesteps
        self.timesteps = spaced_timesteps(spacing, T, num_inference_steps, self.config.steps_offset).to(device)
        self.num_inference_steps = num_inference_steps

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The network's input: x_t itself."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of clean samples (B, ...) at timesteps () or (B,): DDPM eq. 4."""
        return self.schedule.add_noise(original_samples, noise, timesteps)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v of clean samples (B, ...) at timesteps () or (B,): the target of v_prediction."""
        return velocity(sample, noise, self.schedule.alpha_bar_at(timesteps))

    def read_prediction(self, model_output: Tensor, x_t: Tensor, alpha_bar_t: Tensor) -> CleanAndNoise:
        """(x_0, epsilon) that the network means, x_0 thresholded or clipped as the config says."""
        x0, epsilon = x0_and_epsilon(self.config.prediction_type, model_output, x_t, alpha_bar_t)
        return CleanAndNoise(self.clipped(x0), epsilon)

    def clipped(self, x0: Tensor) -> Tensor:
        """x_0 (B, ...) thresholded or clipped as the config says."""
        config = self.config
        if config.get("thresholding"):
            return dynamic_threshold(x0, config.dynamic_thresholding_ratio, config.sample_max_value)
        return x0.clamp(-config.clip_sample_range, config.clip_sample_range) if config.clip_sample else x0

    def noise_like(self, x: Tensor, generator: Generators | None) -> Tensor:
        """Fresh noise of x's shape, device and dtype."""
        return draw_noise(x.shape, generator, x.device, x.dtype)

    def output(self, prev_sample: Tensor, x0: Tensor, return_dict: bool) -> Any:
        """The step's result by name, or as a plain tuple."""
        if not return_dict:
            return prev_sample, x0
        return self.output_class(prev_sample=prev_sample, pred_original_sample=x0)


class SolverScheduler(DiscreteScheduler):
    """What solvers of the probability flow ODE share: they follow the timesteps in order, and know where they are."""

    step_index: int | None  # the position in timesteps; None until the first step finds it
    begin_index: int | None  # where the run begins, if not where its first timestep stands

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the run at this position of the timesteps, for pipelines that skip the first ones."""
        self.begin_index = begin_index

    def chosen(self, num_inference_steps: int | None, timesteps: list[int] | None, T: int) -> Tensor:
        """The timesteps that `set_timesteps` is asked for: so many, or exactly these, falling.

        Raises ValueError unless one of the two is given, and for steps that can't be spaced.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Must pass exactly one of `num_inference_steps` or `timesteps`.")
        if timesteps is not None:
            return checked_timesteps(timesteps, T)
        return self.spaced(T, num_inference_steps or 0)

    def spaced(self, T: int, steps: int) -> Tensor:
        """`steps` of T timesteps, falling, as the config spaces them: (steps,)."""
        return spaced_timesteps(self.config.timestep_spacing, T, steps, self.config.steps_offset)

    def position_of(self, timestep: int | float | Tensor) -> int:
        """Where the run is in the timesteps; at its first step, where it begins."""
        if self.step_index is not None:
            return self.step_index
        return self.first_position_of(timestep) if self.begin_index is None else self.begin_index

    def first_position_of(self, timestep: int | float | Tensor) -> int:
        """Where a run that begins with this timestep begins."""
        raise NotImplementedError
