"""How the ideal denoiser of a training set is sampled, in the place of a rung's network."""

from typing import Annotated

from pydantic import Field

from diffusion_ladder.foundation.section import Positive, PositiveFloat, Section, Spacing
from diffusion_ladder.params.schedulers import SamplerModule


class Gaussian(Section):
    """Data of one number, normally distributed."""

    mean: float
    std: PositiveFloat


class IdealDenoiser(Section):
    """How the ideal denoiser of a training set is sampled, in the place of a rung's network."""

    examples: Positive
    sampler: SamplerModule
    steps: Positive
    spacing: Spacing
    count: Annotated[int, Field(ge=4)]
    gaussian: Gaussian | None = None
