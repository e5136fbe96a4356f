"""How a rung is trained, and what is drawn meanwhile."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_ladder.foundation.section import (
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
    Share,
    Spacing,
)


class LossWeight(Section):
    """How much the error at each timestep counts."""

    name: Literal["min_snr", "p2"]
    gamma: PositiveFloat


class EmaChoice(Section):
    """Further averages of the weights, one of which may take the place of the first."""

    decays: Annotated[list[Share], Field(min_length=1)]
    batches: Positive


class TimestepDensity(Section):
    """Timesteps drawn so that their log-SNR is normal with this mean and deviation, as far as the schedule reaches."""

    log_snr_mean: float
    log_snr_deviation: PositiveFloat


class Decay(Section):
    """How the learning rate ends: constant, then down to zero in the last part of the training."""

    shape: Literal["linear", "one_minus_sqrt"]
    share: Annotated[float, Field(gt=0, le=1)]


class Training(Section):
    """The training loop's settings; what is off is absent."""

    seed: NotNegative
    steps: Positive
    batch_size: Positive
    learning_rate: PositiveFloat
    warmup_steps: NotNegative
    weight_decay: NotNegativeFloat
    optimiser: Literal["adamw", "muon"]
    adam_betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    gradient_clip: PositiveFloat | None = None
    ema_decay: Share
    ema_warmup: Positive
    log_every: Positive
    ema_choice: EmaChoice | None = None
    label_dropout: Share = 0.0
    examples: Positive | None = None
    class_weights: Annotated[list[PositiveFloat], Field(min_length=2)] | None = None
    flip: bool = False
    pairing: Literal["optimal_transport"] | None = None
    loss_weight: LossWeight | None = None
    stratified_timesteps: bool = False
    timestep_density: TimestepDensity | None = None
    decay: Decay | None = None


class Previews(Section):
    """The samples that are drawn during training."""

    at: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    count: Positive
    steps: Positive
    spacing: Spacing
    clip_sample: bool = False
