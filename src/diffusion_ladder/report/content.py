"""What the report says, read from artifacts and parameters: one Chapter for each rung, in the order of params.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.diffusion.terminal_snr import terminal_snr_notice
from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.params.datasets import Dataset
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.report import words
from diffusion_ladder.report.equations import Equation, equations_of
from diffusion_ladder.report.excerpts import Excerpt, excerpts_of, source_of
from diffusion_ladder.report.metrics import Fact, Metric, facts_of, headline_of, metrics_of, process_facts
from diffusion_ladder.report.pictures import REPORTS, Picture, pictures_in
from diffusion_ladder.report.provenance import Provenance, provenance_of
from diffusion_ladder.report.rendering import number
from diffusion_ladder.report.rung_zero import RungZero, rung_zero
from diffusion_ladder.report.schedulers import SchedulerReport, scheduler_report
from diffusion_ladder.report.studies import StudyChapter, study_chapters
from diffusion_ladder.report.topics import Topic, topic_of_fact, topics_of
from diffusion_ladder.report.verdict import Judgement, Preset, data_in_words, judgements, preset_of, shortfalls

LADDER = "ladder"  # the name of the first picture


@dataclass(frozen=True)
class Numbered:
    """An equation with the number that it bears in the whole report."""

    equation: Equation
    number: int


@dataclass(frozen=True)
class Code:
    """An excerpt with its text."""

    excerpt: Excerpt
    source: str


@dataclass(frozen=True)
class Judge:
    """The classifier that judges a rung's samples."""

    name: str
    facts: list[Fact]


@dataclass(frozen=True)
class Chapter:
    """A rung of the ladder. What an earlier chapter has shown already is only referred to.

    Attributes:
        key: the rung's name in params.yaml.
        about: paragraphs in plain words.
        own_words: the same, with what earlier chapters have told already.
        limitations: what the rung can't do or tell.
        trained: parameters of the network, images seen, loss at the end; None where its artifact is missing.
        nfe: evaluations of the network for one sample; None where its artifact is missing.
        new_equations, known_equations: those that it is the first to use, and the others.
        new_code, known_code: the same for code.
        card: of its data; empty where there is none.
        card_shown_in: key of the earlier chapter that shows the same card.
        judgements: its metrics against their thresholds.
        judge_shown_in: the same for the judge.
        settings: titles of groups, and their parameters.
    """

    key: str
    title: str
    model: RungParameters
    sampling: Sampling
    dataset: Dataset
    about: list[str]
    own_words: list[str]
    limitations: list[str]
    trained: dict[str, float | None]
    sampler: str
    nfe: int | None
    new_equations: list[Numbered]
    known_equations: list[Numbered]
    new_code: list[Code]
    known_code: list[Excerpt]
    card: Mapping[str, Any]
    card_shown_in: str | None
    card_pictures: list[Picture]
    topics: list[Topic]
    metrics: list[Metric]
    judgements: list[Judgement]
    facts: list[Fact]
    judge: Judge | None
    judge_shown_in: str | None
    settings: list[tuple[str, list[tuple[str, str]]]]

    @property
    def all_pictures(self) -> list[Picture]:
        """Those of its data, where its card is shown here, and those of the rung."""
        drawn = [picture for topic in self.topics for picture in topic.pictures]
        return ([] if self.card_shown_in else self.card_pictures) + drawn

    @property
    def network(self) -> str:
        """The network in a few words."""
        return words.network_name(self.model.network.name)

    def fact(self, key: str) -> Fact | None:
        """A fact of its metrics file."""
        return next((fact for fact in self.facts if fact.key == key), None)

    @property
    def headline(self) -> Metric | None:
        """The metric of the first table."""
        return headline_of(self.metrics)


@dataclass(frozen=True)
class Report:
    """All that the page and its Markdown twin print.

    Attributes:
        cards: data cards by the names of the data sets, in the order in which the ladder uses them.
        preset: which of the presets the parameters are.
        data: whether the data are embedded.
        ladder: all rungs as one picture, with which the report begins.
        across: other figures of several rungs together.
        rung_zero: what needs no training; None where there is none, as its equation is.
        studies: those that have been run.
    """

    chapters: list[Chapter]
    cards: dict[str, Mapping[str, Any]]
    sources: dict[str, str]
    schedulers: SchedulerReport | None
    limitations: list[str]
    parameters: Parameters
    preset: Preset
    data: str
    provenance: Provenance
    ladder: Picture | None
    across: list[Picture]
    rung_zero: RungZero | None
    rung_zero_equation: Numbered | None
    studies: list[StudyChapter]

    @property
    def judgements(self) -> list[Judgement]:
        """Of all rungs."""
        return [each for chapter in self.chapters for each in chapter.judgements]

    @property
    def shortfalls(self) -> list[str]:
        """What the rungs lack, in sentences; none where every threshold is met."""
        return [text for chapter in self.chapters for text in shortfalls(chapter.title, chapter.judgements)]

    @property
    def pictures(self) -> list[Picture]:
        """All of them, in the order of the page."""
        return [
            *filter(None, [self.ladder]),
            *(picture for ideal in (self.rung_zero.ideals if self.rung_zero else []) for picture in ideal.pictures),
            *(picture for chapter in self.chapters for picture in chapter.all_pictures),
            *self.across,
            *(study.picture for study in self.studies if study.picture),
        ]

    @property
    def example_override(self) -> str:
        """An option of `dvc exp run` that trains the first rung twice as long."""
        first = self.chapters[0]
        return f"rungs.{first.key}.training.steps={2 * first.model.training.steps}"

    def title_of(self, key: str) -> str:
        """A chapter's title."""
        return next(chapter.title for chapter in self.chapters if chapter.key == key)


