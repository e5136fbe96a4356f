"""Trainings that are really killed, and go on: what they leave is the same to the byte as without the kill."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import as_activated, run

pytestmark = pytest.mark.slow

TRAIN = [sys.executable, "stages/train.py"]
STEPS = {"circles": 60, "moons": 60, "mnist_scratch": 12, "mnist_diffusers": 12, "faces": 8}  # of the smoke preset

LOG_EVERY = {"circles": 10, "moons": 10, "mnist_scratch": 4, "mnist_diffusers": 4, "faces": 2}


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored():
    """A shell lets what it runs in the background ignore Ctrl-C, and this process's children would do so, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def project(smoke, tmp_path_factory) -> Path:
    """The smoke build, to be trained again, with a checkpoint after every step; DVC remembers no training."""
    folder = tmp_path_factory.mktemp("crashes") / "project"
    shutil.copytree(smoke, folder, ignore=shutil.ignore_patterns("cache", "figures"))
    path = folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text())
    for key, rung in parameters["rungs"].items():
        assert (rung["training"]["steps"], rung["training"]["log_every"]) == (STEPS[key], LOG_EVERY[key])
    parameters["checkpoints"]["seconds"] = 0
    path.write_text(yaml.safe_dump(parameters, sort_keys=False))
    return folder


def results(folder: Path, model: str) -> dict[str, bytes]:
    """Everything that training a model writes."""
    files = [folder / f"reports/training/{model}.tsv", folder / f"data/samples/{model}.previews.safetensors"]
    files += sorted(path for path in (folder / "models" / model).iterdir() if path.name != "README.md")  # the report's
    return {file.name: file.read_bytes() for file in files}


def forget(folder: Path, model: str) -> None:
    """Remove what training a model writes, as DVC does before it runs the stage."""
    shutil.rmtree(folder / "models" / model, ignore_errors=True)
    (folder / f"reports/training/{model}.tsv").unlink(missing_ok=True)
    (folder / f"data/samples/{model}.previews.safetensors").unlink(missing_ok=True)


def start(folder: Path, command: list[str], **environment: str) -> subprocess.Popen[str]:
    """A process group of its own."""
    variables = as_activated(PYTHONPATH="src", **environment)
    return subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True, process_group=0)


def checkpoints(folder: Path, model: str) -> list[str]:
    """Names of a model's checkpoints, the latest last: each begins with its step."""
    return sorted(path.name for path in (folder / ".checkpoints" / model).glob("*/*.safetensors"))


def last_step(folder: Path, model: str) -> int:
    """The step of the latest checkpoint; 0 where there is none."""
    return max((int(name.partition("-")[0]) for name in checkpoints(folder, model)), default=0)


def writes(folder: Path, model: str) -> bool:
    """Whether a checkpoint is being written."""
    return any((folder / ".checkpoints" / model).glob("*/.*.partial"))


def is_held(process: subprocess.Popen[str]) -> bool:
    """Suspend a process, so that it can be looked at; False if it has ended meanwhile."""
    os.killpg(process.pid, signal.SIGSTOP)
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return state is not None and state.si_code == os.CLD_STOPPED


def stop(folder: Path, model: str, process: subprocess.Popen[str], step: int, number: int, writing: bool) -> str:
    """Send a process group a signal after a step (while it writes a checkpoint); what it said on stderr."""
    while process.poll() is None:
        if last_step(folder, model) < step or (writing and not writes(folder, model)):
            time.sleep(0.0005)
        elif is_held(process):
            there = not writing or writes(folder, model)  # still so, now that it can't go on
            if there:
                os.killpg(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)
            if there:
                break
    return process.communicate()[1]


def train_with_kills(folder: Path, model: str, kills: list[int]) -> list[int]:
    """Train a model in as many processes as kills, and one more; at which steps the kills hit, -step within a write."""
    forget(folder, model)
    hits = []
    for index, step in enumerate(kills):
        process = start(folder, [*TRAIN, model])
        stop(folder, model, process, step, signal.SIGKILL, writing=index % 2 == 1)
        if process.returncode == -signal.SIGKILL:
            hits.append(last_step(folder, model) * (-1 if writes(folder, model) else 1))
            rows = (folder / f"reports/training/{model}.tsv").read_text().splitlines()[1:]
            assert len(rows) >= last_step(folder, model) // LOG_EVERY[model]  # the log grows while training goes on
            forget(folder, model)
    finished = run([*TRAIN, model], folder, PYTHONPATH="src")
    assert finished.returncode == 0, finished.stderr
    assert f"goes on after step {abs(hits[-1])}" in finished.stderr
    return hits


