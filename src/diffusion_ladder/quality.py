"""The gate: every rung's metrics against the thresholds in params.yaml. Run as `python -m diffusion_ladder.quality`.

The report's verdict is made by the same function, so that the two can't disagree.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.whole import load_parameters

OF_FLOOR = " times the floor"


@dataclass(frozen=True)
class Check:
    """A metric held against its threshold; what was not measured is None.

    Attributes:
        metric: its name in the metrics file.
        asked: the threshold in words, such as "at most 3 times the floor".
        threshold: the limit that it comes to with the bounds of the same run; None where they were not measured.
        at_most: whether that is an upper limit, instead of a lower one.
        shortfall: by how much the value misses the threshold; 0 where it passes.
        remedy: what would pass, where that is known.
    """

    metric: str
    value: float | None
    std: float | None
    floor: float | None
    ceiling: float | None
    asked: str
    threshold: float | None
    at_most: bool
    shortfall: float | None
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value was measured, and is no worse than the threshold."""
        return self.shortfall == 0

    @property
    def multiple(self) -> float | None:
        """How many times the floor the value is; None where no multiple was asked for, or there is none."""
        asked = self.asked.endswith(OF_FLOOR) and self.value is not None and self.floor is not None and self.floor > 0
        return self.value / self.floor if asked else None  # type: ignore[operator]

    @property
    def bound(self) -> str:
        """The threshold in words, with the number that it comes to and the multiple that was reached."""
        if self.threshold is None or self.asked in plain_words(self.threshold):
            return self.asked
        reached = "" if self.multiple is None else f"; reached {self.multiple:.3g} times"
        return f"{self.asked}, {self.threshold:.3g}{reached}"

    def __str__(self) -> str:
        if self.value is None or self.shortfall is None:
            return f"{self.metric} was not measured ({self.bound})"
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        verdict = "passed" if self.passed else f"fell short by {self.shortfall:.3g}"
        verdict += f"; {self.remedy}" if self.remedy else ""
        return f"{self.metric} = {self.value:.4g}{spread} ({self.bound}): {verdict}"


def plain_words(number: float) -> tuple[str, str]:
    """How an upper and a lower limit are told that are numbers themselves."""
    return f"at most {number:g}", f"at least {number:g}"


def in_words(threshold: Threshold) -> str:
    """A threshold as it was given."""
    number = f"{threshold.number:g}"
    return {
        "at_most": f"at most {number}",
        "at_least": f"at least {number}",
        "at_most_floor": f"at most {number}{OF_FLOOR}",
        "at_most_of_range": f"at most {number} of the way from floor to ceiling",
        "within_factor": f"within a factor of {number} of 1",
    }[threshold.kind]


def limit_of(
    threshold: Threshold, value: float | None, floor: float | None, ceiling: float | None
) -> tuple[float | None, bool]:
    """The limit that a threshold comes to, and whether it is an upper one; None where a bound that it needs is missing.

    Of the two limits of a ratio it is the one on the value's side of 1.
    """
    number, kind = threshold.number, threshold.kind
    if kind == "at_most_floor":
        return (None if floor is None else number * floor), True
    if kind == "at_most_of_range":
        if floor is None or ceiling is None:
            return None, True
        return floor + number * (ceiling - floor), ceiling >= floor
    if kind == "within_factor" and value is not None and value < 1:
        return 1 / number, False
    return number, kind != "at_least"


def finite(metrics: Mapping[str, Any], key: str) -> float | None:
    """A measured number; None where there is none, NaN among them: nothing that is compared with NaN falls short."""
    value = metrics.get(key)
    return None if value is None or not math.isfinite(value) else value


def check(metrics: Mapping[str, Any], name: str, threshold: Threshold) -> Check:
    """One metric of a rung against its threshold."""
    value, std, floor, ceiling = (finite(metrics, f"{name}{end}") for end in ("", "_std", "_floor", "_ceiling"))
    limit, at_most = limit_of(threshold, value, floor, ceiling)
    shortfall = None if value is None or limit is None else max(0.0, value - limit if at_most else limit - value)
    remedy = cheaper_sampler(metrics) if shortfall and name == "default_is_cheapest_good" else ""
    return Check(name, value, std, floor, ceiling, in_words(threshold), limit, at_most, shortfall, remedy)


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
