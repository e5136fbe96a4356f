"""Denoising diffusion implicit models: Song, Meng and Ermon, arXiv 2010.02502.

What DDIM's paper calls alpha_t is alpha_bar_t here, as everywhere else.
"""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.noise import Generators
from diffusion_ladder.diffusion.schedules import signal_and_noise_scales
from diffusion_ladder.schedulers import DiscreteScheduler, keeps_config

ROUNDING = 1e-6  # how far below zero rounding may take a variance that is zero


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
        """alpha_bar () where the last step arrives: 1, clean data, or (set_alpha_to_one false) that of timestep 0."""
        return self.alpha_bar_pair(0, -1)[1]

    def previous_timestep(self, timestep: int | Tensor) -> int:
        """Where a step from this timestep arrives: T // steps earlier, as in diffusers, or (negative) at the data.

        This is the next timestep visited where `steps` divides T and the spacing is leading or trailing; elsewhere
        the two are a fraction of a step apart. The last step always arrives at the data, of which diffusers' may stop
        short, at timestep 0.
        Raises ValueError before `set_timesteps`.
        """
        if self.num_inference_steps is None:
            raise ValueError(
                "Number of inference steps is 'None', you need to run 'set_timesteps' after creating the scheduler"
            )
        if timestep == self.timesteps[-1]:
            return -1
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

        model_output, sample: (B, ...); eta: 0 deterministic to 1 as noisy as DDPM, its noise drawn by generator (one,
        or one per sample) or given. use_clipped_model_output derives epsilon anew from the clipped x_0.
        Returns .prev_sample and .pred_original_sample, or a tuple of the two.
        """
        t, previous_t = index(timestep), self.previous_timestep(timestep)
        alpha_bars = self.alpha_bar_pair(t, previous_t, sample.dtype)
        x0, epsilon = self.read_prediction(model_output, sample, alpha_bars[0])  # eq. 9
        if use_clipped_model_output:
            epsilon = epsilon_of(x0, sample, alpha_bars[0])
        if previous_t < 0:
            eta = 0.0  # no noise in the last step
        noise = self.step_noise(model_output, generator, variance_noise) if eta > 0 else None
        return self.output(ddim_step(x0, epsilon, *alpha_bars, eta, noise), x0, return_dict)

    def alpha_bar_pair(self, t: int, previous_t: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """alpha_bar () at both timesteps; of the data, at negative ones, 1 or (set_alpha_to_one false) timestep 0's."""
        alpha_bar = self.alpha_bar_table(dtype)
        of_data = alpha_bar.new_tensor(1.0) if self.config.set_alpha_to_one else alpha_bar[0]
        return alpha_bar[t], alpha_bar[previous_t] if previous_t >= 0 else of_data

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        """diffusers' name for `step_variance` between two timesteps."""
        return step_variance(*self.alpha_bar_pair(timestep, prev_timestep))

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


def ddim_step(
    x0: Tensor,
    epsilon: Tensor,
    alpha_bar: Tensor,
    alpha_bar_previous: Tensor,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_{t-1}, eq. 12: the predicted x_0, the direction that points to x_t, and fresh noise where there is any.

    x0, epsilon, noise: (B, ...); alpha_bar: () at t and at the previous timestep; eta: 0, or up to 1 with noise.
    """
    sigma = eta * step_variance(alpha_bar, alpha_bar_previous).sqrt()
    toward_x_t = direction_variance(alpha_bar_previous, sigma).sqrt()
    previous = alpha_bar_previous.sqrt().item() * x0 + toward_x_t.item() * epsilon
    return previous if noise is None else previous + sigma.item() * noise


def step_variance(alpha_bar: Tensor, alpha_bar_previous: Tensor) -> Tensor:
    """sigma_t^2 at eta = 1, eq. 16; alpha_bar () at t and at the previous timestep."""
    return (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous)


def direction_variance(alpha_bar_previous: Tensor, sigma: Tensor) -> Tensor:
    """1 - alpha_bar_{t-1} - sigma_t^2 of eq. 12: what is left for the direction that points to x_t.

    Raises ValueError where eta asks for more noise than x_{t-1} holds.
    """
    variance = 1 - alpha_bar_previous - sigma**2
    if variance < -ROUNDING:
        noise, room = sigma.item() ** 2, 1 - alpha_bar_previous.item()
        raise ValueError(f"eta adds noise of variance {noise:.3g} where x_t-1 holds {room:.3g}: lower it")
    return variance.clamp(min=0)


def epsilon_of(x0: Tensor, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise in x_t (B, ...) if its clean part is x0."""
    signal_scale, noise_scale = signal_and_noise_scales(alpha_bar, x_t)
    return (x_t - signal_scale * x0) / noise_scale


Scheduler = DDIMScheduler
