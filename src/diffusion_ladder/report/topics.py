"""The parts of a chapter that show what happened: each figure stands under the topic that its file's name tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusion_ladder.report.metrics import Fact
from diffusion_ladder.report.pictures import Picture

TITLES = {
    "forward": "The forward process",
    "schedule": "The noise schedule",
    "training": "Training",
    "reverse": "The reverse process",
    "samples": "Uncurated samples",
    "cost": "Quality against cost",
    "spectrum": "Grain and checkerboards",
    "sample_size": "Bias at small sample sizes",
    "labels": "Classes, labels and guidance",
    "memorisation": "Memorisation",
    "other": "More pictures",
}
FIGURES = {  # names of files without their ending, or how they begin, before an underscore
    "forward": ("forward",),
    "schedule": ("schedule",),
    "training": ("training", "loss_by_timestep", "previews"),
    "reverse": ("reverse", "predicted", "score"),
    "samples": ("samples", "held_out", "comparison"),
    "cost": ("cost",),
    "spectrum": ("spectrum",),
    "sample_size": ("sample_size",),
    "labels": ("class_shares", "confusion", "guidance"),
    "memorisation": ("memorisation", "neighbours"),
}
FACTS = {  # keys of metrics files that belong to a topic, or how they begin
    "cost": ("cheapest_good", "default_is_cheapest_good", "knee"),
    "memorisation": ("memorisation", "training_repetitions"),
    "reverse": ("score_error",),
}
BEFORE_THE_NUMBERS = ("forward", "schedule", "training", "reverse", "samples")


@dataclass(frozen=True)
class Topic:
    """A part of a chapter.

    Attributes:
        key: one of TITLES.
        paragraphs: what it is about, in prose.
        facts: its numbers.
        pictures: its figures.
    """

    key: str
    paragraphs: Sequence[str]
    facts: Sequence[Fact]
    pictures: Sequence[Picture]

    @property
    def title(self) -> str:
        """Its heading."""
        return TITLES[self.key]

    @property
    def comes_first(self) -> bool:
        """Whether it stands before the rung's numbers, which the topics after them explain."""
        return self.key in BEFORE_THE_NUMBERS


def topic_of_fact(key: str) -> str:
    """The topic of a fact, by its key; "other" for one that stands with the rung's numbers."""
    return next((topic for topic, begins in FACTS.items() if key.startswith(begins)), "other")


def topic_of(name: str) -> str:
    """The topic of a figure, by the name of its file."""
    for key, names in FIGURES.items():
        if any(name == begin or name.startswith(f"{begin}_") for begin in names):
            return key
    return "other"


def topics_of(
    pictures: Sequence[Picture], facts: Mapping[str, Sequence[Fact]], paragraphs: Mapping[str, Sequence[str]]
) -> list[Topic]:
    """The topics that have a figure or a number, in the order of TITLES; `facts` and `paragraphs` are by topic."""
    found = [
        Topic(
            key,
            paragraphs.get(key, ()),
            facts.get(key, ()),
            [picture for picture in pictures if topic_of(picture.name) == key],
        )
        for key in TITLES
    ]
    return [topic for topic in found if topic.facts or topic.pictures]
