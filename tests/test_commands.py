"""The commands that draw from trained rungs, and `load`: the pipeline's own pictures, and refusals in one line."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, run
from PIL import Image
from test_model_cards import small
from test_pipelines import SAVED

import diffusion_ladder
from diffusion_ladder import command_line, interpolate, invert, sample
from diffusion_ladder.device import Compute
from diffusion_ladder.foundation.artifacts import read_table, read_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.rungs import load_rung, save_rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples

PARAMETERS = load_parameters(PROJECT / "params.yaml")
KEYS = ["moons", "mnist_scratch", "faces"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models with weights that stand for trained ones."""
    folder = tmp_path_factory.mktemp("trained") / "models"
    folder.mkdir()
    for key in KEYS:
        rung, classes = small(key)
        save_rung(rung, folder / key, {"class_names": classes}, SAVED)
    return folder


@pytest.fixture
def project(models, tmp_path, monkeypatch):
    """A folder with params.yaml and these models, in which the commands run, in float32."""
    shutil.copytree(models, tmp_path / "models")
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "configure", lambda settings: Compute(torch.device("cpu"), torch.float32))
    return tmp_path


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{module.__name__.rpartition('.')[2]}.py", *map(str, arguments)])
    command_line.run(module.main)


def refusal(module, monkeypatch, capsys, *arguments):
    """What a command says when it refuses, and its exit code."""
    with pytest.raises(SystemExit) as end:
        call(module, monkeypatch, *arguments)
    said = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert "\n" not in said
    assert not Path("drawn").exists()
    return said


def pixels(path):
    return torch.frombuffer(bytearray(Image.open(path).convert("RGB").tobytes()), dtype=torch.uint8)


def of_pipeline(key, seeds=2, **changes):
    """What the stage `sample` would draw: 4 samples of each class for each sampling seed."""
    rung = load_rung(f"models/{key}")
    settings = PARAMETERS.rungs[key].sampling.model_copy(update={"trajectory_count": 1, **changes})
    count = 4 * max(1, rung.num_classes)
    return draw_samples(Drawing(rung, settings.sampler, settings, settings.steps, count, 0, seeds)).samples


def test_a_seed_draws_the_pictures_that_the_pipeline_draws_with_it(project, monkeypatch):
    expected = of_pipeline("faces", steps=6).unflatten(0, (2, 2, 4))  # sampling seed, class, number
    for seed in (0, 1):
        call(sample, monkeypatch, "faces", "--class", "male", "--count", 3, "--seed", seed, "--steps", 6, "--out", seed)
        assert sorted(path.name for path in Path(str(seed)).iterdir()) == [
            *("grid.png", "male-000.png", "male-001.png", "male-002.png")
        ]
        for number in range(3):
            drawn = pixels(f"{seed}/male-{number:03}.png").view(64, 64, 3).permute(2, 0, 1)
            assert (drawn.int() - expected[seed, 1, number].int()).abs().max() <= 1
    assert not torch.equal(pixels("0/male-000.png"), pixels("1/male-000.png"))


def test_all_classes_are_drawn_unless_some_are_chosen_and_the_grid_shows_them(project, monkeypatch, capsys):
    call(sample, monkeypatch, "mnist_scratch", "--count", 2, "--steps", 2, "--sampler", "dpm_solver")
    assert len(list(Path("drawn/mnist_scratch").glob("*-*.png"))) == 20
    assert Image.open("drawn/mnist_scratch/grid.png").height > 10 * 28
    assert "20 samples by dpm_solver, in drawn/mnist_scratch/grid.png" in capsys.readouterr().out
    assert Image.open("drawn/mnist_scratch/7-001.png").mode in ("L", "P", "1")


def test_points_are_drawn_and_listed(project, monkeypatch):
    call(sample, monkeypatch, "moons", "--count", 4, "--steps", 5)
    rows = read_table("drawn/moons/points.tsv")
    drawn = torch.tensor([[row["x"], row["y"]] for row in rows])
    torch.testing.assert_close(drawn, of_pipeline("moons", seeds=1, steps=5), rtol=1e-4, atol=1e-5)
    assert Image.open("drawn/moons/grid.png").width > 300


