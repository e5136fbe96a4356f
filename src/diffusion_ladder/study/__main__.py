"""Run a study, or go on with it: `python -m diffusion_ladder.study NAME`.

It puts the runs of studies/NAME.yaml into DVC's queue of experiments, waits for them, and writes reports/studies/NAME/.
Finished runs are found by name and parameters, and are not run again.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffusion_ladder.foundation.artifacts import read_json, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.section import load_yaml, look_up
from diffusion_ladder.report.run_page import duration
from diffusion_ladder.report.study_page import write_study
from diffusion_ladder.study import queue
from diffusion_ladder.study.estimate import in_all, seconds_of
from diffusion_ladder.study.question import Run, in_waves, load_study, overrides_of, runs_of
from diffusion_ladder.study.results import collect, commit_of, first_samples, training_of

REPORTS = Path("reports/studies")
REVIVALS = 3  # times that workers are started anew before a study gives up
LOOK, ASK = 2.0, 20.0  # seconds between two looks at Git's references, and between two questions to the queue


class Progress:
    """How far a study is, and how long it will still take."""

    def __init__(self, estimates: dict[str, float | None], workers: int) -> None:
        """Show the bar; the estimates, in seconds, are by the runs' names."""
        self.estimates, self.workers = estimates, workers
        self.done: set[str] = set()
        self.start = time.monotonic()
        self.bar = tqdm(total=len(estimates), unit=" runs", desc="study")

    def finish(self, name: str) -> None:
        """Take down that a run has ended, and estimate anew: by how long those before it took."""
        self.done.add(name)
        self.bar.update()
        expected = in_all((self.estimates[each] for each in self.done), self.workers)
        left = in_all((each for name, each in self.estimates.items() if name not in self.done), self.workers)
        if expected and left is not None:
            pace = (time.monotonic() - self.start) / expected
            self.bar.set_postfix_str(f"about {duration(left * pace)} left")


def enqueue(runs: list[Run], parameters: dict[str, Any]) -> None:
    """Put runs into the queue that aren't there yet; what has failed there, or was left by dead workers, anew."""
    states, _ = queue.states()
    gone = "Running" in states.values() and queue.is_deserted()
    waiting = {name for name, state in states.items() if state == "Queued" or (state == "Running" and not gone)}
    queue.give_up(run.name for run in runs if run.name in states and run.name not in waiting)
    for run in tqdm([run for run in runs if run.name not in waiting], desc="queue", unit=" runs", leave=False):
        queue.free(run.name)
        queue.add(run.name, run.target, overrides_of(run, parameters))


def wait_for(names: set[str], before: dict[str, list[str]], progress: Progress) -> dict[str, str]:
    """Wait until all runs of these names have ended; of those that failed, the end of the log by name.

    Args:
        before: the experiments that were finished before these were queued.
    """
    asked, gone, failed = time.monotonic(), 0, {}
    while names:
        time.sleep(LOOK)
        for name in queue.newly_finished(names, before):
            progress.finish(name)
            names = names - {name}
        if names and time.monotonic() - asked > ASK:
            asked, deserted = time.monotonic(), queue.is_deserted()
            gone = gone + 1 if deserted else 0
            if deserted:  # such as by `dvc queue stop`, which was still stopping them when these runs were queued
                queue.start(progress.workers)
            ended = names if gone > REVIVALS else queue.ended_among(names, at_work=not deserted)
            for name in sorted(ended - queue.newly_finished(names, before)):
                failed[name] = "\n".join(queue.last_words(name))
                progress.bar.write(f"{name} failed:\n{failed[name]}", file=sys.stderr)
                progress.finish(name)
                names = names - {name}
    return failed


def run_study(name: str, runs: list[Run], workers: int, dry: bool) -> dict[str, str]:
    """Run what is missing; of runs that failed, the end of the log by name."""
    parameters, before = load_yaml("params.yaml"), queue.finished()
    todo = [run for run in runs if commit_of(run, before) is None]
    waves = [*in_waves(todo, {run.name: training_of(run) for run in todo})]
    first = {run.name for run in waves[0]} if waves else set()
    estimates = {run.name: seconds_of(run, parameters, run.name not in first) for run in todo}
    print(
        f"{name}: {len(runs)} runs, {len(runs) - len(todo)} of them done. {told(in_all(estimates.values(), workers))}"
    )
    failed: dict[str, str] = {}
    if todo and not dry:
        require_data(todo)
        progress = Progress(estimates, workers)
        for wave in waves:
            enqueue(wave, parameters)
            queue.start(workers)
            failed |= wait_for({run.name for run in wave}, before, progress)
        progress.bar.close()
    return failed


def require_data(runs: list[Run]) -> None:
    """Refuse to begin where each run would fetch and prepare its data, and train its judge, for itself.

    Raises:
        UserError: they haven't been built.
    """
    for run in runs:
        dataset = look_up(run.values, f"rungs.{run.rung}.dataset")
        if not Path(f"data/processed/{dataset}.safetensors").is_file():
            raise UserError(
                f"the data of {run.rung} are not here: `dvc repro {run.target}` makes them, once for all runs"
            )


def told(seconds: float | None) -> str:
    """An estimate as a sentence."""
    if seconds is None:
        return "There is no build by which to tell how long it will take."
    return f"About {duration(seconds)}, an estimate by the last build." if seconds else "Nothing is left to run."


def main() -> None:
    """Parse the command line; a mistake is one line and exit code 1, and so is a run that failed."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.study", description=__doc__)
    parser.add_argument("name", help="a file under studies/, without .yaml")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at the same time")
    parser.add_argument("--dry", action="store_true", help="say what would be run, and how long it would take")
    parser.add_argument("--render", action="store_true", help="write the page anew from results.json; nothing is run")
    arguments = parser.parse_args()
    folder = REPORTS / arguments.name
    try:
        failed: dict[str, str] = {}
        if not arguments.render:
            study = load_study(arguments.name)
            runs = runs_of(arguments.name, study, load_yaml("params.yaml"))
            failed = run_study(arguments.name, runs, arguments.jobs, arguments.dry)
            if not arguments.dry:
                write_json(folder / "results.json", collect(arguments.name, study, runs, failed))
        if not arguments.dry:
            results = read_json(folder / "results.json")
            write_study(folder, results, first_samples(results))
            print(f"{folder}/index.html")
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(
            "stopped waiting; the queue's workers go on: `dvc queue stop --kill` ends them, the same command waits"
        )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
