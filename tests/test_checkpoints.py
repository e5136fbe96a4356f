"""Checkpoints in one process: what is kept, what is refused; and the history that goes with them."""

import errno
import hashlib
import math
import os
import re
import shutil

import pytest
import torch
from conftest import PROJECT
from test_training import TRAINING, new_rung, task_of

from diffusion_ladder.device import configure
from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors, serialise
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage
from diffusion_ladder.training.checkpoint import Checkpoints, state_tensors
from diffusion_ladder.training.history import BINS, COLUMNS, History
from diffusion_ladder.training.loop import draw_batch, initial_state, train

KEY = "0123456789abcdef" * 4


class Run:
    """A training of a few steps, and its checkpoints in a folder."""

    def __init__(self, folder, key=KEY, seed=0):
        self.rung = new_rung()
        self.state, self.history = initial_state(self.rung, TRAINING), History(TRAINING, 1000, torch.device("cpu"))
        task = task_of(self.rung, seed=seed)
        self.checkpoints = Checkpoints(folder, "test", key, 0.0, lambda step: draw_batch(task, step))
        self.steps = train(task, self.state)

    def go_on(self, until):
        while self.state.steps < until:
            self.history.add(next(self.steps))
            if self.history.row_is_due:
                self.history.close_row()
        return self

    def saved(self, *steps):
        for step in steps:
            self.go_on(step).checkpoints.save(self.state, self.history)
        return sorted(self.checkpoints.folder.iterdir())

    def restored(self):
        return self.checkpoints.restore(self.state, self.history)


