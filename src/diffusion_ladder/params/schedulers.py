"""The scheduler modules of a rung, by what they are used for."""

from typing import Literal

from diffusion_ladder.params.section import Section

NoisingScheduler = Literal["ddpm", "ddim", "diffusers_ddpm", "diffusers_ddim"]  # x_t as in DDPM's eq. 4
SamplerName = NoisingScheduler | Literal["dpm_solver", "heun", "diffusers_dpm_solver", "diffusers_heun"]
METHODS = ("ddpm", "ddim", "dpm_solver", "heun")
SAMPLER_MODULES = tuple(f"{library}{method}" for library in ("", "diffusers_") for method in METHODS)


class Schedulers(Section):
    """The scheduler modules of a rung besides that of its samples, which `sampling.sampler` names."""

    training: NoisingScheduler
    comparison: SamplerName
