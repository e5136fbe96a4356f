"""diffusers' own Heun scheduler, under the name that the pipeline loads."""

from typing import Any

from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler


class Scheduler(HeunDiscreteScheduler):
    """Also takes a generator, for the sake of one sampling loop: a deterministic sampler has no use for it."""

    def step(self, *arguments: Any, generator: object = None, **options: Any) -> Any:
        """As in diffusers."""
        return super().step(*arguments, **options)
