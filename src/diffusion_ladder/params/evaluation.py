"""How samples are measured."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import NotNegativeFloat, OpenShare, Positive, PositiveFloat, Section, Share


class Memorisation(Section):
    """What counts as a copy of training data."""

    ratio: OpenShare
    copied_excess: Share
    c_t_limit: PositiveFloat
    cells: Positive
    shown: Positive


class AccuracyScore(Section):
    """What a training for the classifier accuracy score has less of than that of the judge."""

    steps: Positive
    batch_size: Positive


class TwoSampleTest(Section):
    """How the network is trained that is to tell samples from held-out images."""

    channels: Annotated[list[Positive], Field(min_length=1)]
    steps: Positive
    batch_size: Positive
    learning_rate: PositiveFloat
    weight_decay: NotNegativeFloat


class Inception(Section):
    """A file of weights of the Inception network."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Evaluation(Section):
    """What every evaluation states."""

    sample_count: Annotated[int, Field(ge=4)]
    smaller_counts: list[Annotated[int, Field(ge=4)]]
    memorisation: Memorisation

    @model_validator(mode="after")
    def counts_rise(self) -> "Evaluation":
        """The curve over the sample size rises to the sample size of the metrics."""
        if any(first >= second for first, second in pairwise([*self.smaller_counts, self.sample_count])):
            raise ValueError(f"smaller_counts: must rise, and stay below sample_count = {self.sample_count}")
        return self


class ImageEvaluation(Evaluation):
    """How samples are measured by evaluation/images.py."""

    neighbours: Positive
    two_sample: TwoSampleTest | None = None
    accuracy_score: AccuracyScore | None = None
    inception: Inception | None = None

    @model_validator(mode="after")
    def neighbours_exist(self) -> "ImageEvaluation":
        """A member of a set has so many others beside it."""
        if self.neighbours >= self.sample_count:
            raise ValueError(f"neighbours: {self.neighbours} is not below sample_count = {self.sample_count}")
        return self


class PointEvaluation(Evaluation):
    """How samples are measured by evaluation/points.py."""

    projections: Positive
