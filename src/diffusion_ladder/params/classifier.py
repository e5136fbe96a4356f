"""The classifiers that judge images, each by the name of its data set."""

from typing import Annotated

from pydantic import Field

from diffusion_ladder.foundation.section import NotNegative, Positive, PositiveFloat, Section


class Classifier(Section):
    """A classifier of an image data set: the judge of its samples."""

    channels: Annotated[list[Positive], Field(min_length=1)]
    feature_size: Positive
    steps: Positive
    batch_size: Positive
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    shift: NotNegative
    flip: bool
    min_accuracy: Annotated[float, Field(ge=0, le=1)]
