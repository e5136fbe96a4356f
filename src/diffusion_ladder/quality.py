"""The gate: every rung's metrics against the thresholds in params.yaml. Run as `python -m diffusion_ladder.quality`.

The report's verdict is made by the same function, so that the two can't disagree.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.artifacts import read_json
from diffusion_ladder.errors import UserError
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.whole import load_parameters


@dataclass(frozen=True)
class Check:
    """A metric held against its threshold; what was not measured is None.

    Attributes:
        metric: its name in the metrics file.
        at_most: whether the threshold is an upper limit, instead of a lower one.
        shortfall: by how much the value misses the threshold; 0 where it passes.
        remedy: what would pass, where that is known.
    """

    metric: str
    value: float | None
    std: float | None
    floor: float | None
    ceiling: float | None
    threshold: float
    at_most: bool
    shortfall: float | None
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value was measured, and is no worse than the threshold."""
        return self.shortfall == 0

    def __str__(self) -> str:
        bound = f"{'at most' if self.at_most else 'at least'} {self.threshold:g}"
        if self.value is None or self.shortfall is None:
            return f"{self.metric} was not measured ({bound})"
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        verdict = "passed" if self.passed else f"fell short by {self.shortfall:.3g}"
        verdict += f"; {self.remedy}" if self.remedy else ""
        return f"{self.metric} = {self.value:.4g}{spread} ({bound}): {verdict}"


def check(metrics: Mapping[str, Any], name: str, threshold: Threshold) -> Check:
    """One metric of a rung against its threshold."""
    value, std, floor, ceiling = (metrics.get(f"{name}{suffix}") for suffix in ("", "_std", "_floor", "_ceiling"))
    at_most = threshold.at_least is None
    limit = threshold.limit
    shortfall = None if value is None else max(0.0, value - limit if at_most else limit - value)
    remedy = cheaper_sampler(metrics) if shortfall and name == "default_is_cheapest_good" else ""
    return Check(name, value, std, floor, ceiling, limit, at_most, shortfall, remedy)


def cheaper_sampler(metrics: Mapping[str, Any]) -> str:
    """The sampler that a rung should have, by its sweep."""
    sampler, evaluations = metrics["cheapest_good_sampler"], metrics["cheapest_good_nfe"]
    return f"the cheapest good sampler is {sampler} with {evaluations} evaluations"


def checks(metrics: Mapping[str, Any], thresholds: Mapping[str, Threshold]) -> list[Check]:
    """Every threshold of a rung against its metrics (reports/metrics/MODEL.json), in the order of params.yaml."""
    return [check(metrics, name, threshold) for name, threshold in thresholds.items()]


def measured_numbers(root: Path, model: str) -> dict[str, Any]:
    """The metrics of a rung, its learnt score's among them; nothing where none was measured."""
    files = [root / "reports/metrics" / folder / f"{model}.json" for folder in ("", "scores")]
    return {key: value for path in files if path.is_file() for key, value in read_json(path).items()}


def lines(found: Mapping[str, Sequence[Check]]) -> list[str]:
    """What is printed: a line for each threshold of each rung."""
    return [f"{model}: {each}" for model, all_of_it in found.items() for each in all_of_it]


def main() -> None:
    """Print every check; exit code 1 if a rung falls short."""
    try:
        thresholds = {name: rung.quality for name, rung in load_parameters().rungs.items()}
    except UserError as error:
        sys.exit(str(error))
    found = {model: checks(measured_numbers(Path(), model), rung) for model, rung in thresholds.items()}
    print("\n".join(lines(found)))
    sys.exit(0 if all(each.passed for rung in found.values() for each in rung) else 1)


if __name__ == "__main__":
    main()
