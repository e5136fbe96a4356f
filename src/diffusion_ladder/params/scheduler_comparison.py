"""How the from-scratch schedulers are run beside diffusers'."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import OpenShare, Positive, PositiveFloat, Section


class SchedulerComparison(Section):
    """How the from-scratch schedulers are run beside diffusers'."""

    T: Annotated[int, Field(ge=2)]
    beta_start: OpenShare
    beta_end: OpenShare
    steps: Annotated[list[Positive], Field(min_length=1)]
    long_steps: Positive
    sample_shape: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    data_mean: float
    data_std: PositiveFloat
    limits: dict[Literal["float32", "float64"], PositiveFloat]

    @model_validator(mode="after")
    def steps_fit(self) -> "SchedulerComparison":
        """The longest loops visit every timestep at most; DPM-Solver++ spaces one timestep more than the others."""
        if max(self.steps) >= self.T or self.long_steps > self.T:
            raise ValueError(f"steps must be below T = {self.T}, and long_steps at most {self.T}")
        return self
