"""Samples by every sampler at several costs, and at several scales of guidance: what the table of each is made of."""

from dataclasses import dataclass

from diffusion_ladder.params.samplers import SAMPLERS, module_beside
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.sweep import Sweep


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


def settings_by_table(sweep: Sweep, own: Sampling) -> dict[str, list[Setting]]:
    """What is drawn for each table.

    - cost: every method within every number of evaluations, guided as the rung's samples are;
    - guidance: the rung's own method at every scale; left out where no scale is named.

    Args:
        sweep: methods, evaluations and scales.
        own: how the rung's samples are drawn.
    """
    costs = [
        Setting(module_beside(method, own.sampler), SAMPLERS[method].steps_within(evaluations), own.guidance_scale)
        for method in sweep.samplers
        for evaluations in sweep.evaluations
    ]
    swept = sweep.guidance
    guidance = [Setting(own.sampler, swept.steps, scale) for scale in swept.scales] if swept else []
    return {table: settings for table, settings in (("cost", costs), ("guidance", guidance)) if settings}
