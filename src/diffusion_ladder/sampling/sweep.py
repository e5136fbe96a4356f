"""Samples by every sampler at several costs, and at several scales of guidance: what the table of each is made of."""

from dataclasses import dataclass

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


def steps_within(method: str, evaluations: int) -> int:
    """The most steps that take no more than so many network evaluations: Heun's N steps take 2N - 1, others' take N."""
    return (evaluations + 1) // 2 if method == "heun" else evaluations


def module_beside(method: str, sampler: str) -> str:
    """The module of a method that comes from where a sampler does: written here, or diffusers'."""
    return f"diffusers_{method}" if sampler.startswith("diffusers_") else method


def settings_by_table(sweep: Sweep, own: Sampling) -> dict[str, list[Setting]]:
    """What is drawn for each table.

    - cost: every method within every number of evaluations, guided as the rung's samples are;
    - guidance: the rung's own method at every scale; left out where no scale is named.

    Args:
        sweep: methods, evaluations and scales.
        own: how the rung's samples are drawn.
    """
    costs = [
        Setting(module_beside(method, own.sampler), steps_within(method, evaluations), own.guidance_scale)
        for method in sweep.samplers
        for evaluations in sweep.evaluations
    ]
    swept = sweep.guidance
    guidance = [Setting(own.sampler, swept.steps, scale) for scale in swept.scales] if swept else []
    return {table: settings for table, settings in (("cost", costs), ("guidance", guidance)) if settings}
