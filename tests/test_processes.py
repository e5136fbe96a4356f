"""Real processes that share a rung, as if on two machines: each in a copy of the project of its own."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from conftest import PROJECT, as_activated, run
from hypothesis import given
from hypothesis import strategies as st

from diffusion_ladder.evaluation.points import energy_distance
from diffusion_ladder.foundation.artifacts import read_json, read_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import LAUNCHER, Launch
from diffusion_ladder.processes import Processes

MODELS = ("circles", "mnist_scratch")
ONE_THREAD = {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
TORCHRUN = "torchrun --standalone --nproc_per_node 2"
ACCELERATE = (
    "accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no"
)


def processes(rank: int, count: int) -> Processes:
    of_many = Processes()
    of_many.rank, of_many.count = rank, count
    return of_many


@given(total=st.integers(1, 1000), count=st.integers(1, 64))
def test_the_shares_are_the_whole_in_order_and_differ_by_one_at_most(total, count):
    if total < count:
        with pytest.raises(UserError, match=f"{total} examples or samples can't be shared among {count} processes"):
            processes(0, count).share(total)
        return
    shares = [list(range(total))[processes(rank, count).share(total)] for rank in range(count)]
    assert list(itertools.chain(*shares)) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


MEETING_PLACE = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_a_process_learns_from_its_launcher_which_it_is():
    assert Launch.of({}) == Launch(0, 1)
    assert Launch.of({"RANK": "0", "WORLD_SIZE": "4", **MEETING_PLACE}).is_main
    assert Launch.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **MEETING_PLACE}) == Launch(3, 4)
    assert not Launch(3, 4).is_main


@pytest.mark.parametrize("stage", ["train", "sample"])
def test_one_process_does_without_accelerate(stage):
    code = f"import sys; sys.path.insert(0, 'stages'); import {stage}; print('accelerate' in sys.modules)"
    assert run([sys.executable, "-c", code], PROJECT, PYTHONPATH="src").stdout.strip() == "False"


def test_the_work_of_one_process_is_refused_to_several():
    command = [sys.executable, "stages/evaluate.py", "circles"]
    ran = run(command, PROJECT, PYTHONPATH="src", RANK="1", WORLD_SIZE="2", **MEETING_PLACE)
    assert ran.returncode == 1
    expected = "evaluate@circles (process 1): this stage is the work of one process: start it without a launcher"
    assert ran.stderr.splitlines() == [expected]


def test_a_launcher_that_is_not_there_is_named():
    ran = run([sys.executable, "stages/sample.py", "circles"], PROJECT, PYTHONPATH="src", **{LAUNCHER: "no-such -n 2"})
    assert ran.returncode == 1
    assert ran.stderr == f"sample@circles: {LAUNCHER}: no-such can't be run: No such file or directory\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with processed data; batches and samples are odd in number."""
    folder = tmp_path_factory.mktemp("processes") / "project"
    copied = run([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(folder)], PROJECT)
    assert copied.returncode == 0, copied.stderr
    path = folder / "params.yaml"
    parameters = yaml.safe_load(path.read_text())
    parameters["runtime"] |= {"device": "cpu", "precision": "float32", "threads": 1}
    parameters["checkpoints"]["seconds"] = 0  # after every step
    # Muon rounds its matrices to bfloat16 in every step, in which the order of additions shows at once.
    parameters["every_rung"]["training"]["optimiser"] = "adamw"
    for model, steps, batch_size in (("circles", 120, 129), ("mnist_scratch", 6, 9)):
        rung = parameters["rungs"][model]
        rung["training"] |= {"steps": steps, "batch_size": batch_size, "log_every": 1}
        rung["conditional"] = False  # so that samples need no share for each class
        rung["training"].pop("label_dropout", None)
        rung["sweep"].pop("guidance", None)
        rung["sampling"] |= {"seeds": 3, "count": 33, "comparison_count": 33, "trajectory_count": 9}
        rung["evaluation"] |= {"sample_count": 33, "smaller_counts": [16]}
    parameters["rungs"]["circles"]["evaluation"]["smaller_counts"] = []
    path.write_text(yaml.safe_dump(parameters, sort_keys=False))
    for stage in ("check_params", "fetch circles", "fetch mnist", "preprocess circles", "preprocess mnist"):
        name, *key = stage.split()
        ran = run([sys.executable, f"stages/{name}.py", *key], folder, **ONE_THREAD)
        assert ran.returncode == 0, ran.stderr
    return folder


