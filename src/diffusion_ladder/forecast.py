"""How long `dvc repro` will take on this machine: `python -m diffusion_ladder.forecast`.

Every stage has left a record of its last run, on this machine or on the one whose reports were committed. A few steps
of the longest training, on random examples, tell how much slower or faster this machine is. The forecast is the sum
over all stages that are out of date; each corrects it by those that have finished since (`runtime.time_left`).
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import networkx

from diffusion_ladder.device import configure
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import Definition, label, read_graph
from diffusion_ladder.foundation.runtime import FORECAST, RUN_RECORDS, in_minutes
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.params.whole import Parameters, load_parameters
from diffusion_ladder.rehearsal import Rehearsal
from diffusion_ladder.report.run_page import read_records
from diffusion_ladder.study.estimate import training_seconds
from diffusion_ladder.training.loop import train

START = 2.0  # seconds of a stage outside its record, by default: Python, torch, and DVC's own work
WARM_UP, TIMED = 3, 8  # steps of the rehearsal
WRITTEN = ("outs", "metrics")


def out_of_date() -> list[str]:
    """The stages that DVC finds changed.

    Raises:
        UserError: DVC can't tell.
    """
    asked = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise UserError(f"dvc status: {asked.stderr.strip()}")
    return list(json.loads(asked.stdout or "{}"))


def dependants(graph: Mapping[str, Definition], stages: Iterable[str]) -> set[str]:
    """These stages, and all that take what they or their followers write."""
    entries = [(each, key) for each in graph.values() for key in (each.loop or [""])]
    flow = networkx.DiGraph()
    written = {
        path: label(each.name, key)
        for each, key in entries
        for kind in ("outs", "metrics")
        for path in each.listed(kind, key)
    }
    for each, key in entries:
        needed = each.listed("deps", key)
        flow.add_edges_from(
            (writer, label(each.name, key))
            for path, writer in written.items()
            if any(path == need or path.startswith(f"{need}/") for need in needed)
        )
    known = set(stages) & set(flow)
    return set(stages).union(*(networkx.descendants(flow, stage) for stage in known))


def seconds_per_example(parameters: Parameters, rung: str) -> float:
    """Measured on random examples; the first steps, in which memory is taken and kernels are chosen, don't count."""
    rehearsal = Rehearsal.of(parameters, rung)
    steps = train(rehearsal.task(configure(parameters.runtime)))
    seconds = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:]) / rehearsal.model.training.batch_size


def pace_of(parameters: Parameters, past: Mapping[str, dict[str, Any]]) -> tuple[float, str]:
    """How many times as long as in the records it takes here, and whose training told; 1.0 and "" without a record."""
    trainings = {name: training_seconds(past.get(f"train@{name}", {})) for name in parameters.rungs}
    known = {name: work[0] / work[1] for name, work in trainings.items() if work}
    if not known:
        return 1.0, ""
    longest = max(known, key=lambda name: past[f"train@{name}"]["seconds"])
    return seconds_per_example(parameters, longest) / known[longest], longest


def forecast(stages: Iterable[str], past: Mapping[str, dict[str, Any]], pace: float) -> dict[str, float]:
    """Seconds of each stage; one that was never run counts as long as the middle one of its kind, or not at all."""

    def last(stage: str) -> float:
        kind = stage.partition("@")[0]
        alike = sorted(record["seconds"] for name, record in past.items() if name.partition("@")[0] == kind)
        return past[stage]["seconds"] if stage in past else alike[len(alike) // 2] if alike else 0.0

    return {stage: last(stage) * pace for stage in sorted(stages)}


def main() -> None:
    """Say how long it will take, and leave word for the stages."""
    FORECAST.unlink(missing_ok=True)
    try:
        changed = set(out_of_date())
        # What the check writes is always the same, so that nothing follows from it.
        stages = changed | dependants(read_graph(load_yaml("params.yaml")), changed - {"check_params"})
        if not stages:
            print("nothing is out of date")
            return
        past, parameters = {record["stage"]: record for record in read_records(RUN_RECORDS)}, load_parameters()
        pace, rung = pace_of(parameters, past)
    except UserError as error:
        sys.exit(f"forecast: {error}")
    seconds = forecast(stages, past, pace)
    start = START * pace
    write_json(FORECAST, {"seconds": seconds, "start": start})
    told = f"{pace:.2f} times as long as in the records, by {TIMED} steps of {rung}" if rung else "by no record"
    whole = in_minutes(sum(seconds.values()) + len(seconds) * start)
    print(f"{len(seconds)} stages are to be built, in about {whole} on this machine ({told})")


if __name__ == "__main__":
    main()
