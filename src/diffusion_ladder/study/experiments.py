"""What was tried, in few columns, the newest first: `python -m diffusion_ladder.study.experiments`.

It reads `dvc exp show --json`, whose own table has a column for every parameter and every metric.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pandas

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.overlays import flatten
from diffusion_ladder.report.content import plain
from diffusion_ladder.report.metrics import Measured, headline_of, metrics_of
from diffusion_ladder.study.queue import baselines, output_of

COLUMNS = ("experiment", "made", "rung", "metric", "value", "floor", "evaluations", "changed")
MOST_CHANGES = 4  # that are told of one experiment
STATES = {"success": ""}  # of DVC's; others are told as they are
NEXT = """
dvc exp apply NAME            makes an experiment the state of your folder
dvc exp branch NAME BRANCH    makes it a Git branch
dvc exp remove NAME           throws it away
dvc queue logs NAME           says why it failed"""


def entries(shown: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str, str]]:
    """What an experiment and its baseline hold, its name and its state, for each that `dvc exp show --json` has."""
    for baseline in shown:
        for each in baseline.get("experiments") or []:
            last = each["revs"][0]
            state = (each.get("executor") or {}).get("state", "success")
            yield last.get("data") or {}, baseline.get("data") or {}, each.get("name") or last["rev"][:7], state


def changed(made: dict[str, Any], before: dict[str, Any]) -> str:
    """The parameters that an experiment has otherwise than its baseline: `circles.schedule.T: 250`."""
    now, then = (flatten(data.get("params", {}).get("params.yaml", {}).get("data", {})) for data in (made, before))
    listed = [
        f"{key.removeprefix('rungs.')}: {plain(value)}"
        for key, value in now.items()
        if key not in then or then[key] != value
    ]
    more = len(listed) - MOST_CHANGES
    return ", ".join(listed[:MOST_CHANGES]) + (f" and {more} more" if more > 0 else "")


def measured(made: dict[str, Any], before: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of those rungs in which an experiment differs from its baseline."""
    folder = "reports/metrics/"
    numbers, others = (
        {
            path.removeprefix(folder).removesuffix(".json"): entry.get("data") or {}
            for path, entry in data.get("metrics", {}).items()
            if path.startswith(folder) and "/" not in path.removeprefix(folder)
        }
        for data in (made, before)
    )
    return {rung: found for rung, found in numbers.items() if "nfe" in found and found != others.get(rung)}


def rows_of(shown: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """A row for each rung that an experiment made otherwise; one where it made none so."""
    for made, before, name, state in entries(shown):
        facts = {
            "experiment": f"{name} {STATES.get(state, f'({state})')}".strip(),
            "made": str(made.get("timestamp") or "").replace("T", " ")[:16],
            "changed": changed(made, before),
        }
        found = measured(made, before) if state == "success" else {}
        for rung, numbers in found.items() or {"": {}}.items():
            yield dict.fromkeys(COLUMNS, "") | facts | quality(rung, numbers)


def quality(rung: str, numbers: dict[str, Any]) -> dict[str, str]:
    """A rung's main metric beside its floor, and what a sample costs."""
    metric = headline_of(metrics_of(numbers))
    if metric is None:
        return {"rung": rung}
    return {
        "rung": rung,
        "metric": metric.key,
        "value": in_words(metric.samples),
        "floor": in_words(metric.floor),
        "evaluations": str(numbers["nfe"]),
    }


def in_words(found: Measured | None) -> str:
    """A number, or nothing."""
    return "" if found is None else str(found)


def table_of(shown: list[dict[str, Any]]) -> str:
    """All experiments as a table of text, the newest first."""
    frame = pandas.DataFrame(rows_of(shown), columns=[*COLUMNS])
    if frame.empty:
        return "There are no experiments yet: `dvc exp run -S rungs.circles.schedule.T=250` makes one."
    frame = frame.sort_values("made", ascending=False, kind="stable")
    frame = frame.loc[:, (frame != "").any()]
    padded = frame.apply(lambda column: column.str.ljust(max(column.str.len().max(), len(str(column.name)))))
    return padded.to_string(index=False, justify="left") + "\n" + NEXT


def main() -> None:
    """Print the table; a mistake is one line and exit code 1."""
    try:
        revisions = [word for commit in baselines() for word in ("--rev", commit)]
        print(table_of(json.loads(output_of(["dvc", "exp", "show", "--json", *revisions]))))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
