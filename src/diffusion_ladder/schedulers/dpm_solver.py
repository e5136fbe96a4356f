"""DPM-Solver++: Lu et al., arXiv 2211.01095, an exponential integrator for the probability flow ODE.

In lambda_t = log(sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t)), half the log-SNR, the ODE's linear part is solved exactly
and only the predicted x_0 is extrapolated: constant at first order, which is DDIM, linear at second.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_ladder.diffusion.noise import Generators
from diffusion_ladder.diffusion.schedules import schedule_from_alpha_bar
from diffusion_ladder.diffusion.targets import parts_of
from diffusion_ladder.diffusion.timesteps import spaced_timesteps
from diffusion_ladder.schedulers import SolverScheduler, keeps_config, refuse_options

ALMOST_NO_SIGNAL = 2**-24  # alpha_bar in place of 0, so that lambda stays finite: diffusers' choice
SUPPORTED: dict[str, Sequence[Any]] = {
    "solver_order": (1, 2),
    "algorithm_type": ("dpmsolver++",),
    "solver_type": ("midpoint",),
    "use_karras_sigmas": (False,),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
    "use_lu_lambdas": (False,),
    "use_flow_sigmas": (False,),
    "final_sigmas_type": ("zero",),
    "lambda_min_clipped": (-math.inf,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),  # no variance is used
    "use_dynamic_shifting": (False,),
}


class Scales(NamedTuple):
    """The two coefficients of x_t, called alpha and sigma in the paper; () each."""

    signal: Tensor  # of x_0
    noise: Tensor  # of epsilon

    def numbers(self) -> tuple[float, float]:
        """The same as plain numbers, which suit every device."""
        return self.signal.item(), self.noise.item()


class DPMSolverMultistepScheduler(SolverScheduler):
    """DPM-Solver++(2M): second order from one network evaluation a step, by remembering the last prediction.

    The arguments are those of diffusers' DPMSolverMultistepScheduler, with its defaults, and clip_sample of the other
    schedulers. Options that aren't implemented are refused by name. The last step, which goes to clean data, is of
    first order, so lower_order_final and euler_at_final change nothing.
    """

    model_outputs: list[Tensor | None]  # the last predictions of x_0, the newest at the end
    lower_order_nums: int  # how many of them are of this run

    @keeps_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        solver_order: int = 2,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        algorithm_type: str = "dpmsolver++",
        solver_type: str = "midpoint",
        lower_order_final: bool = True,
        euler_at_final: bool = False,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        final_sigmas_type: str = "zero",
        lambda_min_clipped: float = -math.inf,
        variance_type: str | None = None,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
    ) -> None:
        refuse_options(self.config, SUPPORTED)
        self.prepare()
        self.forget()

    def prepare(self) -> None:
        """Build the schedule that the config describes; one that ends in pure noise keeps a trace of the signal."""
        super().prepare()
        if self.config.rescale_betas_zero_snr:
            alpha_bar = self.schedule.alpha_bar.clone()
            alpha_bar[-1] = ALMOST_NO_SIGNAL
            self.schedule = schedule_from_alpha_bar(alpha_bar)

    def forget(self) -> None:
        """Start a new run: no predictions remembered, no position."""
        self.model_outputs = [None] * self.config.solver_order
        self.lower_order_nums = 0
        self.step_index = None
        self.begin_index = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        mu: float | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps to visit: so many, spaced as the config says, or exactly these, falling.

        linspace and leading space one timestep more and leave out the last: the data's place.
        Raises ValueError unless one of the two is given, and for steps that can't be spaced so.
        """
        if mu is not None:
            raise NotImplementedError("mu is not implemented: it belongs to use_dynamic_shifting")
        self.timesteps = self.chosen(num_inference_steps, timesteps, self.config.num_train_timesteps).to(device)
        self.num_inference_steps = len(self.timesteps)
        self.forget()

    def spaced(self, T: int, steps: int) -> Tensor:
        """`steps` falling timesteps, (steps,) int64; the data have the last place of linspace and leading spacing."""
        spacing = self.config.timestep_spacing
        if spacing == "trailing":
            return spaced_timesteps(spacing, T, steps)
        if not 1 <= steps < T:
            raise ValueError(f"num_inference_steps is {steps}: {spacing} spacing takes 1 to {T - 1} of {T} timesteps")
        return super().spaced(T, steps + 1)[:-1]

    @property
    def sigmas(self) -> Tensor:
        """Noise beside an unscaled x_0 at each timestep visited, and 0 for the data: (steps + 1,) float64."""
        sigma = self.schedule.sigma[self.timesteps.cpu()]
        return torch.cat([sigma, sigma.new_zeros(1)])

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """From x_t and the network's answer to x at the next timestep: a step of Algorithm 2 of the paper.

        model_output, sample: (B, ...). The steps have to follow the timesteps in order. generator and variance_noise
        are diffusers' arguments for stochastic variants: a deterministic sampler has no use for them.
        Returns .prev_sample and .pred_original_sample, or a tuple of the two.
        """
        position = self.position_of(timestep)
        earlier, here, following = self.scales_around(position, sample.dtype)
        x0 = self.clipped(parts_of(self.config.prediction_type, model_output, sample, *here.numbers()).x0)
        self.model_outputs = [*self.model_outputs[1:], x0]
        last = position == len(self.timesteps) - 1
        first_order = self.config.solver_order == 1 or self.lower_order_nums < 1 or last
        earlier_x0 = None if first_order else self.model_outputs[-2]
        previous = dpm_solver_step(sample, x0, here, following, earlier_x0, earlier)
        self.lower_order_nums = min(self.lower_order_nums + 1, self.config.solver_order)
        self.step_index = position + 1
        return self.output(previous, x0, return_dict)

    def first_position_of(self, timestep: int | float | Tensor) -> int:
        """Where a timestep stands; as in diffusers, one that isn't visited counts as the last.

        Raises ValueError before `set_timesteps`.
        """
        if self.num_inference_steps is None:
            raise ValueError(
                "Number of inference steps is 'None', you need to run 'set_timesteps' after creating the scheduler"
            )
        visited = (self.timesteps == timestep).nonzero()
        return int(visited[0]) if len(visited) else len(self.timesteps) - 1

    def scales_around(self, position: int, dtype: torch.dtype) -> list[Scales]:
        """The scales at the timestep before, at and after a position; after the last, those of the data."""
        table = self.alpha_bar_table(dtype)
        visited = torch.cat([table[self.timesteps.cpu()], table.new_ones(1)])
        return [self.scales_of(visited[max(i, 0)]) for i in (position - 1, position, position + 1)]

    def scales_of(self, alpha_bar: Tensor) -> Scales:
        """The scales at alpha_bar ()."""
        return Scales(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def half_log_snr(scales: Scales) -> Tensor:
    """lambda = log(alpha / sigma), (), infinite for clean data."""
    return scales.signal.log() - scales.noise.log()


def dpm_solver_step(
    x_t: Tensor, x0: Tensor, here: Scales, following: Scales, earlier_x0: Tensor | None, earlier: Scales
) -> Tensor:
    """x at the next timestep, sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D: Algorithm 2.

    D is the predicted x_0 halfway there, on the line through the last two; without an earlier one, x_0 as it is.
    x_t, x0, earlier_x0: (B, ...); the scales of the timestep before, of t and of the next one, s.
    """
    h = half_log_snr(following) - half_log_snr(here)  # the growth of lambda
    D = x0
    if earlier_x0 is not None:
        r = ((half_log_snr(here) - half_log_snr(earlier)) / h).item()
        D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * earlier_x0
    return (following.noise / here.noise).item() * x_t - (following.signal * torch.expm1(-h)).item() * D


Scheduler = DPMSolverMultistepScheduler