def copies(project: Path, folder: Path) -> list[Path]:
    """Two copies of the project, one for each of two processes."""
    return [Path(shutil.copytree(project, folder / name)) for name in ("main", "other")]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def run_in(folders: list[Path], command: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """One process of a stage in each folder, connected as a launcher on several machines would connect them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = ONE_THREAD | {"WORLD_SIZE": str(len(folders)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank, folder in enumerate(folders):
        variables = as_activated(**shared, RANK=str(rank), LOCAL_RANK="0")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *command], cwd=folder, env=variables, **pipes))
    outputs = [process.communicate() for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(started, outputs, strict=True)
    ]


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory) -> tuple[Path, Path]:
    """The models, trained by one process and by two."""
    one = Path(shutil.copytree(project, tmp_path_factory.mktemp("one") / "project"))
    main, other = copies(project, tmp_path_factory.mktemp("two"))
    before = files(other)
    for model in MODELS:
        alone = run([sys.executable, "stages/train.py", model], one, **ONE_THREAD)
        assert alone.returncode == 0, alone.stderr
        first, second = run_in([main, other], ["stages/train.py", model])
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert first.stdout.startswith(f"train@{model}: cpu")
        assert "2 processes" in first.stdout
        assert second.stdout + second.stderr == ""  # the main process alone speaks,
    assert files(other) == before  # and writes
    return one, main


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_train_as_one_does(trained, model):
    logs = [
        torch.tensor([[float(value) for value in row.split("\t")] for row in text.splitlines()[1:]])
        for text in ((folder / f"reports/training/{model}.tsv").read_text() for folder in trained)
    ]
    assert len(logs[0]) in (120, 6)
    torch.testing.assert_close(logs[1], logs[0], rtol=1e-4, atol=1e-4, equal_nan=True)
    weights = [read_tensors(next((folder / "models" / model).glob("*.safetensors"))) for folder in trained]
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-4)
    cards = [read_json(folder / "models" / model / "rung.json") for folder in trained]
    assert cards[0].keys() == cards[1].keys()
    records = [read_json(folder / f"reports/run/train@{model}.json")["processes"] for folder in trained]
    assert records == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "launcher"), [("circles", ACCELERATE), ("mnist_scratch", TORCHRUN)])
def test_two_processes_draw_the_samples_of_one_in_the_same_order(trained, tmp_path, model, launcher):
    one = Path(shutil.copytree(trained[0], tmp_path / "one"))
    two = Path(shutil.copytree(trained[0], tmp_path / "two"))
    for folder, command in ((one, ""), (two, launcher)):
        ran = run([sys.executable, "stages/sample.py", model], folder, **ONE_THREAD, **{LAUNCHER: command})
        assert ran.returncode == 0, ran.stderr
    assert read_json(two / f"reports/run/sample@{model}.json")["processes"] == 2
    for suffix in ("", ".comparison", ".trajectories"):
        drawn = [read_tensors(folder / f"data/samples/{model}{suffix}.safetensors") for folder in (one, two)]
        assert drawn[0].keys() == drawn[1].keys()
        for name, tensor in drawn[0].items():
            atol = 1 if tensor.dtype == torch.uint8 else 1e-4  # rounding may turn over to the next byte
            torch.testing.assert_close(drawn[1][name].double(), tensor.double(), rtol=0, atol=atol)
        if model == "circles" and not suffix:
            held_out = read_tensors(one / "data/processed/circles.safetensors")["test"]
            distances = [energy_distance(each["samples"], held_out) for each in drawn]
            assert distances[1] == pytest.approx(distances[0], abs=1e-6)


def last_step(folder: Path) -> int:
    """The step of the latest checkpoint; 0 where there is none."""
    names = [path.name for path in (folder / ".checkpoints/circles").glob("*/*.safetensors")]
    return max((int(name.partition("-")[0]) for name in names), default=0)


def start_and_hit(folder: Path, step: int, rank: int | None, number: int) -> tuple[int, str]:
    """Train with two processes, and after a step send a signal to one of them, or to the launcher: exit code, words."""
    variables = as_activated(**ONE_THREAD, **{LAUNCHER: TORCHRUN})
    command = [sys.executable, "stages/train.py", "circles"]
    launcher = subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)
    while launcher.poll() is None and last_step(folder) < step:
        time.sleep(0.001)
    workers = {worker.environ()["RANK"]: worker.pid for worker in psutil.Process(launcher.pid).children()}
    os.kill(launcher.pid if rank is None else workers[str(rank)], number)
    said = launcher.communicate(timeout=120)[1]
    return launcher.returncode, said


@pytest.mark.slow
def test_what_two_processes_have_trained_survives_their_end(project, trained, tmp_path):
    """One training through a stopped launcher and either process killed; at last on another pair of machines."""
    main, other = copies(project, tmp_path)
    code, said = start_and_hit(main, 5, None, signal.SIGTERM)
    assert code != 0
    assert f"train@circles: stopped after step {last_step(main)}, saved in .checkpoints/circles/" in said

    stopped_at = last_step(main)
    code, said = start_and_hit(main, stopped_at + 10, 1, signal.SIGKILL)
    assert code != 0
    assert f"train@circles: goes on after step {stopped_at}, from .checkpoints/circles/" in said
    assert "SIGKILL" in said

    killed_at = last_step(main)
    code, said = start_and_hit(main, killed_at + 10, 0, signal.SIGKILL)
    assert code != 0
    assert f"goes on after step {killed_at}, from" in said
    assert not (main / "models/circles").exists()

    killed_at = last_step(main)
    first, second = run_in([main, other], ["stages/train.py", "circles"])
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert f"goes on after step {killed_at}, from" in first.stderr
    for path in ("models/circles/model.safetensors", "models/circles/rung.json", "reports/training/circles.tsv"):
        assert (main / path).read_bytes() == (trained[1] / path).read_bytes(), path
    assert not (main / ".checkpoints/circles").exists()
