"""diffusers' own DDPM scheduler, under the name that the pipeline loads."""

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler as Scheduler

__all__ = ["Scheduler"]
