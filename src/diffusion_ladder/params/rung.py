"""A rung of the ladder: all that belongs to it in params.yaml."""

from diffusion_ladder.params.evaluation import ImageEvaluation, PointEvaluation
from diffusion_ladder.params.figures import Figures
from diffusion_ladder.params.network import NamedNetwork
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.schedulers import Schedulers
from diffusion_ladder.params.score import Score
from diffusion_ladder.params.section import Section
from diffusion_ladder.params.sweep import Sweep
from diffusion_ladder.params.training import Previews, Training


class RungParameters(Section):
    """A block of `rungs`, with what `every_rung` adds to it; `score` is there for points alone, and may be absent."""

    title: str
    dataset: str
    conditional: bool
    network: NamedNetwork
    schedule: Schedule
    schedulers: Schedulers
    training: Training
    previews: Previews
    sampling: Sampling
    sweep: Sweep
    evaluation: ImageEvaluation | PointEvaluation
    quality: dict[str, Threshold]
    figures: Figures
    score: Score | None = None
