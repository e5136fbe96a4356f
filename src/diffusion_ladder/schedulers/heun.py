"""Heun's method for the probability flow ODE: Karras et al., arXiv 2206.00364, Algorithm 1, without added noise.

The sampler's x is x_0 + sigma epsilon, sigma = sqrt((1 - alpha_bar) / alpha_bar), in which the ODE reads
dx / dsigma = (x - x_0) / sigma; the network's input is x sqrt(alpha_bar) = x / sqrt(sigma^2 + 1).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.noise import Generators
from diffusion_ladder.diffusion.targets import parts_of
from diffusion_ladder.schedulers import SolverScheduler, keeps_config, refuse_options

SUPPORTED: dict[str, Sequence[Any]] = {
    "use_karras_sigmas": (False,),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
}


class HeunDiscreteScheduler(SolverScheduler):
    """Second order from two network evaluations a step, of which the last step needs only one.

    The arguments are those of diffusers' HeunDiscreteScheduler, with its defaults. Options that aren't implemented are
    refused by name. Start from noise times `init_noise_sigma`, and give the network `scale_model_input` of the sample.
    With linspace spacing, timesteps are fractions: the network has to take them.
    """

    order = 2
    sigmas: Tensor  # (2 steps,) float64, falling, beside the timesteps; 0 at the end
    begun: tuple[Tensor, Tensor] | None  # x and dx / dsigma at the start of a step that awaits its second evaluation

    @keeps_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
    ) -> None:
        refuse_options(self.config, SUPPORTED)
        self.prepare()
        self.visit(self.timesteps.double())

    @property
    def init_noise_sigma(self) -> float:  # type: ignore[override]
        """Standard deviation of the sample to start from."""
        largest = self.sigmas.max()
        from_pure_noise = self.config.timestep_spacing in ("linspace", "trailing")
        return (largest if from_pure_noise else (largest**2 + 1) ** 0.5).item()

    @property
    def state_in_first_order(self) -> bool:
        """Whether the next call of `step` starts a step, rather than correcting it."""
        return self.begun is None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        num_train_timesteps: int | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps to visit: so many, spaced as the config says, or exactly these, falling.

        All but the first are visited twice: (2 steps - 1,) float32. Raises ValueError unless one of the two is given,
        and for steps that can't be spaced.
        """
        T = num_train_timesteps or self.config.num_train_timesteps
        self.visit(self.chosen(num_inference_steps, timesteps, T).double(), device)

    def visit(self, timesteps: Tensor, device: str | torch.device | None = None) -> None:
        """Take these timesteps, (steps,) float64 falling, for a new run."""
        self.timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)]).float().to(device)
        self.sigmas = self.sigmas_visited(self.schedule.sigma)
        self.num_inference_steps = len(timesteps)
        self.step_index = self.begin_index = None
        self.begun = None

    def spaced(self, T: int, steps: int) -> Tensor:
        """`steps` falling timesteps, (steps,); linspace doesn't round them."""
        rounded = super().spaced(T, steps)
        linspace = self.config.timestep_spacing == "linspace"
        return torch.from_numpy(np.linspace(0, T - 1, steps)).flip(0) if linspace else rounded

    def sigmas_visited(self, sigma: Tensor) -> Tensor:
        """sigma (T,) at the timesteps visited, and 0 at the end: (2 steps,) in its dtype."""
        return torch.cat([sigma_at(self.timesteps, sigma), sigma.new_zeros(1)])

    def sigmas_for(self, dtype: torch.dtype) -> Tensor:
        """The sigmas, float64, from which a step on samples of that dtype derives its coefficients."""
        return self.sigmas

    def scale_model_input(self, sample: Tensor, timestep: int | float | Tensor) -> Tensor:  # type: ignore[override]
        """The network's input: x / sqrt(sigma^2 + 1), of unit variance for data of unit variance."""
        self.step_index = self.position_of(timestep)
        return sample / unit_scale(self.sigmas_for(sample.dtype)[self.step_index])

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x = x_0 + sigma epsilon of clean samples (B, ...) at timesteps () or (B,)."""
        sigma = sigma_at(timesteps.reshape(-1), self.schedule.sigma).reshape(-1, *[1] * (original_samples.ndim - 1))
        return original_samples + sigma.to(original_samples.dtype).to(original_samples.device) * noise

    def step(
        self,
        model_output: Tensor,
        timestep: int | float | Tensor,
        sample: Tensor,
        return_dict: bool = True,
        *,
        generator: Generators | None = None,
    ) -> Any:
        """Half of Algorithm 1: an Euler step to the next sigma, or its correction by the slope found there.

        model_output, sample: (B, ...), the sample unscaled. generator is accepted for the sake of one sampling loop for
        all schedulers: a deterministic sampler has no use for it.
        Returns .prev_sample and .pred_original_sample, or a tuple of the two.
        """
        position = self.position_of(timestep)
        sigmas = self.sigmas_for(sample.dtype)
        here = sigmas[position].item()  # of this evaluation
        x0 = self.clipped(self.x0_of(model_output, sample, sigmas[position]))
        slope = slope_at(sample, x0, here)
        if self.begun is None:
            previous = heun_step(sample, here, sigmas[position + 1].item(), slope)
            self.begun = sample, slope
        else:
            start, first_slope = self.begun
            previous = heun_step(start, sigmas[position - 1].item(), here, first_slope, slope)
            self.begun = None
        self.step_index = position + 1
        return self.output(previous, x0, return_dict)

    def x0_of(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The x_0 (B, ...) that the network means, having seen x scaled to unit variance at sigma ()."""
        if self.config.prediction_type == "v_prediction":  # Table 1: c_skip x + c_out F for data of unit variance
            return x / (sigma**2 + 1).item() - (sigma / (sigma**2 + 1) ** 0.5).item() * model_output
        return parts_of(self.config.prediction_type, model_output, x, 1, sigma.item()).x0

    def first_position_of(self, timestep: int | float | Tensor) -> int:
        """Where a timestep stands; of one that occurs twice, the place that starts a step.

        Raises IndexError for a timestep that isn't visited.
        """
        visited = self.timesteps.eq(float(timestep)).nonzero()
        if len(visited) == 0:
            raise IndexError(f"timestep {timestep} is not among the {len(self.timesteps)} that set_timesteps chose")
        return int(visited[-1])


def slope_at(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """dx / dsigma at x (B, ...), where x_0 (B, ...) is predicted: Algorithm 1, line 4."""
    return (x - x0) / sigma


def heun_step(
    x: Tensor, sigma: float, following_sigma: float, slope: Tensor, end_slope: Tensor | None = None
) -> Tensor:
    """x at the next sigma: Algorithm 1, along the slope at the start, or along the mean of those at both ends.

    x, slope, end_slope: (B, ...); end_slope is the slope where the step without it arrives.
    """
    if end_slope is None:
        return x + (following_sigma - sigma) * slope  # line 5
    return x + (following_sigma - sigma) * (slope + end_slope) / 2  # line 8


def sigma_at(timesteps: Tensor, sigma: Tensor) -> Tensor:
    """sigma (T,) at timesteps (N,), in between them linear: (N,) in its dtype, computed in float64."""
    found = np.interp(timesteps.double().cpu().numpy(), np.arange(len(sigma)), sigma.numpy())
    return torch.from_numpy(found).to(sigma.dtype)


def unit_scale(sigma: Tensor) -> float:
    """Standard deviation of x_0 + sigma epsilon, for data of unit variance; sigma ()."""
    return ((sigma**2 + 1) ** 0.5).item()


Scheduler = HeunDiscreteScheduler
