"""What a metric must reach."""

from typing import Annotated

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import Section


class Threshold(Section):
    """What a metric must reach: one limit, by a definition of its own or by the bounds that the same run measured.

    - at_most, at_least: a number;
    - at_most_floor: a multiple of what real data score in the samples' place;
    - at_most_of_range: a share of the way from there to what noise scores, upwards or downwards;
    - within_factor: of a ratio, so many times too large or too small at most.
    """

    at_most: float | None = None
    at_least: float | None = None
    at_most_floor: Annotated[float, Field(ge=1)] | None = None
    at_most_of_range: Annotated[float, Field(gt=0, lt=1)] | None = None
    within_factor: Annotated[float, Field(gt=1)] | None = None

    @model_validator(mode="after")
    def is_one_of_them(self) -> "Threshold":
        """There is one limit."""
        if sum(value is not None for value in self.given.values()) != 1:
            raise ValueError(f"give one of {', '.join(self.given)}, and not more")
        return self

    @property
    def given(self) -> dict[str, float | None]:
        """The limits by their keys."""
        return {key: getattr(self, key) for key in type(self).model_fields}

    @property
    def kind(self) -> str:
        """Which limit there is."""
        return next(key for key, value in self.given.items() if value is not None)

    @property
    def number(self) -> float:
        """The limit's number, as it was given."""
        return float(self.given[self.kind])  # type: ignore[arg-type]
