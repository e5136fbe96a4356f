"""How far the from-scratch schedulers get from diffusers', from reports/metrics/schedulers.json as tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_ladder.params.samplers import VARIANTS
from diffusion_ladder.params.scheduler_comparison import SchedulerComparison
from diffusion_ladder.report.metrics import finite
from diffusion_ladder.report.rendering import number

SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
    "rescaled": "all of them, rescaled to zero terminal SNR",
}
NOTHING = "–"


@dataclass(frozen=True)
class DifferenceTable:
    """The largest relative differences in one precision.

    Attributes:
        dtype: float32 or float64.
        limit: up to which the schedulers count as equal.
        rows: a noise schedule's name, and a cell for each of VARIANTS: a number, or a dash where diffusers has none.
        exceeded: the cells above the limit, in words.
    """

    dtype: str
    limit: str
    rows: list[tuple[str, list[str]]]
    exceeded: list[str]


@dataclass(frozen=True)
class SchedulerReport:
    """What is said of the comparison.

    Attributes:
        loops: how many were run.
        nan_loops: in how many diffusers' scheduler ended in NaN.
        noisy_loops: in how many it left noise in finished samples.
        steps: of the loops, in words, the long ones last.
    """

    loops: int
    nan_loops: int
    noisy_loops: int
    steps: str
    samplers: list[str]
    tables: list[DifferenceTable]


def scheduler_report(raw: Mapping[str, Any], settings: SchedulerComparison) -> SchedulerReport | None:
    """The comparison in numbers; None where it has not been run."""
    values = finite(raw)
    if not values.get("loops"):
        return None
    return SchedulerReport(
        loops=values["loops"],
        nan_loops=values.get("nan_loops_of_diffusers", 0),
        noisy_loops=values.get("noisy_loops_of_diffusers", 0),
        steps=f"{', '.join(map(number, settings.steps))} and {number(settings.long_steps)}",
        samplers=[variant.title for variant in VARIANTS.values()],
        tables=[difference_table(values, dtype, limit) for dtype, limit in settings.limits.items()],
    )


def difference_table(values: Mapping[str, Any], dtype: str, limit: float) -> DifferenceTable:
    """The differences of one precision."""
    rows, exceeded = [], []
    for schedule, title in SCHEDULES.items():
        found = {sampler: values.get(f"{sampler}_{schedule}_{dtype}") for sampler in VARIANTS}
        rows.append((title, [NOTHING if value is None else number(value, 2) for value in found.values()]))
        above = [VARIANTS[sampler].title for sampler, value in found.items() if value is not None and value > limit]
        exceeded += [f"{sampler} with {title}" for sampler in above]
    return DifferenceTable(dtype, number(limit, 1), rows, exceeded)
