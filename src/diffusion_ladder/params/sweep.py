"""Which samplers a rung compares, and at which cost."""

from typing import Annotated

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import ClosedShare, NotNegativeFloat, Positive, Section
from diffusion_ladder.params.schedulers import SamplerName


class SweptGuidance(Section):
    """Scales of guidance with the rung's own sampler, and the steps of that."""

    scales: Annotated[list[NotNegativeFloat], Field(min_length=1)]
    steps: Positive


class Sweep(Section):
    """Which samplers a rung compares, and at which cost; what is off is absent."""

    samplers: Annotated[list[SamplerName], Field(min_length=1)]
    evaluations: Annotated[list[Positive], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=2)]
    count: Annotated[int, Field(ge=2)]
    batch_size: Positive
    eta: ClosedShare = 0.0
    guidance: SweptGuidance | None = None

    @model_validator(mode="after")
    def nothing_stands_twice(self) -> "Sweep":
        """Every setting is drawn once."""
        scales = self.guidance.scales if self.guidance else []
        for key, values in (
            ("samplers", self.samplers),
            ("evaluations", self.evaluations),
            ("guidance.scales", scales),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: {values} holds a value twice")
        return self
