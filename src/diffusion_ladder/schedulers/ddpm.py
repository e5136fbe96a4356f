"""Denoising diffusion probabilistic models: Ho, Jain and Abbeel, arXiv 2006.11239."""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.noise import Generators
from diffusion_ladder.diffusion.timesteps import checked_timesteps
from diffusion_ladder.schedulers import DiscreteScheduler, keeps_config

SMALLEST_VARIANCE = 1e-20  # its logarithm is taken


class DDPMScheduler(DiscreteScheduler):
    """Ancestral sampling: x_{t-1} ~ N(mu_t, sigma_t^2), drawn at every timestep but the last.

    The arguments are those of diffusers' DDPMScheduler, with its defaults. Where timesteps are left out, t-1 is the
    next timestep visited. variance_type fixed_large_log, which is broken there (NaN), means sigma_t^2 = beta_t here.
    diffusers takes t = 0 for the last step, wherever the spacing ends, and leaves noise in samples that end elsewhere.
    """

    custom_timesteps: bool

    @keeps_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        self.prepare()
        self.custom_timesteps = False

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps to visit: so many, spaced as the config says, or exactly these, falling.

        Raises ValueError unless one of the two is given, and for timesteps that don't fall or weren't trained on.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Can only pass one of `num_inference_steps` or `custom_timesteps`, and has to pass one.")
        self.custom_timesteps = timesteps is not None
        if timesteps is not None:
            self.timesteps = checked_timesteps(timesteps, self.config.num_train_timesteps).to(device)
        elif num_inference_steps is not None:
            super().set_timesteps(num_inference_steps, device)

    def previous_timestep(self, timestep: int | Tensor) -> int | Tensor:
        """The timestep visited after this one; -1 after the last. Raises IndexError for one that isn't visited."""
        if not (self.custom_timesteps or self.num_inference_steps):
            return timestep - 1
        visited = (self.timesteps == timestep).nonzero()
        if len(visited) == 0:
            raise IndexError(
                f"timestep {int(timestep)} is not among the {len(self.timesteps)} that set_timesteps chose"
            )
        following = int(visited[0]) + 1
        return self.timesteps[following] if following < len(self.timesteps) else torch.tensor(-1)

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
    ) -> Any:
        """From x_t and the network's answer to x_{t-1}: one step of DDPM's Algorithm 2.

        model_output, sample: (B, ...), model_output with twice the channels where it brings its variance along.
        generator: one, or one per sample. Returns .prev_sample and .pred_original_sample, or a tuple of the two.
        """
        t = index(timestep)
        model_output, predicted_variance = self.split_variance(model_output, sample)
        alpha_bars = self.alpha_bar_pair(t, sample.dtype)
        x0 = self.read_prediction(model_output, sample, alpha_bars[0]).x0  # eq. 15
        if int(self.previous_timestep(t)) < 0:  # Algorithm 2, line 3: no noise in the last step, whatever t is
            return self.output(ddpm_step(sample, x0, *alpha_bars), x0, return_dict)
        sigma = self.standard_deviation(*alpha_bars, predicted_variance)
        noise = self.noise_like(model_output, generator)
        return self.output(ddpm_step(sample, x0, *alpha_bars, sigma, noise), x0, return_dict)

    def alpha_bar_pair(self, t: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """alpha_bar at t and at the timestep visited after it, () each; 1 after the last: there, nothing is noisy."""
        previous_t = int(self.previous_timestep(t))
        alpha_bar = self.alpha_bar_table(dtype)
        return alpha_bar[t], alpha_bar[previous_t] if previous_t >= 0 else alpha_bar.new_tensor(1.0)

    def split_variance(self, model_output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction and, of a network that learns it, the variance: the second half of the channels."""
        learned = self.config.variance_type in ("learned", "learned_range")
        if learned and model_output.shape[1] == 2 * sample.shape[1]:
            prediction, predicted_variance = model_output.split(sample.shape[1], dim=1)
            return prediction, predicted_variance
        return model_output, None

    def standard_deviation(
        self, alpha_bar: Tensor, alpha_bar_previous: Tensor, predicted_variance: Tensor | None
    ) -> Tensor | float:
        """sigma_t of section 3.2: a number, or (B, ...) where the network predicts it."""
        variance_type = self.config.variance_type
        spread = reverse_spread(variance_type, alpha_bar, alpha_bar_previous, predicted_variance)
        match variance_type:
            case "fixed_small_log":
                sigma = spread
            case "fixed_large_log" | "learned_range":
                sigma = (0.5 * spread).exp()
            case _:
                sigma = spread.sqrt()
        return sigma.item() if sigma.ndim == 0 else sigma

    def _get_variance(
        self, t: int, predicted_variance: Tensor | None = None, variance_type: str | None = None
    ) -> Tensor:
        """diffusers' name for `reverse_spread` at timestep t."""
        return reverse_spread(
            variance_type or self.config.variance_type, *self.alpha_bar_pair(int(t)), predicted_variance
        )


def ddpm_step(
    x_t: Tensor,
    x0: Tensor,
    alpha_bar: Tensor,
    alpha_bar_previous: Tensor,
    sigma: Tensor | float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_{t-1} = mean of q(x_{t-1} | x_t, x_0) + sigma z: Algorithm 2, line 4, with the mean of eq. 7.

    x_t, x0, noise: (B, ...); alpha_bar: () at t and at t-1; sigma: a number, or (B, ...).
    """
    alpha = alpha_bar / alpha_bar_previous
    beta = 1 - alpha
    of_x0 = alpha_bar_previous.sqrt() * beta / (1 - alpha_bar)
    of_x_t = alpha.sqrt() * (1 - alpha_bar_previous) / (1 - alpha_bar)
    mean = of_x0.item() * x0 + of_x_t.item() * x_t
    return mean if noise is None else mean + sigma * noise


def reverse_spread(
    variance_type: str, alpha_bar: Tensor, alpha_bar_previous: Tensor, predicted_variance: Tensor | None = None
) -> Tensor:
    """Variance of the reverse step, sigma_t^2; alpha_bar () at t and at t-1, the result () or as the prediction.

    As in diffusers, it is the root for fixed_small_log and the logarithm for fixed_large_log and learned_range, and
    an unknown variance_type is fixed_small. Raises ValueError for a learned variance without a prediction.
    """
    beta = 1 - alpha_bar / alpha_bar_previous
    beta_tilde = ((1 - alpha_bar_previous) / (1 - alpha_bar) * beta).clamp(min=SMALLEST_VARIANCE)  # eq. 7
    match variance_type:
        case "fixed_small_log":
            return beta_tilde.sqrt()
        case "fixed_large":  # section 3.2: right for x_0 ~ N(0, I), as beta_tilde is for one single x_0
            return beta
        case "fixed_large_log":
            return beta.log()
        case "learned":
            return given(predicted_variance)
        case "learned_range":  # Nichol and Dhariwal (arXiv 2102.09672), eq. 15, with v = (1 + output) / 2
            v = (given(predicted_variance) + 1) / 2
            return v * beta.log().item() + (1 - v) * beta_tilde.log().item()
        case _:
            return beta_tilde


def given(predicted_variance: Tensor | None) -> Tensor:
    """Raises ValueError where the network was to bring its variance along and didn't."""
    if predicted_variance is None:
        raise ValueError("a learned variance_type needs a model output with twice the channels of the sample")
    return predicted_variance


Scheduler = DDPMScheduler