def test_other_settings_draw_other_pictures(project, monkeypatch):
    settings = {
        "usual": (),
        "guided": ("--guidance-scale", 3),
        "clipped": ("--clip-sample",),
        "ddim": ("--sampler", "ddim", "--eta", 0),
        "noisy": ("--sampler", "ddim", "--eta", 1),
        "spaced": ("--spacing", "trailing"),
    }
    for name, options in settings.items():
        call(sample, monkeypatch, "faces", "--class", "female", "--count", 1, "--steps", 4, "--out", name, *options)
    drawn = [tuple(pixels(f"{name}/female-000.png").tolist()) for name in settings]
    assert len(set(drawn)) == len(settings)


REFUSED = {
    ("faces", "--class", "cow"): "sample: faces has no class 'cow', but female, male",
    ("moons", "--class", "outer"): "sample: moons is told no class: leave outer out",
    ("face",): "sample: there is no rung face, but circles, moons, mnist_scratch, mnist_diffusers, faces",
    ("circles",): "sample: models/circles holds no trained model: `dvc repro train@circles` trains it",
    ("faces", "--sampler", "euler"): "must be one of ddpm, ddim, dpm_solver, heun, diffusers_ddpm",
    ("faces", "--steps", "1001"): "rungs.faces.sampling.steps: 1001 is more than T = 1000",
    ("moons", "--guidance-scale", "2"): "rungs.moons.sampling.guidance_scale: needs a null label",
    ("moons", "--clip-sample"): "rungs.moons.sampling.clip_sample: would cut off moons",
    ("faces", "--eta", "2"): "rungs.faces.sampling.eta: ",
    ("faces", "--count", "0"): "--count must be at least 1",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_there_is_not_is_refused_with_what_there_is(project, monkeypatch, capsys, arguments):
    assert REFUSED[arguments] in refusal(sample, monkeypatch, capsys, *arguments)


def test_a_picture_becomes_noise_and_comes_back(project, monkeypatch, capsys):
    call(sample, monkeypatch, "faces", "--class", "male", "--count", 1, "--steps", 4)
    picture = "drawn/faces/male-000.png"
    options = ("--rung", "faces", "--class", "male", "--to-class", "female", "--steps", 6, "--out", "back")
    call(invert, monkeypatch, picture, *options, "--iterations", 12)
    said = capsys.readouterr().out
    assert "back from the noise: 0." in said
    assert "standard normal: 0 and 1" in said
    noise = read_tensors("back/noise.safetensors")["noise"]
    assert noise.shape == (1, 3, 64, 64)
    assert Image.open("back/strip.png").width > 4 * 64


def test_inversion_refuses_what_it_cannot_do(project, monkeypatch, capsys):
    Image.new("RGB", (40, 30), "red").save("red.png")
    Path("text.png").write_text("no picture")
    assert "has no class 'x'" in refusal(invert, monkeypatch, capsys, "red.png", "--rung", "faces", "--class", "x")
    assert "text.png can't be read: not a PNG" in refusal(invert, monkeypatch, capsys, "text.png", "--rung", "faces")
    assert "none.png can't be read: No such file" in refusal(invert, monkeypatch, capsys, "none.png", "--rung", "faces")
    assert "a rung of images only" in refusal(invert, monkeypatch, capsys, "red.png", "--rung", "moons")


def test_a_walk_begins_and_ends_with_the_pictures_of_its_seeds_and_classes(project, monkeypatch):
    rung = ["faces", "--steps", 3]
    ddim = ("--sampler", "ddim", "--eta", 0, "--spacing", "trailing", "--count", 1)
    call(sample, monkeypatch, *rung, *ddim, "--seed", 2, "--class", "male", "--out", "first")
    call(sample, monkeypatch, *rung, *ddim, "--seed", 5, "--class", "female", "--out", "last")
    asked = command_line.prepare("faces", interpolate.DETERMINISTIC | {"steps": 3})
    walk = interpolate.between(asked, ["male", "female"], [2, 5], 4)
    for name, image in (("first/male-000.png", walk[0]), ("last/female-000.png", walk[-1])):
        drawn = pixels(name).view(64, 64, 3).permute(2, 0, 1)
        assert (drawn.int() - image.int()).abs().max() <= 1
    changes = (walk[1:].int() - walk[:-1].int()).abs().float().mean(dim=(1, 2, 3))
    assert (changes > 0).all()
    call(interpolate, monkeypatch, *rung, "--class", "male", "--seeds", 2, 5, "--frames", 4, "--out", "walk.webp")
    with Image.open("walk.webp") as film:
        assert (film.n_frames, film.size) == (6, (256, 256))
    call(interpolate, monkeypatch, *rung, "--class", "male", "--class", "female", "--frames", 4)
    assert Image.open("drawn/faces/between.png").width > 4 * 64


def test_a_walk_refuses_what_it_cannot_do(project, monkeypatch, capsys):
    noisy = ("faces", "--class", "male", "--sampler", "ddpm")
    assert "ddpm adds noise" in refusal(interpolate, monkeypatch, capsys, *noisy)
    assert "must be told a class: --class female or male" in refusal(interpolate, monkeypatch, capsys, "faces")
    assert "moons draws points" in refusal(interpolate, monkeypatch, capsys, "moons")
    assert ".png or .webp" in refusal(interpolate, monkeypatch, capsys, "faces", "--out", "walk.gif")
    assert "two classes at most" in refusal(interpolate, monkeypatch, capsys, "faces", *["--class", "male"] * 3)


def test_a_loaded_model_draws_the_same_as_the_pipeline(project):
    model = diffusion_ladder.load("models/mnist_scratch")
    settings = {"sampler": "ddpm", "num_inference_steps": 3, "spacing": "linspace"}
    drawn = model.sample(["3", 3, 7], **settings)
    expected = of_pipeline("mnist_scratch", seeds=1, steps=3).unflatten(0, (10, 4))
    for image, (label, number) in zip(drawn, [(3, 0), (3, 1), (7, 0)], strict=True):
        assert (image.int() - expected[label, number].int()).abs().max() <= 1
    x_t, labels = torch.randn(2, 1, 28, 28), torch.tensor([0, 10])
    with torch.no_grad():
        assert model.network(x_t, torch.tensor([5, 900]), labels).shape == x_t.shape
    assert len(model.schedule.alpha_bar) == 1000
    assert model.class_names[9] == "9"
    points = diffusion_ladder.load("models/moons").sample(count=5, seed=1)
    assert (points.shape, points.dtype) == ((5, 2), torch.float32)


def test_a_loaded_model_refuses_what_there_is_not(project):
    model = diffusion_ladder.load(project / "models/mnist_scratch")
    for call, complaint in [
        (lambda: model.sample(["ten"]), "no class 'ten', but 0, 1"),
        (model.sample, "class_labels are needed"),
        (lambda: model.sample(["1"], sampler="euler"), "sampling.sampler: must be one of ddpm"),
        (lambda: model.sample(["1"], stepps=3), "sampling.stepps: unknown key"),
        (lambda: diffusion_ladder.load("models/moons").sample(["1"]), "class_labels must be left out"),
        (lambda: diffusion_ladder.load("models/moons").sample(guidance_scale=2.0), "without a null label"),
        (lambda: diffusion_ladder.load("models/none"), "models/none holds no trained model: rung.json is missing"),
    ]:
        with pytest.raises(UserError, match=complaint):
            call()
    assert not hasattr(diffusion_ladder, "loads")


@pytest.mark.slow
def test_the_commands_draw_the_samples_of_a_build(smoke):
    """With the precision and the threads of the stage, and by `make`."""
    given = read_tensors(smoke / "data/samples/faces.safetensors")
    chosen = given["samples"][(given["sampling_seed"] == 1) & (given["labels"] == 1)]
    command = ["make", "--no-print-directory", "--old-file=.venv/installed", "sample"]
    ran = run([*command, "RUNG=faces", "CLASS=male", "N=1", "SEED=1"], smoke)
    assert ran.returncode == 0, ran.stderr[-2000:]
    image = Image.open(smoke / "drawn/faces/male-000.png").convert("RGB")
    drawn = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    assert (drawn.permute(2, 0, 1).int() - chosen[0].int()).abs().max() <= 4  # batches differ, and bf16 rounds
    refused = run([*command, "RUNG=faces", "CLASS=cow"], smoke)
    assert refused.returncode != 0
    assert "sample: faces has no class 'cow', but female, male" in refused.stderr
