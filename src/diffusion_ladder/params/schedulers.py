"""The scheduler modules of a rung, by what they are used for: names of the table of samplers."""

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator

from diffusion_ladder.foundation.section import Section
from diffusion_ladder.params.samplers import MODULES, NOISING_MODULES, SAMPLERS


def one_in(names: Collection[str]) -> AfterValidator:
    """Refuses a text that is none of some names, and says which there are."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return value

    return AfterValidator(check)


NoisingScheduler = Annotated[str, one_in(NOISING_MODULES)]  # x_t as in DDPM's eq. 4
SamplerModule = Annotated[str, one_in(MODULES)]
SamplerName = Annotated[str, one_in(SAMPLERS)]  # without the library


class Schedulers(Section):
    """The scheduler modules of a rung besides that of its samples, which `sampling.sampler` names."""

    training: NoisingScheduler
    comparison: SamplerModule