def test_a_killed_training_ends_as_if_nothing_had_happened(smoke, project):
    """Two or three kills of each model at random steps, two trainings at a time; some while a checkpoint is written."""
    draw = random.Random(0)
    kills = {model: sorted(draw.sample(range(1, steps - 2), 3 if steps > 12 else 2)) for model, steps in STEPS.items()}
    with ThreadPoolExecutor(2) as pool:
        futures = {model: pool.submit(train_with_kills, project, model, kills[model]) for model in kills}
        hits = {model: future.result() for model, future in futures.items()}
    assert sum(map(len, hits.values())) >= 10, hits
    assert sum(hit < 0 for model in hits for hit in hits[model]) >= 3, hits
    for model in STEPS:
        assert results(project, model) == results(smoke, model), (model, hits[model])
    assert list((project / ".checkpoints").iterdir()) == []
    assert list(project.rglob(".*.partial")) == []


def test_dvc_goes_on_where_it_was_killed(smoke, project):
    forget(project, "circles")
    command = ["dvc", "repro", "train@circles"]
    for step, shell in ((5, shutil.which("bash") or ""), (10, "")):  # DVC starts a stage in $SHELL; /bin/sh where empty
        process = start(project, command, SHELL=shell)
        said = stop(project, "circles", process, step, signal.SIGINT, writing=False)  # as Ctrl-C does
        reached = f"train@circles: stopped after step {last_step(project, 'circles')}, saved in .checkpoints/circles"
        assert reached in said
        assert "exited with 130" in said
    stop(project, "circles", start(project, command), 20, signal.SIGKILL, writing=False)
    step = last_step(project, "circles")
    assert 20 <= step < STEPS["circles"]
    finished = run(command, project)
    assert finished.returncode == 0, finished.stderr
    assert f"train@circles: goes on after step {step}" in finished.stderr
    assert results(project, "circles") == results(smoke, "circles")
    locks = [
        yaml.safe_load((folder / "dvc.lock").read_text())["stages"]["train@circles"] for folder in (project, smoke)
    ]
    assert locks[0]["outs"] == locks[1]["outs"]


def test_signals_damage_and_a_full_disk_lose_nothing(smoke, project):
    """One training through all of them, each time from where the one before stopped."""
    forget(project, "moons")
    process = start(project, [*TRAIN, "moons"])
    said = stop(project, "moons", process, 5, signal.SIGINT, writing=False)
    assert process.returncode == 130
    step, path = last_step(project, "moons"), f".checkpoints/moons/{{}}/{checkpoints(project, 'moons')[-1]}"
    folder = next((project / ".checkpoints/moons").glob("*/")).name
    assert said.splitlines()[-1] == f"train@moons: stopped after step {step}, saved in {path.format(folder)}"

    damaged = project / path.format(folder)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    process = start(project, [*TRAIN, "moons"])
    said = stop(project, "moons", process, step + 5, signal.SIGTERM, writing=False)
    assert process.returncode == 143
    assert f"{path.format(folder)} is truncated or was altered: discarded" in said
    assert f"goes on after step {step - 1}" in said

    before = checkpoints(project, "moons")
    full = run(["sh", "-c", f"ulimit -f 100; exec {' '.join(TRAIN)} moons"], project, PYTHONPATH="src")
    assert full.returncode == 1
    last = full.stderr.splitlines()[-1]
    assert re.fullmatch(r"train@moons: \S+ can't be written: File too large; the last good checkpoint is \S+", last)
    assert last.endswith(before[-1])
    assert checkpoints(project, "moons") == before

    finished = run([*TRAIN, "moons"], project, PYTHONPATH="src")
    assert finished.returncode == 0, finished.stderr
    assert results(project, "moons") == results(smoke, "moons")


def test_a_loss_that_is_no_number_stops_with_step_cause_and_checkpoint(smoke, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(smoke, folder, ignore=shutil.ignore_patterns("cache", "figures"))
    path = folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text())
    parameters["rungs"]["circles"]["training"] |= {"learning_rate": 1e30, "warmup_steps": 0}
    parameters["rungs"]["circles"]["previews"]["at"] = [1.0]
    path.write_text(yaml.safe_dump(parameters, sort_keys=False))
    forget(folder, "circles")
    failed = run([*TRAIN, "circles"], folder, PYTHONPATH="src")
    assert failed.returncode == 1
    said = failed.stderr.splitlines()[-1]
    assert re.match(r"train@circles: step \d+: the loss is \w+, the gradient's norm \w+; likely the weights have", said)
    assert said.endswith("there is no checkpoint yet")
    assert not (folder / "models/circles").exists()
