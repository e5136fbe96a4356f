"""The page about the last run: times, memory and machines, from the records that the stages leave in reports/run/.

Run as `python -m diffusion_ladder.report.run_page` after the stages. Those facts change from run to run, so the page is
nobody's dependency; and it imports nothing heavy, so that it costs next to nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.report.changes import Changes, changes_since
from diffusion_ladder.report.rendering import environment, render

FOLDER = Path("reports/run")
MEASURED = {"seconds": "Seconds", "peak_memory_mib": "Peak memory (MiB)", "finished": "Finished (UTC)"}
CIRCUMSTANCES = {
    "device_name": "Processor or GPU",
    "device": "Device",
    "threads": "Threads",
    "processes": "Processes",
    "precision": "Precision",
    "python": "Python",
    "torch": "PyTorch",
    "system": "System",
}

Record = dict[str, Any]
NO_GIT = Changes("", False, "", 0, [])


def read_records(folder: Path) -> list[Record]:
    """The stages' records in the order in which they finished; a file that isn't one is passed over."""
    records = [record for path in sorted(folder.glob("*.json")) if (record := read_record(path)) is not None]
    return sorted(records, key=lambda record: str(record.get("finished", "")))


def read_record(path: Path) -> Record | None:
    """One record; None for a file that is cut short or something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("seconds"), int | float):
        return None
    return {"stage": path.stem, **record}


def bars_of(records: Sequence[Record]) -> list[Record]:
    """For each record where its bar begins and how long it is, per cent of the time of all."""
    total = sum(record["seconds"] for record in records) or 1.0
    bars, elapsed = [], 0.0
    for record in records:
        seconds = record["seconds"]
        place = {"left": round(100 * elapsed / total, 2), "width": round(100 * seconds / total, 2)}
        bars.append({"stage": record["stage"], "seconds": seconds, **place})
        elapsed += seconds
    return bars


def duration(seconds: float) -> str:
    """A time as people say it: 3.2 s, 2 min 05 s, 1 h 04 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def circumstances_of(records: Sequence[Record]) -> tuple[dict[str, Any], dict[str, str]]:
    """What all records say alike, by its label; and the keys in which they differ, with their labels."""
    same, differing = {}, {}
    for key, label in CIRCUMSTANCES.items():
        values = [record.get(key) for record in records]
        if any(value != values[0] for value in values):
            differing[key] = label
        elif values[0] is not None:
            same[label] = values[0]
    return same, differing


def costs_of(records: Sequence[Record]) -> list[Record]:
    """What one example of training and one sample took: stage, what, how many and the milliseconds of each."""
    return [
        {"stage": record["stage"], "what": what, "count": work["count"], "each": 1000 * work["seconds"] / work["count"]}
        for record in records
        for what, work in record.get("work", {}).items()
    ]


def run_page(records: Sequence[Record], changes: Changes = NO_GIT) -> str:
    """The page as HTML."""
    jinja = environment(autoescape=True)
    jinja.filters |= {"duration": duration, "memory": lambda size: f"{size:,.0f} MiB", "moment": moment}
    measured = [record for record in records if isinstance(record.get("peak_memory_mib"), int | float)]
    same, differing = circumstances_of(records) if records else ({}, {})
    return render(
        jinja,
        "run.html.j2",
        records=records,
        bars=bars_of(records),
        costs=costs_of(records),
        changes=changes,
        total=sum(record["seconds"] for record in records),
        peak=max(measured, key=lambda record: record["peak_memory_mib"], default=None),
        same=same,
        columns=MEASURED | differing,
    )


def moment(text: Any) -> str:
    """A UTC time stamp with a space for its T: 2031-05-04 03:02:01."""
    return str(text).replace("T", " ").removesuffix("Z")


def write_run_page(folder: Path = FOLDER) -> Path:
    """Write FOLDER/index.html from the records beside it, in one step."""
    target = folder / "index.html"
    write_text(target, run_page(read_records(folder), changes_since(folder.parent.parent)))
    return target


if __name__ == "__main__":
    print(write_run_page())
