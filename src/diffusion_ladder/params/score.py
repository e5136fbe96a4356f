"""How a rung's learnt score is held against the exact one."""

from typing import Annotated

from pydantic import Field

from diffusion_ladder.foundation.section import Positive, PositiveFloat, Section


class Score(Section):
    """How a rung's learnt score is held against the exact one."""

    fields_at: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=3, max_length=3)]
    reach: PositiveFloat
    grid: Annotated[int, Field(ge=2)]
    error_timesteps: Annotated[int, Field(ge=2)]
    error_points: Positive
    seeds: Annotated[int, Field(ge=2)]
