"""Rung 0 of the report: the ideal denoisers, which sample without any training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.report.equations import IDEAL_DENOISER, Equation
from diffusion_ladder.report.excerpts import IDEAL_DENOISER as CODE
from diffusion_ladder.report.excerpts import Excerpt, source_of
from diffusion_ladder.report.metrics import Fact, Metric, facts_of, headline_of, metrics_of
from diffusion_ladder.report.pictures import REPORTS, Picture, pictures_in
from diffusion_ladder.report.words import RUNG_ZERO

MEMORISATION = ("copied_share", "exact_duplicates", "nearest_training_distance", "c_t")
QUALITY = ("label_accuracy", "precision", "coverage", "outside_tube_share")
FACTS = ("known_examples", "nfe", "sample_count", "sampling_seeds")


@dataclass(frozen=True)
class Ideal:
    """The ideal denoiser that took the place of one rung's network.

    Attributes:
        key, title: of that rung.
        metrics: the headline, whether samples are good, and those of memorisation.
        facts: what it knows, and how its samples were drawn and compared.
        gaussian: how far the Gaussian chains end from the data; none where there were none.
        verdict: on memorisation, in words.
    """

    key: str
    title: str
    metrics: list[Metric]
    facts: list[Fact]
    gaussian: list[Fact]
    verdict: str
    pictures: list[Picture]


@dataclass(frozen=True)
class RungZero:
    """What the report says before anything is learnt."""

    ideals: list[Ideal]
    about: tuple[str, ...] = RUNG_ZERO
    equation: Equation = IDEAL_DENOISER
    code: Excerpt = CODE
    title: str = "Rung 0: the ideal denoiser"

    @property
    def source(self) -> str:
        """The code."""
        return source_of(self.code)


def rung_zero(root: Path, rungs: Mapping[str, RungParameters]) -> RungZero | None:
    """What was measured and drawn of the ideal denoisers; None where there is none."""
    measured = {key: root / REPORTS / "metrics/ideal" / f"{key}.json" for key in rungs}
    ideals = [ideal_of(root, key, rungs[key].title, path) for key, path in measured.items() if path.is_file()]
    return RungZero(ideals) if ideals else None


def ideal_of(root: Path, key: str, title: str, path: Path) -> Ideal:
    """One of them, from its metrics file."""
    raw = read_json(path)
    metrics, facts = metrics_of(raw), facts_of(raw)
    headline = headline_of(metrics)
    wanted = [*([headline.key] if headline else []), *QUALITY, *MEMORISATION]
    return Ideal(
        key=key,
        title=title,
        metrics=[metric for name in wanted for metric in metrics if metric.key == name],
        facts=[fact for name in FACTS for fact in facts if fact.key == name],
        gaussian=[fact for fact in facts if fact.key.startswith("gaussian_")],
        verdict=raw["memorisation_verdict"],
        pictures=pictures_in(root / REPORTS / "figures/ideal" / key, root, f"dvc repro -s -f ideal_denoiser@{key}"),
    )
