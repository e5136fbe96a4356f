"""The from-scratch schedulers as members of diffusers' family: configs that save and load, pipelines, compatibles.

diffusers computes its coefficients in float32, where 1 - alpha_bar_0 = 1e-4 keeps three digits: at the last timesteps
the two coefficients of DDPM's eq. 7 miss their sum by 5e-5. To be interchangeable with it number by number, these
classes do the same for float32 samples; for float64 samples they are exact, as the plain classes always are.

A saved pipeline names this module, and on loading diffusers looks for SchedulerMixin in it.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import is_torchsde_available
from torch import Tensor

from diffusion_ladder.diffusion.schedules import beta_between, rescale_to_zero_terminal_snr, schedule_from_alpha_bar
from diffusion_ladder.schedulers import DiscreteScheduler, ddim, ddpm, dpm_solver, heun

NEED_TORCHSDE = {"DPMSolverSDEScheduler"}  # which diffusers offers as compatible even where torchsde is missing
COMPATIBLES = [
    scheduler.name
    for scheduler in KarrasDiffusionSchedulers
    if is_torchsde_available() or scheduler.name not in NEED_TORCHSDE
]


class DiffusersPrecision(DiscreteScheduler):
    """Coefficients in the precision in which diffusers computes them."""

    float32_alpha_bar: Tensor  # (T,)

    def prepare(self) -> None:
        """Build the schedule twice: exact, and in float32."""
        super().prepare()
        beta = self.beta_of_config(torch.float32)
        alpha_bar = torch.cumprod(1 - beta, dim=0)
        if self.config.get("rescale_betas_zero_snr", False):
            beta = beta_between(rescale_to_zero_terminal_snr(alpha_bar))
            alpha_bar = torch.cumprod(1 - beta, dim=0)
            alpha_bar[-1] = self.schedule.alpha_bar[-1]  # 0, or what the sampler has put in its place
        self.float32_alpha_bar = alpha_bar

    def alpha_bar_table(self, dtype: torch.dtype) -> Tensor:
        """alpha_bar (T,): float64 for float64 samples, else float32, multiplied up in float32."""
        return self.schedule.alpha_bar if dtype == torch.float64 else self.float32_alpha_bar

    @property
    def betas(self) -> Tensor:
        """beta (T,) float32."""
        return self.schedule.beta.float()

    @property
    def alphas(self) -> Tensor:
        """alpha (T,) float32."""
        return 1 - self.betas

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar (T,) float32, so that scripts may index it and multiply; assigning replaces the whole schedule."""
        return self.alpha_bar_table(torch.float32)

    @alphas_cumprod.setter
    def alphas_cumprod(self, alpha_bar: Tensor) -> None:
        self.schedule = schedule_from_alpha_bar(alpha_bar.cpu())
        self.float32_alpha_bar = self.schedule.alpha_bar.float()


class DDPMScheduler(SchedulerMixin, ConfigMixin, DiffusersPrecision, ddpm.DDPMScheduler):  # type: ignore[misc]
    """schedulers/ddpm.py as a diffusers scheduler."""

    _compatibles = COMPATIBLES
    output_class = DDPMSchedulerOutput
    __init__ = register_to_config(ddpm.DDPMScheduler.__init__)


class DDIMScheduler(SchedulerMixin, ConfigMixin, DiffusersPrecision, ddim.DDIMScheduler):  # type: ignore[misc]
    """schedulers/ddim.py as a diffusers scheduler."""

    _compatibles = COMPATIBLES
    output_class = DDIMSchedulerOutput
    __init__ = register_to_config(ddim.DDIMScheduler.__init__)


class DPMSolverMultistepScheduler(  # type: ignore[misc]
    SchedulerMixin, ConfigMixin, DiffusersPrecision, dpm_solver.DPMSolverMultistepScheduler
):
    """schedulers/dpm_solver.py as a diffusers scheduler."""

    _compatibles = COMPATIBLES
    output_class = DDPMSchedulerOutput  # diffusers' own has no pred_original_sample
    __init__ = register_to_config(dpm_solver.DPMSolverMultistepScheduler.__init__)

    def scales_of(self, alpha_bar: Tensor) -> dpm_solver.Scales:
        """The scales at alpha_bar (), by way of sigma, the noise beside an unscaled x_0."""
        sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
        signal = 1 / (sigma**2 + 1) ** 0.5
        return dpm_solver.Scales(signal, sigma * signal)


class HeunDiscreteScheduler(  # type: ignore[misc]
    SchedulerMixin, ConfigMixin, DiffusersPrecision, heun.HeunDiscreteScheduler
):
    """schedulers/heun.py as a diffusers scheduler."""

    _compatibles = COMPATIBLES
    output_class = HeunDiscreteSchedulerOutput
    __init__ = register_to_config(heun.HeunDiscreteScheduler.__init__)
    float64_sigmas: Tensor  # (2 steps,), as `sigmas`, which is float32 here

    def visit(self, timesteps: Tensor, device: str | torch.device | None = None) -> None:
        """Take these timesteps, (steps,) float64 falling, for a new run."""
        super().visit(timesteps, device)
        self.float64_sigmas = self.sigmas
        alpha_bar = self.float32_alpha_bar
        self.sigmas = self.sigmas_visited(((1 - alpha_bar) / alpha_bar) ** 0.5)

    def sigmas_for(self, dtype: torch.dtype) -> Tensor:
        """The sigmas: float64 for float64 samples, else float32."""
        return self.float64_sigmas if dtype == torch.float64 else self.sigmas
