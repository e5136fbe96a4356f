"""How long a study will take, by what the stages of the last build took."""

import json
from collections.abc import Iterable
from typing import Any

from diffusion_ladder.foundation.runtime import RUN_RECORDS
from diffusion_ladder.foundation.section import look_up, rung_section
from diffusion_ladder.report.run_page import read_record
from diffusion_ladder.study.question import Run

STAGES = ("train", "sample", "sweep", "evaluate")
BETWEEN = 10.0  # seconds that an experiment takes beside its stages: a copy of the project, and DVC's own work


def record_of(text: str | None) -> dict[str, Any]:
    """A run record; nothing for a file that is missing or cut short."""
    try:
        record = json.loads(text or "")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def training_seconds(record: dict[str, Any]) -> tuple[float, int] | None:
    """The seconds of a training's steps, and the examples that it saw, by its run record."""
    work = record.get("work", {}).get("example trained on")
    return (float(work["seconds"]), int(work["count"])) if work else None


def amounts(values: dict[str, Any], rung: str) -> dict[str, float]:
    """How much each stage of a rung has to do, in evaluations of the network; of the evaluation, in pairs."""
    training, sampling, sweep, evaluation = (
        rung_section(values, rung, name) for name in ("training", "sampling", "sweep", "evaluation")
    )
    T = look_up(values, f"rungs.{rung}.schedule.T")
    steps, compared = (T if sampling[key] == "all" else sampling[key] for key in ("steps", "comparison_steps"))
    return {
        "train": training["steps"] * training["batch_size"],
        "sample": sampling["seeds"] * sampling["count"] * steps + sampling["comparison_count"] * compared,
        "sweep": sweep["seeds"] * sweep["count"] * len(sweep["samplers"]) * sum(sweep["evaluations"]),
        "evaluate": sum(size**2 for size in (evaluation["sample_count"], *evaluation["smaller_counts"])),
    }


def seconds_of(run: Run, parameters: dict[str, Any], trained: bool) -> float | None:
    """The seconds that a run should take by the records of the last build; None where there is none of its training.

    Args:
        parameters: those that were built.
        trained: whether another run makes the model.
    """
    before, now = amounts(parameters, run.rung), amounts(run.values, run.rung)
    total = BETWEEN
    for stage in STAGES[trained:]:
        record = read_record(RUN_RECORDS / f"{stage}@{run.rung}.json")
        if record is None:
            return None
        slower = record["threads"] / look_up(run.values, "runtime.threads")
        total += slower * record["seconds"] * now[stage] / before[stage]
    return total


def in_all(estimates: Iterable[float | None], workers: int) -> float | None:
    """The seconds of all runs with so many at once; None where one is not known."""
    known = [*estimates]
    return None if None in known else sum(known) / workers  # type: ignore[arg-type]
