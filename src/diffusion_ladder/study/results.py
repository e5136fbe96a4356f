"""What the finished experiments of a study say: metrics, seconds, samples and code, read from their commits."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from torch import Tensor

from diffusion_ladder.foundation.artifacts import canonical_json, read_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import Definition, read_graph
from diffusion_ladder.foundation.section import look_up, look_up_or_none
from diffusion_ladder.study.estimate import record_of, training_seconds
from diffusion_ladder.study.question import Run, Study
from diffusion_ladder.study.queue import file_at, finished, output_of

BOUNDS = ("", "_std", "_floor", "_floor_std")  # of a metric, that are kept
OF_DATASET = ("fetch", "preprocess", "train_classifier")
OF_RUNG = ("train", "sample", "sweep", "evaluate")


def depends_on(run: Run, stages: dict[str, Definition]) -> dict[str, Any]:
    """The parameters that decide a run's result, by their keys."""
    dataset = look_up(run.values, f"rungs.{run.rung}.dataset")
    keys = [key for stage in OF_RUNG for key in stages[stage].listed("params", run.rung)]
    for stage in OF_DATASET:
        if dataset in stages[stage].loop:
            keys += stages[stage].listed("params", dataset)
    return {key: look_up_or_none(run.values, key) for key in keys}


def training_of(run: Run) -> str:
    """What decides the model of a run: runs that share it need one training."""
    stages = read_graph(run.values)
    dataset = look_up(run.values, f"rungs.{run.rung}.dataset")
    keys = stages["train"].listed("params", run.rung) + stages["preprocess"].listed("params", dataset)
    return canonical_json({key: look_up_or_none(run.values, key) for key in sorted(keys)} | {"rung": run.rung})


def commit_of(run: Run, experiments: dict[str, list[str]]) -> str | None:
    """The newest commit of a finished experiment with this run's name and parameters; None where there is none."""
    wanted = depends_on(run, read_graph(run.values))
    for commit in experiments.get(run.name, []):
        values = YAML(typ="safe").load(file_at(commit, "params.yaml"))
        if {key: look_up_or_none(values, key) for key in wanted} == wanted:
            return commit
    return None


def lock_entry(commit: str, stage: str) -> dict[str, Any]:
    """The entry of a stage in the dvc.lock of a commit; the others, which are long, are not parsed."""
    text = file_at(commit, "dvc.lock") or ""
    found = re.search(rf"^  {re.escape(stage)}:\n(?:    .*\n|  - .*\n)*", text, flags=re.MULTILINE)
    return yaml.safe_load(found[0])[stage] if found else {}


def samples_md5(commit: str, rung: str) -> str | None:
    """The hash under which DVC's cache has the samples of a run."""
    outs = lock_entry(commit, f"sample@{rung}").get("outs", [])
    return next((each["md5"] for each in outs if each["path"] == f"data/samples/{rung}.safetensors"), None)


def code_of(commit: str, rung: str) -> str:
    """A hash of the code that trained, sampled and measured."""
    files = {
        each["path"]: each["md5"]
        for stage in OF_RUNG
        for each in lock_entry(commit, f"{stage}@{rung}").get("deps", [])
        if each["path"].startswith(("src/", "stages/"))
    }
    return hashlib.sha256(canonical_json(files).encode()).hexdigest()[:12]


def seconds_at(commit: str, rung: str) -> float | None:
    """The seconds that the steps of a run's training took; None where its model came from DVC's run cache."""
    path = f"reports/run/train@{rung}.json"
    made, before = file_at(commit, path), file_at(f"{commit}^", path)
    seconds = training_seconds(record_of(made))
    return seconds[0] if seconds and made != before else None


def kept_metrics(study: Study, metrics: dict[str, Any], run: Run) -> dict[str, float]:
    """Those of a run that the study asks for, with deviation and floor.

    Raises:
        UserError: its rung has none of them.
    """
    kept = {
        f"{name}{bound}": metrics[f"{name}{bound}"]
        for name in study.metrics
        for bound in BOUNDS
        if isinstance(metrics.get(name), int | float) and f"{name}{bound}" in metrics
    }
    if not kept:
        raise UserError(f"{run.name}: reports/metrics/{run.rung}.json has none of {', '.join(study.metrics)}")
    return kept


def result_of(run: Run, study: Study, commit: str) -> dict[str, Any]:
    """What a finished run says."""
    metrics = json.loads(file_at(commit, f"reports/metrics/{run.rung}.json") or "{}")
    return {
        "rung": run.rung,
        "variant": run.variant,
        "seed": run.seed,
        "experiment": run.name,
        "training_seconds": seconds_at(commit, run.rung),
        "samples": samples_md5(commit, run.rung),
        "code": code_of(commit, run.rung),
        "metrics": kept_metrics(study, metrics, run),
    }


def first_samples(found: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The samples of the first training seed that DVC's cache has, by rung and variant.

    A rung of which one is missing is left out. Each is of the first sampling seed.
    """
    cache = Path(output_of(["dvc", "cache", "dir"]).strip()) / "files/md5"
    paths = {
        (run["rung"], run["variant"]): cache / run["samples"][:2] / run["samples"][2:]
        for run in found["runs"]
        if run["seed"] == min(found["seeds"]) and run["samples"]
    }
    order = {found["baseline"]: None} | {each["name"]: None for each in found["variants"]}
    drawn: dict[str, dict[str, Tensor]] = {}
    for rung in found["rungs"]:
        own = {name: paths[rung, name] for name in order if (rung, name) in paths}
        if own and all(path.is_file() for path in own.values()):
            drawn[rung] = {name: of_first_seed(path) for name, path in own.items()}
    return drawn


def of_first_seed(path: Path) -> Tensor:
    """The samples of a file that were drawn with the first sampling seed."""
    tensors = read_tensors(path)
    return tensors["samples"][tensors["sampling_seed"] == 0]


def collect(name: str, study: Study, runs: Iterable[Run], failed: dict[str, str]) -> dict[str, Any]:
    """All that reports/studies/NAME/results.json holds: the question, and what each finished run says.

    A model that a run found made already took the seconds of the run that made it.
    """
    experiments, results, trainings = finished(), [], {}
    for run in runs:
        if (commit := commit_of(run, experiments)) is not None:
            results.append(result_of(run, study, commit))
            trainings[run.name] = training_of(run)
    made = {
        trainings[each["experiment"]]: each["training_seconds"]
        for each in results
        if each["training_seconds"] is not None
    }
    for each in results:
        each["training_seconds"] = made.get(trainings[each["experiment"]])
    asked = study.model_dump(include={"question", "held_fixed", "heading", "rungs", "metrics", "seeds", "test"})
    return asked | {
        "study": name,
        "baseline": study.baseline,
        "overrides": study.overrides,
        "variants": [{"name": title, "changes": changes} for title, changes in study.changes.items()],
        "runs": results,
        "failed": failed,
    }
