"""The forward process of a rung, built once from its parameters: training, figures and evaluation all have this one."""

import functools

from diffusion_ladder.diffusion.schedules import NoiseSchedule, make_schedule
from diffusion_ladder.params.schedule import Schedule


@functools.cache
def forward_process(schedule: Schedule) -> NoiseSchedule:
    """The forward process that the settings describe, its coefficients (T,) float64."""
    return make_schedule(
        schedule.name, schedule.T, schedule.beta_start, schedule.beta_end, schedule.rescale_betas_zero_snr
    )
