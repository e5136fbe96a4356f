"""Studies that have been run, as reports/studies/NAME/results.json keeps them, and what follows from their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from diffusion_ladder.evaluation.comparison import LEVEL, Comparison, compare, corrected
from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.report.metrics import HIGHER, NEAR, Description, described
from diffusion_ladder.report.pictures import Picture, pictures_in
from diffusion_ladder.report.rendering import number, with_spread

FOLDER = Path("reports/studies")
TESTS = {
    "welch": "Welch's t-test",
    "paired": "Student's t-test on the differences of runs with the same training seed",
}
CHART = "quality"  # the name of a study's chart
BETTER, WORSE, ALIKE, UNKNOWN = "better", "worse", "no difference shown", "nothing can be concluded"


@dataclass(frozen=True)
class Row:
    """A variant on a rung.

    Attributes:
        changes: what it changes, in words.
        cells: by metric, mean and deviation over the training seeds; empty where no run has it.
        runs: how many there are.
        seconds: of training, their mean; None where none was measured.
        comparison: with the baseline, by the deciding metric; None for the baseline, and with too few runs.
        judged: what the comparison comes to; empty for the baseline.
    """

    variant: str
    changes: str
    cells: dict[str, str]
    mean: float
    runs: int
    seconds: float | None
    comparison: Comparison | None
    judged: str

    @property
    def effect(self) -> str:
        """The difference from the baseline with its standard error."""
        return "" if self.comparison is None else in_figures(self.comparison)


@dataclass(frozen=True)
class Answer:
    """What a study found on one rung.

    Attributes:
        metric: the one that decides.
        description: of all of its metrics.
        rows: the baseline first, then the variants in the study's order.
    """

    rung: str
    metric: str
    description: dict[str, Description]
    baseline: Row
    rows: list[Row]

    @property
    def measured_by(self) -> str:
        """The deciding metric in words."""
        told = self.description[self.metric]
        return f"{told.title} ({told.direction})"

    @property
    def sentences(self) -> list[str]:
        """The verdict on each variant."""
        return [sentence(row, self.baseline, self.metric) for row in self.rows if row is not self.baseline]

    @property
    def summary(self) -> str:
        """The verdict in one sentence: what is better, what is worse, and how large a difference could be hidden."""
        groups = {judged: [row for row in self.rows if row.judged == judged] for judged in (BETTER, WORSE, ALIKE)}
        parts = [
            f"{names(rows)} {'is' if len(rows) == 1 else 'are'} {judged} than {self.baseline.variant}"
            for judged, rows in groups.items()
            if rows and judged != ALIKE
        ]
        if alike := groups[ALIKE]:
            bound = max(row.comparison.bound for row in alike if row.comparison)
            parts.append(f"no difference from {self.baseline.variant} beyond {number(bound, 2)}: {names(alike)}")
        if unknown := [row for row in self.rows if row.judged == UNKNOWN]:
            parts.append(f"nothing can be concluded from fewer than two trainings: {names(unknown)}")
        return f"On `{self.rung}`, by the {self.measured_by}: {'; '.join(parts)}."


def names(rows: list[Row]) -> str:
    """The variants in a sentence."""
    texts = [f"*{row.variant}*" for row in rows]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def in_figures(found: Comparison) -> str:
    """An effect with its standard error: 0.0081 ± 0.0006."""
    value, spread = with_spread(found.effect, found.standard_error)
    return f"{value} ± {spread}"


def chance(p_value: float) -> str:
    """A p-value in words."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def sentence(row: Row, baseline: Row, metric: str) -> str:
    """The verdict on one variant."""
    found = row.comparison
    if found is None:
        return f"*{row.variant}*: nothing can be concluded from fewer than two trainings on each side"
    runs = f"{found.runs[0]} against {found.runs[1]} runs"
    if row.judged == ALIKE:
        return (
            f"*{row.variant}*: no difference from {baseline.variant} beyond {number(found.bound, 2)}"
            f" (the means differ by {in_figures(found)}; {chance(found.p_value)}, {runs})"
        )
    size = abs(found.effect)
    value, spread = with_spread(size, found.standard_error)
    verb = "beats" if row.judged == BETTER else "is worse than"
    return (
        f"**{row.variant}** {verb} {baseline.variant} by {value} ± {spread}"
        f" ({row.cells[metric]} against {baseline.cells[metric]}; {chance(found.p_value)}, {runs})"
    )


