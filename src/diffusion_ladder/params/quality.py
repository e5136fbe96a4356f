"""What a metric must reach."""

from pydantic import model_validator

from diffusion_ladder.params.section import Section


class Threshold(Section):
    """What a metric must reach: an upper limit or a lower one."""

    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def is_one_of_them(self) -> "Threshold":
        """There is one limit."""
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give at_most or at_least, and not both")
        return self

    @property
    def limit(self) -> float:
        """The number itself."""
        return self.at_least if self.at_most is None else self.at_most  # type: ignore[return-value]
