"""Samples by every sampler at several costs, and at several scales of guidance: what the table of each is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from diffusion_ladder.params import Sampling, Sweep
from diffusion_ladder.samplers import MODULES, SAMPLERS


@dataclass(frozen=True)
class Setting:
    """A way of drawing samples.

    Attributes:
        sampler: module name under schedulers/.
        steps: of the sampler, or "all" T.
        guidance_scale: of classifier-free guidance; 1 is the conditional model alone.
    """

    sampler: str
    steps: int | str
    guidance_scale: float


def settings_by_table(
    sweep: Sweep, own: Sampling, sampler: str, modules: Mapping[str, str]
) -> dict[str, list[Setting]]:
    """What is drawn for each table.

    - cost: every method within every number of evaluations, guided as the rung's samples are;
    - guidance: the rung's own method at every scale; left out where no scale is named.

    Args:
        sweep: methods, evaluations and scales.
        own: how the rung's samples are drawn.
        sampler: module that draws them.
        modules: by method, its module under schedulers/.
    """
    costs = [
        Setting(modules[method], SAMPLERS[method].steps_within(evaluations), own.guidance_scale)
        for method in sweep.samplers
        for evaluations in sweep.evaluations
    ]
    module = modules[MODULES[sampler].name]
    guidance = [Setting(module, sweep.guidance_steps, scale) for scale in sweep.guidance_scales]
    return {table: settings for table, settings in (("cost", costs), ("guidance", guidance)) if settings}
