"""Denoising diffusion implicit models: Song, Meng and Ermon, arXiv 2010.02502.

What DDIM's paper calls alpha_t is alpha_bar_t here, as everywhere else.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.noise import Generators
from diffusion_ladder.schedulers import DiscreteScheduler, keeps_config

ROUNDING = 1e-12  # how far below zero rounding may take a variance that is zero


class DDIMScheduler(DiscreteScheduler):
    """Non-Markovian sampling, deterministic at eta = 0 and as noisy as DDPM at eta = 1.

    The arguments are those of diffusers' DDIMScheduler, with its defaults.
    """

    @keeps_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        clip_sample: bool = True,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self.prepare()

    @property
    def final_alpha_cumprod(self) -> Tensor:
        """alpha_bar where the last step arrives: 1, clean data, or that of timestep 0."""
        alpha_bar = self.schedule.alpha_bar
        return alpha_bar.new_tensor(1.0) if self.config.set_alpha_to_one else alpha_bar[0]

    def previous_timestep(self, timestep: int | Tensor) -> int:
        """Where a step from this timestep arrives: T // steps earlier (negative: at the data), as in diffusers.

        This is the next timestep visited where `steps` divides T and the spacing is leading or trailing; elsewhere
        the two are a fraction of a step apart. Raises ValueError before `set_timesteps`.
        """
        if self.num_inference_steps is None:
            raise ValueError(
                "Number of inference steps is 'None', you need to run 'set_timesteps' after creating the scheduler"
            )
        return int(timestep) - self.config.num_train_timesteps // self.num_inference_steps

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Generators | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """From x_t and the network's answer to x at the previous timestep, eq. 12.

        model_output, sample: (B, ...); eta: 0 deterministic to 1 as noisy as DDPM, its noise drawn by generator (one, or
        one per sample) or given. use_clipped_model_output derives epsilon anew from the clipped x_0.
        Returns .prev_sample and .pred_original_sample, or a tuple of the two.
        """
        t, previous_t = int(timestep), self.previous_timestep(timestep)
        alpha_bar, alpha_bar_previous = self.alpha_bar_t(t), self.alpha_bar_t(previous_t)
        x0, epsilon = self.read_prediction(model_output, sample, alpha_bar)  # eq. 9
        if use_clipped_model_output:
            epsilon = (sample - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)
        sigma = eta * math.sqrt(self._get_variance(t, previous_t).item())  # eq. 16
        direction = math.sqrt(direction_variance(alpha_bar_previous, sigma)) * epsilon  # "pointing to x_t"
        previous = math.sqrt(alpha_bar_previous) * x0 + direction  # eq. 12
        if eta > 0:
            previous = previous + sigma * self.step_noise(model_output, generator, variance_noise)
        return self.output(previous, x0, return_dict)

    def alpha_bar_t(self, t: int) -> float:
        """alpha_bar at timestep t; that of the data before the first."""
        return (self.schedule.alpha_bar[t] if t >= 0 else self.final_alpha_cumprod).item()

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        """sigma_t^2 at eta = 1, eq. 16: () float64."""
        alpha_bar, alpha_bar_previous = self.alpha_bar_t(timestep), self.alpha_bar_t(prev_timestep)
        variance = (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous)
        return torch.tensor(variance, dtype=torch.float64)

    def step_noise(self, like: Tensor, generator: Generators | None, variance_noise: Tensor | None) -> Tensor:
        """The noise of a step: given, or drawn. Raises ValueError for both at once."""
        if variance_noise is None:
            return self.noise_like(like, generator)
        if generator is not None:
            raise ValueError(
                "Cannot pass both generator and variance_noise. Please make sure that either `generator` or"
                " `variance_noise` stays `None`."
            )
        return variance_noise


def direction_variance(alpha_bar_previous: float, sigma: float) -> float:
    """1 - alpha_bar_{t-1} - sigma_t^2 of eq. 12. Raises ValueError where eta asks for more noise than there is."""
    variance = 1 - alpha_bar_previous - sigma**2
    if variance < -ROUNDING:
        raise ValueError(
            f"eta adds noise of variance {sigma**2:.3g} where x_t-1 holds {1 - alpha_bar_previous:.3g}: lower it"
        )
    return max(variance, 0.0)


Scheduler = DDIMScheduler
