"""A rung of the ladder: all that belongs to it in params.yaml."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from diffusion_ladder.foundation.section import Section
from diffusion_ladder.params.evaluation import ImageEvaluation, PointEvaluation
from diffusion_ladder.params.figures import Figures
from diffusion_ladder.params.ideal_denoiser import IdealDenoiser
from diffusion_ladder.params.network import NamedNetwork
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.schedulers import Schedulers
from diffusion_ladder.params.score import Score
from diffusion_ladder.params.sweep import Sweep
from diffusion_ladder.params.text import Line
from diffusion_ladder.params.training import Previews, Training


def evaluation_of(values: Any) -> str:
    """Which evaluation a section means: that of points is known by its projections."""
    points = "projections" in values if isinstance(values, dict) else isinstance(values, PointEvaluation)
    return "points" if points else "images"


AnyEvaluation = Annotated[
    Annotated[ImageEvaluation, Tag("images")] | Annotated[PointEvaluation, Tag("points")], Discriminator(evaluation_of)
]


class RungParameters(Section):
    """A block of `rungs`, with what `every_rung` adds to it.

    `score`, for points alone, and `ideal_denoiser` may be absent.
    """

    title: Line
    dataset: str
    conditional: bool
    network: NamedNetwork
    schedule: Schedule
    schedulers: Schedulers
    training: Training
    previews: Previews
    sampling: Sampling
    sweep: Sweep
    evaluation: AnyEvaluation
    quality: dict[str, Threshold]
    figures: Figures
    score: Score | None = None
    ideal_denoiser: IdealDenoiser | None = None
