"""diffusers' own DDIM scheduler, under the name that the pipeline loads."""

from diffusers.schedulers.scheduling_ddim import DDIMScheduler as Scheduler

__all__ = ["Scheduler"]
