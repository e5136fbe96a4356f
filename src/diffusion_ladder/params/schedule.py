"""The forward process: beta_1 .. beta_T, and what the network predicts."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import OpenShare, Section


class Schedule(Section):
    """The forward process: beta_1 .. beta_T, and what the network predicts."""

    name: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
    T: Annotated[int, Field(ge=2)]
    beta_start: OpenShare
    beta_end: OpenShare
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    rescale_betas_zero_snr: bool = False

    @model_validator(mode="after")
    def betas_rise(self) -> "Schedule":
        """Noise must not shrink along the forward process."""
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end = {self.beta_end} is below beta_start = {self.beta_start}")
        return self