@dataclass(frozen=True)
class StudyResults:
    """A study that has been run."""

    found: Mapping[str, Any]  # results.json

    @property
    def name(self) -> str:
        """Of its file under studies/."""
        return str(self.found["study"])

    @property
    def heading(self) -> str:
        """The part of the report in which its tables stand; empty without one."""
        return self.found["heading"] or ""

    @property
    def command(self) -> str:
        """What draws its pictures and pages again."""
        return f"python -m diffusion_ladder.study {self.name} --render"

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """A row for each run: rung, variant, seed, training_seconds, and its metrics."""
        return pandas.DataFrame(
            [
                {key: run[key] for key in ("rung", "variant", "seed", "training_seconds")} | run["metrics"]
                for run in self.found["runs"]
            ]
        )

    @property
    def variants(self) -> dict[str, Mapping[str, Any]]:
        """What each variant changes, the baseline first."""
        listed = {each["name"]: each["changes"] for each in self.found["variants"]}
        return {self.baseline: listed[self.baseline]} | listed

    @property
    def baseline(self) -> str:
        """The variant that the others are held against."""
        return str(self.found["baseline"])

    @cached_property
    def answers(self) -> list[Answer]:
        """One for each rung of which there are runs of the baseline."""
        return [answer for rung in self.found["rungs"] if (answer := self.answer(rung)) is not None]

    def runs(self, rung: str, variant: str) -> pandas.DataFrame:
        """Those of a variant on a rung, by their training seeds."""
        frame = self.frame
        chosen = frame if frame.empty else frame[(frame["rung"] == rung) & (frame["variant"] == variant)]
        return chosen if chosen.empty else chosen.set_index("seed").sort_index()

    def answer(self, rung: str) -> Answer | None:
        """What was found on a rung; None where the baseline has no run."""
        base = self.runs(rung, self.baseline)
        if base.empty:
            return None
        metrics = [name for name in self.found["metrics"] if name in base and base[name].notna().any()]
        told = {name: described(name) for name in metrics}
        groups = {name: runs for name in self.variants if not (runs := self.runs(rung, name)).empty}
        compared = {
            name: self.comparison(runs, base, metrics[0], told[metrics[0]])
            for name, runs in groups.items()
            if name != self.baseline
        }
        tested = [name for name, each in compared.items() if each is not None]
        p_values = corrected([each.p_value for each in compared.values() if each is not None])
        chances = dict(zip(tested, p_values, strict=True))
        rows = [
            self.row(name, runs, metrics, with_chance(compared.get(name), chances.get(name)), told[metrics[0]])
            for name, runs in groups.items()
        ]
        return Answer(rung, metrics[0], told, rows[0], rows)

    def comparison(
        self, runs: pandas.DataFrame, base: pandas.DataFrame, metric: str, told: Description
    ) -> Comparison | None:
        """A variant against the baseline."""
        paired = self.found["test"] == "paired"
        if paired:
            both = runs.index.intersection(base.index)
            runs, base = runs.loc[both], base.loc[both]
        return compare(judged_by(runs, metric, told), judged_by(base, metric, told), paired)

    def row(
        self,
        name: str,
        runs: pandas.DataFrame,
        metrics: list[str],
        comparison: Comparison | None,
        told: Description,
    ) -> Row:
        """A row of the table."""
        cells = {metric: with_deviation(runs[metric].dropna()) for metric in metrics}
        seconds = runs["training_seconds"].astype(float).mean()
        return Row(
            variant=name,
            changes=", ".join(f"{key}: {value}" for key, value in self.variants[name].items()),
            cells=cells,
            mean=float(runs[metrics[0]].mean()),
            runs=len(runs),
            seconds=None if pandas.isna(seconds) else float(seconds),
            comparison=comparison,
            judged="" if name == self.baseline else judgement(comparison, told),
        )

    @property
    def test_in_words(self) -> str:
        """How the verdicts come about."""
        count = max((len(answer.rows) - 1 for answer in self.answers), default=0)
        holm = f" Holm's method corrects for {count} comparisons." if count > 1 else ""
        return (
            f"Each variant is held against *{self.baseline}* by {TESTS[self.found['test']]}.{holm} A difference counts"
            f" where p is below {LEVEL:g}; ± is the deviation over the training seeds, of a difference its standard"
            " error."
        )

    @property
    def codes(self) -> list[str]:
        """The versions of the code that made the runs."""
        return sorted({run["code"] for run in self.found["runs"]})


def with_deviation(values: pandas.Series) -> str:
    """Mean and standard deviation of some runs; one alone has no deviation."""
    if values.empty:
        return ""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return " ± ".join(filter(None, with_spread(float(values.mean()), deviation)))


def judged_by(runs: pandas.DataFrame, metric: str, told: Description) -> list[float]:
    """The numbers by which runs are compared: of a metric that is best near that of real data, how far it is off."""
    values = runs[metric]
    return [float(value) for value in ((values - runs[f"{metric}_floor"]).abs() if told.direction == NEAR else values)]


def with_chance(comparison: Comparison | None, p_value: float | None) -> Comparison | None:
    """A comparison with the p-value that many of them leave it."""
    if comparison is None or p_value is None:
        return None
    return Comparison(comparison.effect, comparison.standard_error, comparison.interval, p_value, comparison.runs)


def judgement(found: Comparison | None, told: Description) -> str:
    """What a comparison comes to."""
    if found is None:
        return UNKNOWN
    if not found.is_significant:
        return ALIKE
    return BETTER if (found.effect > 0) == (told.direction == HIGHER) else WORSE


@dataclass(frozen=True)
class StudyChapter:
    """A study as the report tells it.

    Attributes:
        picture: its chart; None where it is missing.
    """

    results: StudyResults
    picture: Picture | None

    @property
    def has_table(self) -> bool:
        """Whether the report prints its tables, too."""
        return bool(self.results.heading)


def study_chapters(root: Path) -> list[StudyChapter]:
    """All studies that have been run, those with a heading of their own last."""
    found = []
    for path in sorted((root / FOLDER).glob("*/results.json")):
        results = StudyResults(read_json(path))
        drawn = pictures_in(path.parent, root, results.command)
        found.append(StudyChapter(results, next((each for each in drawn if each.name == CHART), None)))
    return sorted(found, key=lambda study: (study.results.heading, study.results.name))