class Reader:
    """Reads the artifacts below a folder; remembers what earlier chapters have shown."""

    def __init__(self, root: Path, parameters: Parameters) -> None:
        self.root = root
        self.parameters = parameters
        self.numbers: dict[str, int] = {}  # of equations
        self.shown: dict[str, str] = {}  # an excerpt, card or judge, and the chapter that shows it

    def json(self, *parts: str) -> dict[str, Any]:
        """A JSON artifact, or nothing where it is missing."""
        path = self.root.joinpath(*parts)
        return read_json(path) if path.is_file() else {}

    def first_in(self, what: str, chapter: str) -> str | None:
        """None if this chapter is the first to show something; otherwise the one that was."""
        first = self.shown.setdefault(what, chapter)
        return None if first == chapter else first

    def report(self) -> Report:
        """Everything."""
        zero = rung_zero(self.root, self.parameters.rungs)
        first = Numbered(zero.equation, self.numbers.setdefault(zero.equation.key, 1)) if zero else None
        chapters = [self.chapter(key) for key in self.parameters.rungs]
        cards = {chapter.model.dataset: chapter.card for chapter in chapters}
        sources = {chapter.model.dataset: words.about_source(chapter.dataset) for chapter in chapters}
        metric_names = [metric.key for chapter in chapters for metric in chapter.metrics]
        notes = words.limitations(self.parameters, cards, metric_names)
        measured = self.json("reports", "metrics", "schedulers.json")
        across = self.pictures("report", "across")
        schedulers = scheduler_report(measured, self.parameters.scheduler_comparison)
        return Report(
            chapters=chapters,
            cards=cards,
            sources=sources,
            schedulers=schedulers,
            limitations=notes,
            parameters=self.parameters,
            preset=preset_of(self.parameters, self.root / "presets"),
            data=data_in_words(self.parameters),
            provenance=provenance_of(self.root, self.parameters),
            ladder=next((picture for picture in across if picture.name == LADDER), None),
            across=[picture for picture in across if picture.name != LADDER],
            rung_zero=zero,
            rung_zero_equation=first,
            studies=study_chapters(self.root),
        )

    def chapter(self, key: str) -> Chapter:
        """One rung."""
        model = self.parameters.rungs[key]
        sampling = model.sampling
        dataset = self.parameters.datasets[model.dataset]
        measured = self.json("reports", "metrics", f"{key}.json")
        measured |= self.json("reports", "metrics", "scores", f"{key}.json")
        metrics = metrics_of(measured)
        new_equations, known_equations = self.equations(model, sampling, metrics)
        new_code, known_code = self.code(key, model, sampling)
        card = self.json("reports", "data", f"{model.dataset}.json")
        judge = self.judge(model)
        return Chapter(
            key=key,
            title=model.title,
            model=model,
            sampling=sampling,
            dataset=dataset,
            about=self.about(key, model, dataset, sampling) + self.terminal_snr(key, model) + self.learnt_nothing(key),
            own_words=[*filter(None, words.about(model, dataset, sampling).values()), *self.terminal_snr(key, model)],
            limitations=words.rung_limitations(key, self.parameters, card, self.trained(key)),
            trained=self.trained(key),
            sampler=words.sampler_name(sampling.sampler),
            nfe=measured["nfe"] if isinstance(measured.get("nfe"), int) else None,
            new_equations=new_equations,
            known_equations=known_equations,
            new_code=new_code,
            known_code=known_code,
            card=card,
            card_shown_in=self.first_in(f"card {model.dataset}", key) if card else None,
            card_pictures=self.pictures(f"render_data@{model.dataset}", "data", model.dataset),
            topics=self.topics(key, model, measured, metrics),
            metrics=metrics,
            judgements=judgements(measured, model.quality, metrics),
            facts=[fact for fact in facts_of(measured) if topic_of_fact(fact.key) == "other"],
            judge=judge,
            judge_shown_in=self.first_in(f"judge {judge.name}", key) if judge else None,
            settings=settings_of(key, self.parameters),
        )

    def about(self, key: str, model: RungParameters, dataset: Dataset, sampling: Sampling) -> list[str]:
        """The rung in plain words; what an earlier one has told word for word is referred to."""
        topics = {topic: text for topic, text in words.about(model, dataset, sampling).items() if text}
        first = {topic: self.first_in(f"text {text}", key) for topic, text in topics.items()}
        paragraphs = [text for topic, text in topics.items() if first[topic] is None]
        for earlier in dict.fromkeys(place for place in first.values() if place is not None):
            told = [topic for topic, place in first.items() if place == earlier]
            paragraphs.append(words.as_before(told, self.parameters.rungs[earlier].title, earlier))
        return paragraphs

    def terminal_snr(self, key: str, model: RungParameters) -> list[str]:
        """A paragraph where the forward process of the trained rung ends too far from pure noise."""
        snr = self.json("models", key, "rung.json").get("terminal_snr")
        notice = None if snr is None else terminal_snr_notice(snr)
        return [] if notice is None else [f"{notice[0].upper()}{notice[1:]}."]

    def equations(
        self, model: RungParameters, sampling: Sampling, metrics: list[Metric]
    ) -> tuple[list[Numbered], list[Numbered]]:
        """A rung's equations: those not shown yet, which get the next numbers, and those shown before."""
        used = equations_of(model, sampling, {metric.key for metric in metrics})
        before = set(self.numbers)
        for equation in used:
            self.numbers.setdefault(equation.key, len(self.numbers) + 1)
        numbered = [Numbered(equation, self.numbers[equation.key]) for equation in used]
        new = [item for item in numbered if item.equation.key not in before]
        return new, [item for item in numbered if item.equation.key in before]

    def code(self, key: str, model: RungParameters, sampling: Sampling) -> tuple[list[Code], list[Excerpt]]:
        """A rung's code: what was not shown yet with its text, and what was."""
        used = excerpts_of(model, sampling)
        new = [excerpt for excerpt in used if self.first_in(f"code {excerpt.key}", key) is None]
        return [Code(excerpt, source_of(excerpt)) for excerpt in new], [item for item in used if item not in new]

    def trained(self, key: str) -> dict[str, float | None]:
        """What the rung's own card tells about its training."""
        card = self.json("models", key, "rung.json")
        return {name: card.get(name) for name in ("parameters", "images_seen", "ema_half_life", "final_loss")}

    def learnt_nothing(self, key: str) -> list[str]:
        """A paragraph where the loss ends no lower than that of a network that always answers zero."""
        card = self.json("models", key, "rung.json")
        final, zero = card.get("final_loss"), card.get("zero_loss")
        if final is None or zero is None or final < zero:
            return []
        return [
            f"**Warning: nothing has been learnt.** The loss ends at {number(final)}, and a network that always answers"
            f" zero would have {number(zero)}. Train for longer, or with another `learning_rate`."
        ]

    def judge(self, model: RungParameters) -> Judge | None:
        """The classifier of the rung's data set; None where there is none."""
        name = model.dataset
        if name not in self.parameters.classifiers:
            return None
        return Judge(name, facts_of(self.json("reports", "metrics", "classifiers", f"{name}.json")))

    def pictures(self, stage: str, *parts: str) -> list[Picture]:
        """The figures that a stage drew into a folder below reports/."""
        return pictures_in(self.root.joinpath(REPORTS, *parts), self.root, f"dvc repro -s -f {stage}")

    def topics(
        self, key: str, model: RungParameters, measured: Mapping[str, Any], metrics: list[Metric]
    ) -> list[Topic]:
        """What happened, by topic; a paragraph that an earlier rung has shown word for word is left out."""
        drawn = self.pictures(f"render@{key}", "figures", key)
        drawn += self.pictures(f"compare_scores@{key}", "figures", "scores", key)
        process = self.json("models", key, "rung.json").get("forward_process", {})
        told = words.about_topics(key, self.parameters, [metric.key for metric in metrics])
        new = {
            topic: [text for text in texts if self.first_in(f"text {text}", key) is None]
            for topic, texts in told.items()
        }
        verdict = measured.get("memorisation_verdict")
        if verdict:
            new["memorisation"] = [*new["memorisation"], f"**Verdict:** {verdict}"]
        facts = {"schedule": process_facts(process)}
        for fact in facts_of(measured):
            if topic_of_fact(fact.key) != "other":
                facts.setdefault(topic_of_fact(fact.key), []).append(fact)
        return topics_of(drawn, facts, new)


def settings_of(key: str, parameters: Parameters) -> list[tuple[str, list[tuple[str, str]]]]:
    """A rung's parameters in groups: each a dotted path in params.yaml, and names with their values."""
    return groups_of(f"rungs.{key}", given(parameters.rungs[key]))


def groups_of(path: str, values: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The plain values of a section under its path, then the groups of the sections in it."""
    own = [(name, plain(value)) for name, value in values.items() if not isinstance(value, dict)]
    inner = [(f"{path}.{name}", value) for name, value in values.items() if isinstance(value, dict)]
    return ([(path, own)] if own else []) + [group for section in inner for group in groups_of(*section)]


def given(section: Any) -> dict[str, Any]:
    """A section of the parameters as plain values, as far as params.yaml gives them."""
    return section.model_dump(exclude_unset=True)


def plain(value: Any) -> str:
    """A parameter's value as YAML would have it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    return str(value)
