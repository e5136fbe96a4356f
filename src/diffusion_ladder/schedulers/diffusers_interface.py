"""The from-scratch schedulers as members of diffusers' family: configs that save and load, pipelines, compatibles."""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin

from diffusion_ladder.schedulers import ddim, ddpm

COMPATIBLES = [scheduler.name for scheduler in KarrasDiffusionSchedulers]


class DDPMScheduler(SchedulerMixin, ConfigMixin, ddpm.DDPMScheduler):
    __doc__ = ddpm.DDPMScheduler.__doc__
    _compatibles = COMPATIBLES
    output_class = DDPMSchedulerOutput
    __init__ = register_to_config(ddpm.DDPMScheduler.__init__)


class DDIMScheduler(SchedulerMixin, ConfigMixin, ddim.DDIMScheduler):
    __doc__ = ddim.DDIMScheduler.__doc__
    _compatibles = COMPATIBLES
    output_class = DDIMSchedulerOutput
    __init__ = register_to_config(ddim.DDIMScheduler.__init__)


for _scheduler in (DDPMScheduler, DDIMScheduler):
    _scheduler.__module__ = "diffusion_ladder.schedulers"  # where saved pipelines and pickles look for them
