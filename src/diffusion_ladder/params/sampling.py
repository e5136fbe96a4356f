"""How a rung's samples are drawn."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import ClosedShare, NotNegativeFloat, Positive, Section, Spacing, StepCount
from diffusion_ladder.params.schedulers import SamplerModule


class Thresholding(Section):
    """Dynamic thresholding of x_0 (Imagen, arXiv 2205.11487)."""

    ratio: Annotated[float, Field(gt=0, le=1)]
    max_value: Annotated[float, Field(ge=1)]


class Sampling(Section):
    """How a rung's samples are drawn; what is off is absent."""

    sampler: SamplerModule
    steps: StepCount
    spacing: Spacing
    variance_type: Literal["fixed_small", "fixed_large"]
    seeds: Annotated[int, Field(ge=2)]
    count: Positive
    batch_size: Positive
    comparison_steps: StepCount
    comparison_count: Positive
    trajectory_count: Positive
    trajectory_frames: Annotated[int, Field(ge=2)]
    eta: ClosedShare = 0.0
    clip_sample: bool = False
    thresholding: Thresholding | None = None
    guidance_scale: NotNegativeFloat = 1.0
    guidance_interval: Annotated[list[ClosedShare], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def clipping_and_guidance_are_clear(self) -> "Sampling":
        """One way of keeping x_0 in range at most; an interval that isn't turned round."""
        if self.clip_sample and self.thresholding:
            raise ValueError("clip_sample and thresholding are both there: choose one of them")
        if self.guidance_interval and self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"guidance_interval: {self.guidance_interval} ends before it begins")
        return self
