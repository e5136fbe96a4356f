"""The benchmarks run, compare like with like, and their page says what their results say. No test asks how fast."""

import json
import sys

import pytest
import torch
from conftest import PROJECT, run

from diffusion_ladder.params.whole import load_parameters

MODELS = ["mnist_diffusers", "mnist_scratch", "faces"]


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))


def test_the_page_is_what_the_results_say():
    import page

    assert (PROJECT / "benchmarks/README.md").read_text() == page.render(PROJECT / "benchmarks/results")
    told = page.render(PROJECT / "benchmarks/results", "reliability.md.j2")
    assert (PROJECT / page.RELIABILITY).read_text() == told


@pytest.mark.parametrize("name", MODELS)
def test_both_loops_train_networks_of_the_same_size(name):
    import training

    from diffusion_ladder.rungs import parameter_count

    task = training.task_of(name, load_parameters())
    unet = training.plain_unet(task, torch.device("cpu"))
    assert parameter_count(unet) == parameter_count(task.rehearsal.rung(torch.device("cpu")).network)


def test_the_plain_loop_learns():
    import plain_diffusers
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",),
                       up_block_types=("UpBlock2D",), norm_num_groups=4, add_attention=False)  # fmt: skip
    images, labels = torch.ones(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64)
    scheduler = plain_diffusers.DDPMScheduler()
    steps = plain_diffusers.train(unet, scheduler, images, labels, batch_size=16, steps=1000, bf16=False)
    losses = [next(steps) for _ in range(200)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


@pytest.mark.slow
def test_a_run_writes_results_and_page(tmp_path):
    results = tmp_path / "results"
    options = ["--preset", "smoke", "--results", str(results)]
    commands = [
        ["benchmarks/training.py", "--rounds", "1", "--steps", "1", *options, "mnist_diffusers"],
        ["benchmarks/profiles.py", *options, "circles"],
    ]
    for command in commands:
        ran = run([sys.executable, *command], PROJECT, PYTHONPATH="src")
        assert ran.returncode == 0, ran.stderr[-2000:]
    (measured,) = (json.loads(path.read_text()) for path in results.glob("training-*.json"))
    contenders = {row["name"]: row for row in measured["models"]["mnist_diffusers"]["contenders"]}
    assert {"ours", "plain float32", "plain bf16"} <= set(contenders)
    assert contenders["ours"]["times_ours"] == 1
    assert measured["machine"]["name"] in (tmp_path / "README.md").read_text()
    (profile,) = (json.loads(path.read_text()) for path in results.glob("profile-*.json"))
    assert 0 < sum(row["share"] for row in profile["models"]["circles"]) <= 1
