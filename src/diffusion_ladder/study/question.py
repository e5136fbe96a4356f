"""A study as studies/NAME.yaml asks it, and the runs that answer it.

A key of `overrides`, `variants` or `grid` is a dotted key of params.yaml, or one below the rung that is run:
`schedule.T` stands for `rungs.circles.schedule.T` in the runs of the circles.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import NotNegative, Section, load_yaml, merge, validated
from diffusion_ladder.overlays import flatten
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.whole import validate

FOLDER = Path("studies")
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Changes = dict[str, Any]  # a value for each dotted key


class Study(Section):
    """A study file.

    Attributes:
        question: what is to be found out.
        held_fixed: what all runs have in common, in words.
        heading: the part of the report in which its table stands; without it, the report has its verdict and chart.
        rungs: those that it is tried on.
        metrics: of reports/metrics/RUNG.json; of those that a rung has, the first decides.
        seeds: of the trainings.
        test: how a variant is held against the baseline; `paired` compares runs of the same training seed.
        baseline: the variant that the others are held against.
        overrides: changes in every run.
        variants: what is tried, by name; `grid` in its place tries all combinations of some values.
    """

    question: Text
    held_fixed: Text
    heading: Text | None = None
    rungs: Annotated[list[Name], Field(min_length=1)]
    metrics: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[NotNegative], Field(min_length=1)]
    test: Literal["welch", "paired"]
    baseline: str
    overrides: Changes = Field(default_factory=dict)
    variants: Annotated[dict[Text, Changes], Field(min_length=1)] | None = None
    grid: Annotated[dict[str, list[Any]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def can_be_run(self) -> "Study":
        """Variants with names of their own, the baseline among them, and no seed twice."""
        if (self.variants is None) == (self.grid is None):
            raise ValueError("there must be variants, or a grid, and not both")
        names = [*self.changes]
        slugs = [slug(name) for name in names]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"variants: two of {names} are the same once reduced to letters, digits, points and _")
        if self.baseline not in names:
            raise ValueError(f"baseline: {self.baseline!r} is none of {', '.join(names)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} holds one twice")
        return self

    @property
    def changes(self) -> dict[str, Changes]:
        """The variants, those of a grid named after their values: by name, what each changes."""
        if self.variants is not None:
            return self.variants
        keys, values = [*(self.grid or {})], [*(self.grid or {}).values()]
        return {in_words(keys, each): dict(zip(keys, each, strict=True)) for each in itertools.product(*values)}


@dataclass(frozen=True)
class Run:
    """One experiment of a study.

    Attributes:
        changes: absolute dotted keys of params.yaml, and their values.
        values: params.yaml with them.
    """

    study: str
    rung: str
    variant: str
    seed: int
    changes: Changes
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """The experiment's name."""
        return "-".join((self.study, self.rung, slug(self.variant), str(self.seed)))

    @property
    def target(self) -> str:
        """The stage that measures it: what it doesn't need is not built."""
        return f"evaluate@{self.rung}"


def slug(name: str) -> str:
    """A variant's name as a part of an experiment's: Git allows few characters."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("_.")


def in_words(keys: list[str], values: tuple[Any, ...]) -> str:
    """A point of a grid: `T = 50, beta_end = 0.02`."""
    return ", ".join(f"{key.rpartition('.')[2]} = {value}" for key, value in zip(keys, values, strict=True))


def load_study(name: str) -> Study:
    """The study studies/NAME.yaml.

    Raises:
        ParameterError: there is no such study, or one line that names the key that can't be.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ParameterError(f"there is no study {name}; there are: {known or 'none here, so go to the project'}")
    return validated(Study, load_yaml(path), "", str(path))


def runs_of(name: str, study: Study, parameters: Mapping[str, Any]) -> list[Run]:
    """The runs of a study, seed by seed, so that all variants have one before any has two.

    Args:
        parameters: params.yaml, which every run's changes are laid on and checked with.

    Raises:
        ParameterError: a rung that is not there, or changes that params.yaml does not allow.
    """
    for rung in study.rungs:
        if rung not in parameters["rungs"]:
            known = ", ".join(parameters["rungs"])
            raise ParameterError(f"studies/{name}.yaml: rungs: there is no {rung}, but {known}")
    combined = itertools.product(study.seeds, study.rungs, study.changes.items())
    return [run_of(name, study, parameters, *each) for each in combined]


def run_of(
    name: str, study: Study, parameters: Mapping[str, Any], seed: int, rung: str, variant: tuple[str, Changes]
) -> Run:
    """One of them."""
    title, own = variant
    changes = {
        absolute(key, rung, parameters): value
        for key, value in (study.overrides | own | {"training.seed": seed}).items()
    }
    values = dict(parameters)
    for key, value in changes.items():
        values = merge(values, nested(key, value))
    try:
        check_consistency(validate(values, title))
    except ParameterError as error:
        raise ParameterError(f"studies/{name}.yaml: {title}: {str(error).removeprefix(f'{title}: ')}") from None
    return Run(name, rung, title, seed, changes, values)


def absolute(key: str, rung: str, parameters: Mapping[str, Any]) -> str:
    """A key of a study as one of params.yaml."""
    return key if key.partition(".")[0] in parameters else f"rungs.{rung}.{key}"


def nested(key: str, value: Any) -> Any:
    """A mapping that has the value at a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def in_waves(runs: list[Run], training_of: Mapping[str, str]) -> Iterator[list[Run]]:
    """Runs in two parts: one of each training, then those that find its model made already.

    Args:
        training_of: for the names of the runs, what their trainings depend on.
    """
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(training_of[run.name], run)
    chosen = {run.name for run in first.values()}
    yield from filter(None, ([run for run in runs if (run.name in chosen) is wanted] for wanted in (True, False)))


def overrides_of(run: Run, parameters: dict[str, Any]) -> dict[str, Any]:
    """What `dvc exp run -S` is given: only what differs from params.yaml; a key that is new has a plus sign."""
    now = flatten(parameters)
    changed = {key: value for key, value in run.changes.items() if key not in now or now[key] != value}
    return {(key if known(key, now) else f"+{key}"): value for key, value in changed.items()}


def known(key: str, flat: Mapping[str, Any]) -> bool:
    """Whether params.yaml has this key."""
    return any(have == key or have.startswith(f"{key}.") for have in flat)