def same(one, other):
    first, second = (state_tensors(run.state) for run in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one.state.steps == other.state.steps
    assert one.history.log() == other.history.log()


def test_going_on_is_the_same_as_never_having_stopped(tmp_path):
    Run(tmp_path).saved(7)  # between two rows of the log
    resumed = Run(tmp_path)
    resumed.restored()
    same(resumed, Run(tmp_path).go_on(7))
    same(resumed.go_on(TRAINING.steps), Run(tmp_path).go_on(TRAINING.steps))


def test_the_two_newest_are_kept(tmp_path):
    kept = Run(tmp_path).saved(3, 4, 5)
    assert [int(path.name.partition("-")[0]) for path in kept] == [4, 5]


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_named_and_discarded_and_the_one_before_is_used(damage, tmp_path, capsys):
    _, last = Run(tmp_path).saved(3, 4)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes({"truncated": content[:-1], "altered": content, "empty": b""}[damage])
    resumed = Run(tmp_path)
    resumed.restored()
    same(resumed, Run(tmp_path).go_on(3))
    assert capsys.readouterr().err == f"{last} is truncated or was altered: discarded\n"
    assert not last.exists()


def test_a_file_of_another_key_is_never_used(tmp_path, capsys):
    (path,) = Run(tmp_path, key="f" * 64).saved(3)
    run = Run(tmp_path)
    assert run.restored() is None
    assert run.checkpoints.others() == [path.parent]
    shutil.copytree(path.parent, run.checkpoints.folder)  # even where somebody puts it there
    assert run.restored() is None
    assert "was made with other parameters, data or code: discarded" in capsys.readouterr().err
    same(run, Run(tmp_path))


def test_another_batch_to_come_is_an_error(tmp_path):
    (path,) = Run(tmp_path).saved(3)
    with pytest.raises(UserError, match=r"random state can't be restored \(step 4 would see another batch\)"):
        Run(tmp_path, seed=1).restored()
    assert path.exists()


@pytest.mark.parametrize("change", ["missing", "cut"])
def test_a_random_state_that_can_not_be_restored_is_an_error(change, tmp_path):
    (path,) = Run(tmp_path).saved(3)
    tensors = read_tensors(path)
    state = tensors.pop("random.cpu")
    content = serialise(tensors | ({} if change == "missing" else {"random.cpu": state[:-8]}), read_metadata(path))
    path.unlink()
    digest = hashlib.sha256(content).hexdigest()
    (path.parent / f"000000003-{digest}.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"000000003-\w+.safetensors: its random state can't be restored \(.*remove it"):
        Run(tmp_path).restored()


def test_the_global_generator_is_restored(tmp_path):
    before = torch.get_rng_state()
    try:
        torch.manual_seed(7)
        Run(tmp_path).saved(3)
        expected = torch.randn(4)
        torch.manual_seed(8)
        Run(tmp_path).restored()
        assert torch.equal(torch.randn(4), expected)
    finally:
        torch.set_rng_state(before)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    run = Run(tmp_path)
    before = run.saved(3)

    def full_disk(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=f"No space left on device; the last good checkpoint is {before[0]}"):
        run.saved(4)
    assert sorted(run.checkpoints.folder.iterdir()) == before


@pytest.mark.parametrize("where", ["loss", "weights", "moments"])
def test_what_is_not_finite_is_never_saved(where, tmp_path):
    run = Run(tmp_path)
    (good,) = run.saved(3)
    run.go_on(4)
    if where == "loss":
        run.history.window[run.history.filled - 1, 0] = math.inf
    else:
        prefix = {"weights": "network.", "moments": "optimiser."}[where]
        next(part for name, part in state_tensors(run.state).items() if name.startswith(prefix)).fill_(math.nan)
    with pytest.raises(UserError, match=rf"step 4: .*; the last good checkpoint is {good}"):
        run.checkpoints.save(run.state, run.history)
    assert list(run.checkpoints.folder.iterdir()) == [good]


@pytest.mark.parametrize(
    ("step", "loss", "norm", "cause"),
    [
        (1, math.nan, math.nan, "the data or the first weights"),
        (8, 0.5, math.inf, "the gradient overflows"),
        (8, math.inf, math.nan, "the weights have run away"),
    ],
)
def test_the_first_bad_step_is_named_with_its_likely_cause(step, loss, norm, cause, tmp_path):
    run = Run(tmp_path).go_on(step)
    run.history.window[run.history.filled - 1, :2] = torch.tensor([loss, norm])
    run.go_on(step + 1)
    said = run.history.failure()
    assert said.startswith(f"step {step}: the loss is {loss:g}, the gradient's norm {norm:g}; likely {cause}")


def test_another_process_is_kept_out_and_litter_is_removed(tmp_path):
    run = Run(tmp_path)
    run.saved(3)
    litter = run.checkpoints.folder / ".x.partial"
    litter.touch()
    with run.checkpoints.locked():
        assert not litter.exists()
        with (
            pytest.raises(UserError, match=r"another process is training this model \(.*lock\)"),
            Run(tmp_path).checkpoints.locked(),
        ):
            pass
        run.checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_the_mean_over_the_steps_since_the_row_before(tmp_path):
    run, steps = Run(tmp_path), []
    for step in train(task_of(run.rung)):
        steps.append(step)
        run.history.add(step)
        if run.history.row_is_due:
            run.history.close_row()
    header, *rows = [line.split("\t") for line in run.history.log().splitlines()]
    assert header == list(COLUMNS)
    assert [int(row[0]) for row in rows] == [5, 10, 15, 20]
    assert [int(row[1]) for row in rows] == [320, 640, 960, 1280]
    for index, row in enumerate(rows):
        part = steps[5 * index : 5 * index + 5]
        assert float(row[2]) == pytest.approx(sum(float(step.loss) for step in part) / 5, rel=1e-5)
        assert float(row[3]) == pytest.approx(sum(float(step.gradient_norm) for step in part) / 5, rel=1e-5)
        losses, timesteps = (torch.cat([getattr(step, name) for step in part]) for name in ("losses", "timesteps"))
        for number in range(BINS):
            inside = (timesteps >= 125 * number) & (timesteps < 125 * (number + 1))
            assert float(row[5 + number]) == pytest.approx(losses[inside].mean().item(), rel=1e-4)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project's files that a training of the circles depends on."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "stages"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "data/processed").mkdir(parents=True)
    (folder / "data/params_checked.txt").write_text("ok\n")
    (folder / "data/processed/circles.safetensors").write_bytes(b"data")
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("params.yaml", "warmup_steps: 100 ", "warmup_steps: 99 ", True),
        ("params.yaml", "threads: 2", "threads: 1", True),
        ("params.yaml", "seed: 0 ", "seed: 1 ", True),
        ("data/processed/circles.safetensors", "data", "date", True),
        ("src/diffusion_ladder/training/loop.py", "algorithm 1", "algorithm one", True),
        ("src/diffusion_ladder/networks/mlp.py", "MLP", "mlp", True),
        ("src/diffusion_ladder/networks/unet.py", "U-Net", "u-net", False),
        ("params.yaml", "seconds: 30 ", "seconds: 60 ", False),
        ("params.yaml", "comparison_steps: 50\n", "comparison_steps: 49\n", False),
    ],
)
def test_the_key_of_a_checkpoint_follows_from_all_that_decides_the_result(copy, monkeypatch, file, old, new, differs):
    threads = torch.get_num_threads()
    monkeypatch.chdir(copy)

    def fingerprint():
        stage = Stage("train", "circles")
        stage.prepare(configure)
        return stage.fingerprint()

    before = fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", before)
    text = (copy / file).read_text()
    assert old in text
    try:
        (copy / file).write_text(text.replace(old, new, 1))
        assert (fingerprint() != before) == differs
    finally:
        (copy / file).write_text(text)
        torch.set_num_threads(threads)
