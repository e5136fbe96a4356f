"""The figures: what they show is recomputed from the artifacts; the files are the same in every process."""

import base64
import hashlib
import io
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy
import pytest
import torch
import yaml
from conftest import PROJECT, run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from diffusion_ladder.diffusion.schedules import make_schedule
from diffusion_ladder.figures import (
    canvas,
    encoding,
    evaluation,
    exhibit,
    mosaic,
    pairs,
    palette,
    points,
    process,
    samples,
    strips,
    training,
    ways,
)
from diffusion_ladder.foundation.artifacts import read_tensors, write_json, write_table, write_tensors, write_text
from diffusion_ladder.randomness import generator

MODELS = ("circles", "mnist_scratch", "faces")
SCHEDULE = {
    "name": "linear",
    "T": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.01,
    "rescale_betas_zero_snr": False,
    "prediction_type": "epsilon",
}
GREEN = tuple(round(255 * part) for part in to_rgb(palette.TRACKED))

# Draws several rungs in one process, and says whether pyplot, with its global state, was imported.
RENDER = """
import runpy, sys
script, *keys = sys.argv[1:]
for key in keys:
    sys.argv = [script, key]
    runpy.run_path(script, run_name="__main__")
print("pyplot" if "matplotlib.pyplot" in sys.modules else "no pyplot")
"""


def random_images(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def write_rung(folder: Path, model: str, dataset: str, tensors: dict, drawn: tuple, classes: int) -> None:
    """The artifacts of a rung as the stages write them; `drawn` are its samples and those of the comparison."""
    kind = "points" if tensors["train"].ndim == 2 else "digits" if tensors["train"].shape[1] == 1 else "portraits"
    mean, std = (tensors["train"].mean(0), tensors["train"].std(0)) if kind == "points" else ([0.5], [0.5])
    card = {
        "dataset": dataset,
        "kind": kind,
        "normalisation": {"mean": list(map(float, mean)), "std": list(map(float, std))},
    }
    card["class_names"] = ["female", "male"] if classes else ["0", "1"]
    write_tensors(folder / f"data/processed/{dataset}.safetensors", tensors, card)
    facts = {
        "model": model,
        "schedule": SCHEDULE,
        "num_classes": classes,
        "parameters": 1234,
        "images_seen": 5678,
        "final_loss": 0.0317,
        "zero_loss": 1.0,
    }
    write_json(folder / f"models/{model}/rung.json", card | facts)
    write_json(folder / f"reports/data/{dataset}.json", {"synthetic": kind != "digits"})
    columns = ["step", "loss", "learning_rate", "gradient_norm", *(f"loss_bin_{number}" for number in range(1, 9))]
    rows = [
        [step, 1 / step, 0.001 * step, 2 / step, *(1 / step / number for number in range(1, 9))]
        for step in range(1, 31)
    ]
    lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
    write_text(folder / f"reports/training/{model}.tsv", "\n".join(lines))
    previews = torch.stack([drawn[0][:8] // (4 - number) if kind != "points" else drawn[0] for number in range(3)])
    drawn_after = {"samples": previews, "steps": torch.tensor([3, 10, 30])}
    write_tensors(folder / f"data/samples/{model}.previews.safetensors", drawn_after, {})
    paths = {}
    for use, name, part in (("sampling", "ddpm", drawn[0]), ("comparison", "diffusers_ddim", drawn[1])):
        suffix = "" if use == "sampling" else ".comparison"
        how = {"model": model, "sampler": name, "nfe": 50, "guidance_scale": 1.0}
        labels = torch.arange(len(part)) * classes // len(part) if classes else torch.full((len(part),), -1)
        tensors = {"samples": part, "labels": labels, "sampling_seed": torch.zeros(len(part), dtype=torch.int64)}
        write_tensors(folder / f"data/samples/{model}{suffix}.safetensors", tensors, how)
        kept = part.unflatten(0, (max(1, classes), -1))[:, : 8 // max(1, classes)].flatten(0, 1)
        paths |= {f"{use}.{what}": kept.expand(4, *kept.shape).clone() for what in ("states", "predicted")}
        paths |= {f"{use}.timesteps": torch.tensor([999, 666, 333, 0]), f"{use}.final": kept.clone()}
    write_tensors(folder / f"data/samples/{model}.trajectories.safetensors", paths, {})
    write_tensors(folder / f"data/evaluation/{model}.safetensors", {}, {})
    write_json(folder / f"reports/metrics/{model}.json", {"default_is_cheapest_good": int(model == "circles")})
    write_table(folder / f"reports/tables/{model}/cost.tsv", costs("energy" if kind == "points" else "kernel"))
    if classes:
        values = {"nfe": 3, "label_accuracy_std": 0.02, "kernel_distance": 2.5, "kernel_distance_std": 0.1}
        rows = [{"scale": scale, "label_accuracy": 0.5 + scale / 10, **values} for scale in (0.0, 1.0, 3.0)]
        write_table(folder / f"reports/tables/{model}/guidance.tsv", rows)
        shares = {("female", "male"): 0.125, ("male", "female"): 0.25}
        rows = [
            {
                "requested": asked,
                "judged": seen,
                "share": shares.get((asked, seen), 0.8),
                "share_std": 0.1,
                "held_out": 1,
            }
            for asked in ("female", "male")
            for seen in ("female", "male")
        ]
        write_table(folder / f"reports/tables/{model}/confusion.tsv", rows)
    elif kind != "points":
        rows = [{"class": str(i), "share": 0.3 + i / 5, "share_std": 0.1, "held_out": 0.4} for i in range(2)]
        write_table(folder / f"reports/tables/{model}/class_shares.tsv", rows)


def test_a_matrix_of_confusions_shades_and_writes_the_shares():
    rows = [
        {
            "requested": str(i),
            "judged": str(j),
            "share": 0.9 if i == j else 0.1 * (j == 0),
            "share_std": 0,
            "held_out": i == j,
        }
        for i in range(3)
        for j in range(3)
    ]
    with canvas.house_style():
        figure = evaluation.confusion_figure(rows)
    samples, real = figure.axes
    assert [text.get_text() for text in samples.texts] == ["90", "0", "0", "10", "90", "0", "10", "0", "90"]
    assert [text.get_text() for text in real.texts] == ["100", "0", "0", "0", "100", "0", "0", "0", "100"]
    assert numpy.asarray(samples.images[0].get_array())[1].tolist() == [0.1, 0.9, 0]


def costs(metric: str) -> list[dict[str, float | str]]:
    """Two samplers at three costs each: the second one is best after 20 evaluations, and as good after 9."""
    return [
        {"sampler": sampler, "steps": nfe, "nfe": nfe, f"{metric}_distance": value, f"{metric}_distance_std": 0.2}
        | {"is_knee": int(nfe in (8, 9)), "is_cheapest_good": int(nfe == 9)}
        for sampler, points in (
            ("ddpm", [(4, 9.0), (8, 2.0), (20, 1.0)]),
            ("diffusers_heun", [(3, 8), (9, 0.1), (20, 0)]),
        )
        for nfe, value in points
    ]


def write_artifacts(folder: Path) -> None:
    """Small artifacts of three rungs, and parameters for small figures; the forward process as by default."""
    write_text(folder / "data/params_checked.txt", "")
    points = torch.randn(400, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 0.5]) + 3
    labels = {"train_labels": torch.arange(200) % 2, "test_labels": torch.arange(100) % 2}
    split = {"train": points[:200], "test": points[200:300], **labels}
    write_rung(folder, "circles", "circles", split, (points[300:], points[300:]), 0)
    for model, dataset, channels, classes in (("mnist_scratch", "mnist", 1, 0), ("faces", "faces", 3, 2)):
        images = random_images(400, channels, 8, 8, seed=channels)
        split = {"train": images[:200], "test": images[200:300], **labels}
        write_rung(folder, model, dataset, split, (images[300:340], images[340:360]), classes)
    parameters = yaml.safe_load((PROJECT / "params.yaml").read_text())
    for model in MODELS:
        parameters["rungs"][model]["figures"] |= {"panels": 3, "samples": 24}
    write_text(folder / "params.yaml", yaml.safe_dump(parameters))
    write_text(folder / "dvc.yaml", (PROJECT / "dvc.yaml").read_text())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> list[Path]:
    """Two folders with the same artifacts, drawn by the stage in processes as different as can be."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "another")]
    write_text(folders[1] / "matplotlibrc", "font.size: 30\nfont.family: serif\nlines.linewidth: 9\nsavefig.dpi: 50\n")
    surroundings = (
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"},
        {
            "PYTHONHASHSEED": "2",
            "LC_ALL": "C.UTF-8",
            "TZ": "Asia/Tokyo",
            "MATPLOTLIBRC": str(folders[1] / "matplotlibrc"),
        },
    )
    command = [sys.executable, "-c", RENDER, str(PROJECT / "stages/render.py"), *MODELS]
    for folder in folders:
        write_artifacts(folder)
    with ThreadPoolExecutor() as pool:
        source = str(PROJECT / "src")
        runs = [
            pool.submit(run, command, folder, PYTHONPATH=source, **environment)
            for folder, environment in zip(folders, surroundings, strict=True)
        ]
    for done in (each.result() for each in runs):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "no pyplot"
    return folders


def figures_of(folder: Path, model: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "reports/figures" / model).iterdir())}


def captions_of(folder: Path, model: str) -> list[dict[str, str]]:
    return json.loads((folder / "reports/figures" / model / "captions.json").read_text())


def film_of(folder: Path, model: str, name: str) -> dict:
    return json.loads((folder / "reports/figures" / model / f"{name}.film.json").read_text())


def pixels_of(folder: Path, model: str, file: str) -> numpy.ndarray:
    return numpy.asarray(Image.open(folder / "reports/figures" / model / file).convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_files_are_the_same_in_every_process(rendered, model):
    one, another = (
        {name: hashlib.sha256(data).hexdigest() for name, data in figures_of(folder, model).items()}
        for folder in rendered
    )
    assert one == another


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_captions_list_exactly_the_files(rendered, model):
    entries = captions_of(rendered[0], model)
    films = [entry["film"] for entry in entries if "film" in entry]
    assert sorted([*films, *(entry["file"] for entry in entries)]) == sorted(
        figures_of(rendered[0], model).keys() - {"captions.json"}
    )
    assert all(set(entry) - {"film"} == {"file", "title", "caption", "alt"} for entry in entries)
    assert all(all(entry.values()) for entry in entries)


@pytest.mark.slow
def test_captions_tell_numbers_of_the_artifacts(rendered):
    alpha_bar = numpy.cumprod(1 - numpy.linspace(1e-4, 0.01, 1000))
    captions = {entry["file"]: entry["caption"] for entry in captions_of(rendered[0], "circles")}
    assert f"{alpha_bar[-1] ** 0.5:.3g}" in captions["schedule.png"]
    assert f"t = {1 + int((alpha_bar < 0.5).argmax())} of 1000" in captions["schedule.png"]
    assert "1,234 parameters" in captions["training.png"]
    assert "5,678 noisy examples" in captions["training.png"]
    assert "(still: DDPM, 50 evaluations)" in captions["reverse.png"]
    assert "ends at 0.0317, 3.2 % of" in captions["training.png"]
    assert (
        "largest for t = 1 to 125 (0.0345) and smallest for t = 876 to 1000 (0.00431)"
        in captions["loss_by_timestep.png"]
    )
    assert "after 3, 10 and 30 steps" in captions["previews.png"]
    best = "best: Heun with 9 evaluations, {} this rung's samples are drawn"
    assert best.format("which is how") in captions["cost.png"]
    faces = {entry["file"]: entry for entry in captions_of(rendered[0], "faces")}
    assert best.format("but") in faces["cost.png"]["caption"]
    assert "goes from 0.50 to 0.80" in faces["guidance.png"]["alt"]
    assert "male was asked for and female found in 25.0 % of the samples" in faces["confusion.png"]["caption"]
    assert not {"guidance.png", "confusion.png", "class_shares.png"} & captions.keys()
    digits = {entry["file"]: entry["caption"] for entry in captions_of(rendered[0], "mnist_scratch")}
    assert "Farthest off is 0, 30.0 % of the samples and 40.0 % of the data" in digits["class_shares.png"]


@pytest.mark.slow
def test_films_of_points_hold_the_way_of_both_samplers(rendered):
    """Coordinates come back within half a step; the last frame is the finished samples."""
    paths = read_tensors(rendered[0] / "data/samples/circles.trajectories.safetensors")
    points = read_tensors(rendered[0] / "data/processed/circles.safetensors")["train"]
    scenes = film_of(rendered[0], "circles", "reverse")["scenes"]
    assert [scene["choices"]["Sampler"][:4] for scene in scenes] == ["DDPM", "diff"]
    for scene, use in zip(scenes, ("sampling", "comparison"), strict=True):
        assert scene["timesteps"] == [1000, 334, 1, 0]
        for panel, what in zip(scene["panels"], ("states", "predicted"), strict=True):
            expected = torch.cat([paths[f"{use}.{what}"][[0, 2, 3]], paths[f"{use}.final"][None]])
            expected = ((expected - points.mean(0)) / points.std(0)).numpy()
            steps = numpy.frombuffer(base64.b64decode(panel["points"]), numpy.uint8).reshape(4, panel["count"], 2)
            assert panel["count"] == 8
            assert numpy.abs(steps / 255 * 7 - 3.5 - expected).max() <= 3.5 / 255 + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("model", "classes"), [("mnist_scratch", [""]), ("faces", ["female", "male"])])
def test_films_of_images_lead_to_the_tiles_of_a_sampler_and_a_class(rendered, model, classes):
    paths = read_tensors(rendered[0] / f"data/samples/{model}.trajectories.safetensors")
    scenes = film_of(rendered[0], model, "reverse")["scenes"]
    assert len(scenes) == 2 * len(classes)
    for scene, (use, label) in zip(
        scenes, itertools.product(("sampling", "comparison"), range(len(classes))), strict=True
    ):
        sheet, (width, height) = pixels_of(rendered[0], model, scene["sheet"]), scene["tile"]
        assert scene["choices"].get("Class", "") == classes[label]
        assert len(scene["x"]) == len(scene["timesteps"]) == 4
        for row, sample in zip(
            scene["panels"][0]["rows"], paths[f"{use}.final"].chunk(len(classes))[label], strict=False
        ):
            x, y, scale = scene["x"][-1], scene["y"][row], width // 8
            tile = sheet[y : y + height : scale, x : x + width : scale].astype(int)
            expected = sample.permute(1, 2, 0).expand(8, 8, 3).numpy()
            other = numpy.roll(expected, 1, axis=0)
            assert numpy.abs(tile - expected).mean() < 0.4 * numpy.abs(tile - other).mean()


@pytest.mark.slow
def test_a_film_of_pairs_shows_one_sampler_and_one_class_in_the_same_places(rendered):
    scenes = film_of(rendered[0], "faces", "comparison")["scenes"]
    chosen = [(*scene["choices"].values(), scene["panels"][0]["rows"]) for scene in scenes]
    assert [(sampler[:4], name) for sampler, name, _ in chosen] == [
        ("DDPM", "female"), ("DDPM", "male"), ("diff", "female"), ("diff", "male"),
    ]  # fmt: skip
    assert [rows[0] for *_, rows in chosen] == [0, 2, 1, 3]
    assert sorted(row for *_, rows in chosen for row in rows) == list(range(len(scenes[0]["y"])))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_files_are_plain(rendered, model):
    for name, data in figures_of(rendered[0], model).items():
        if name.endswith(".png"):
            assert set(Image.open(io.BytesIO(data)).info) <= {"transparency"}, name
        elif name.endswith(".webp"):
            animation = Image.open(io.BytesIO(data))
            assert animation.is_animated
            assert animation.info["loop"] == 0
            assert len(data) < 350 * 1024


@pytest.mark.slow
def test_forward_process_is_drawn_from_the_equation(rendered):
    """The stage's forward.png shows the tracked point where sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon is."""
    train = read_tensors(rendered[0] / "data/processed/circles.safetensors")["train"]
    x_0 = ((train - train.mean(0)) / train.std(0))[0]
    epsilon = torch.randn((8, 2), generator=generator(0, "render", "circles", "forward"))[0]
    alpha_bar = numpy.cumprod(1 - numpy.linspace(1e-4, 0.01, 1000))
    pixels = pixels_of(rendered[0], "circles", "forward.png")
    with canvas.house_style():
        figure = points.contact_sheet(torch.zeros(50, 1, 2), range(20, 1001, 20), torch.zeros(1, 2), "", True)
    for axes, t in zip(figure.axes[:50], range(20, 1001, 20), strict=True):
        x_t = alpha_bar[t - 1] ** 0.5 * x_0 + (1 - alpha_bar[t - 1]) ** 0.5 * epsilon
        expected_x, expected_y = axes.transData.transform(x_t.numpy())
        left, bottom, right, top = (round(edge) for edge in axes.bbox.extents)
        panel = pixels[len(pixels) - top : len(pixels) - bottom, left:right]
        rows, columns = (panel == GREEN).all(-1).nonzero()
        assert len(rows) >= 10, "the tracked point is missing"
        assert left + columns.mean() + 0.5 == pytest.approx(expected_x, abs=1)
        assert top - rows.mean() - 0.5 == pytest.approx(expected_y, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "classes"), [("mnist_scratch", 1), ("faces", 2)])
def test_grid_shows_the_samples_pixel_by_pixel(rendered, model, classes):
    """24 of 40 samples: an equal share of each class, sample j of one class above sample j of the next."""
    drawn = read_tensors(rendered[0] / f"data/samples/{model}.safetensors")["samples"]
    rows = drawn.unflatten(0, (classes, -1))[:, : 24 // classes]  # (classes, n, channels, h, w)
    pixels = pixels_of(rendered[0], model, "samples.png")
    titles = ["female", "male"] if classes == 2 else []
    layout = mosaic.layout_of(rows, 12 if classes == 2 else 6, titles, [], None)
    scale = layout.tile_width // 8
    assert pixels.shape[:2] == layout.size[::-1]
    for row in range(classes):
        for column in range(24 // classes):
            x, y = layout.corner(row, column)
            tile = pixels[y : y + 8 * scale, x : x + 8 * scale].astype(int)
            expected = rows[row, column].permute(1, 2, 0).expand(8, 8, 3).numpy()
            difference = numpy.abs(tile - expected.repeat(scale, 0).repeat(scale, 1))
            assert difference.max() <= (255 / 31 / 2 + 1 if classes == 1 else 96)  # 32 greys, or 160 colours of noise
            assert difference.mean() <= 20


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mnist_scratch", "faces"])
def test_previews_stand_below_each_other_from_the_first_to_the_last(rendered, model):
    previews = read_tensors(rendered[0] / f"data/samples/{model}.previews.safetensors")["samples"]
    classes = ["female"] * 4 + ["male"] * 4 if model == "faces" else []
    titles = [f"step {step}" for step in (3, 10, 30)]
    layout = mosaic.layout_of(previews, mosaic.scale_of(previews), titles, classes, None)
    pixels = pixels_of(rendered[0], model, "previews.png")
    assert pixels.shape[:2] == layout.size[::-1]
    means = []
    for row in range(3):
        (left, top), (right, _) = layout.corner(row, 0), layout.corner(row, 7)
        means.append(pixels[top : top + layout.tile_height, left : right + layout.tile_width].mean())
    assert means == sorted(means)  # of the artifacts, too
    assert [previews[row].double().mean() for row in range(3)] == pytest.approx(means, abs=12)


@pytest.mark.parametrize("T", [8, 10, 1000])
def test_bins_of_timesteps_are_those_of_the_log(T):
    """The log counts timesteps from 0, the figures from 1."""
    for timestep in range(T):
        first, last = training.bin_bounds(timestep * 8 // T + 1, T)
        assert first <= timestep + 1 <= last


def test_forward_sheet_has_fifty_panels_by_default():
    assert ways.forward_timesteps(1000, 20) == list(range(20, 1001, 20))
    assert len(ways.forward_timesteps(1000, 50)) == 20


@given(T=st.integers(2, 3000), every=st.integers(1, 200))
def test_forward_timesteps_reach_the_end_in_equal_steps(T, every):
    timesteps = ways.forward_timesteps(T, every)
    gaps = numpy.diff([0, *timesteps])
    assert timesteps[-1] == T
    assert (gaps[:-1] == every).all()
    assert 0 < gaps[-1] <= every


@given(count=st.integers(1, 1000), limit=st.integers(1, 60))
def test_spread_keeps_the_first_and_at_most_so_many(count, limit):
    chosen = ways.spread(count, limit)
    assert len(chosen) == min(count, limit)
    assert chosen[0] == 0
    assert limit == 1 or chosen[-1] == count - 1
    gaps = numpy.diff(chosen)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("T", "panels"), [(250, 13), (10, 1)])
def test_contact_sheet_of_another_length(T, panels):
    schedule = make_schedule("linear", T, 1e-4, 0.01)
    x_0, epsilon = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(0))
    timesteps = ways.forward_timesteps(T, 20)
    states = ways.forward_states(x_0, epsilon, schedule.alpha_bar, timesteps)
    alpha_bar = numpy.cumprod(1 - numpy.linspace(1e-4, 0.01, T))[numpy.array(timesteps) - 1, None, None]
    expected = alpha_bar**0.5 * x_0.numpy() + (1 - alpha_bar) ** 0.5 * epsilon.numpy()
    numpy.testing.assert_allclose(states.numpy(), expected, rtol=1e-5, atol=1e-6)
    with canvas.house_style():
        figure = points.contact_sheet(states, timesteps, x_0, "data", clean_first=True)
        canvas.rasterise(figure)
    assert len(figure.axes) == panels + 2
    assert figure.axes[panels - 1].get_title(loc="left") == f"t = {T}"


def test_tracked_point_leaves_a_trail_in_animations():
    path = torch.stack([torch.linspace(-2, 2, 6), torch.zeros(6)], dim=1)[:, None]  # (6, 1, 2)
    with canvas.house_style():
        frames = list(points.points_frames({"points": path}, range(6)))
    trail = tuple(round(255 * part) for part in to_rgb(palette.TRAIL))
    lengths = [(numpy.asarray(frame.convert("RGB")) == trail).all(-1).sum() for frame in frames]
    assert lengths[0] == 0
    assert (numpy.diff(lengths) > 0).all()
    columns = [(numpy.asarray(frame.convert("RGB")) == GREEN).all(-1).nonzero()[1].mean() for frame in frames]
    assert numpy.diff(columns) == pytest.approx(0.8 / (2 * points.LIMIT) * points.ANIMATED_PANEL, abs=1)


def test_animations_rest_on_their_ends():
    assert ways.durations(5, 10) == [700, 100, 100, 100, 2000]
    assert [len(ways.durations(frames, 8)) for frames in (1, 2, 3)] == [1, 2, 3]


def test_reverse_strip_has_predictions_below_states():
    states, predicted = random_images(2, 5, 3, 1, 8, 8, seed=0)  # (F, K, ...) each
    with canvas.house_style():
        way = ways.Way("a sampler", [1000, 750, 500, 250, 0], states, predicted)
        figure, _ = strips.reverse_strip(way, ["", "", ""])
        pixels = numpy.asarray(canvas.rasterise(figure))
    titles = ["noisy", "predicted"] * 3
    layout = mosaic.layout_of(torch.zeros(6, 5, 1, 8, 8), 16, titles, ["t"] * 5, 2)
    for sample in range(3):
        for frame in range(5):
            for row, images in ((2 * sample, states), (2 * sample + 1, predicted)):
                x, y = layout.corner(row, frame)
                assert (pixels[y : y + 128 : 16, x : x + 128 : 16, 0] == images[frame, sample, 0].numpy()).all()


def test_first_examples_are_of_different_classes():
    labels = torch.tensor([3, 3, 1, 3, 2, 1])
    assert ways.first_of_each_class(labels, 3) == [2, 4, 0]
    assert ways.first_of_each_class(labels, 5) == [2, 4, 0, 5, 1]
    assert ways.first_of_each_class(labels, 100) == [2, 4, 0, 5, 1, 3]


@given(count=st.integers(1, 60), columns=st.integers(1, 20), groups=st.integers(1, 4))
def test_folding_keeps_tiles_of_equal_index_above_each_other(count, columns, groups):
    tiles = torch.arange(groups * count, dtype=torch.int64).view(groups, count)
    folded = samples.fold(tiles, columns)
    for group in range(groups):
        row = folded[group::groups].flatten()
        assert row[:count].tolist() == tiles[group].tolist()
        assert (row[count:] == 255).all()


@given(count=st.integers(1, 300), largest=st.integers(1, 40))
def test_grids_fill_their_last_row(count, largest):
    columns = samples.balanced_columns(count, largest)
    rows = -(-count // columns)
    assert columns <= largest
    assert rows == -(-count // largest)
    assert rows * columns - count < rows


@pytest.mark.parametrize("colours", [1, 2, 17, 256])
def test_palette_changes_no_pixel_of_a_picture_in_its_colours(colours):
    random = numpy.random.default_rng(colours)
    values = random.choice(2**24, colours, replace=False)
    chosen = [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in values]
    pixels = numpy.array(chosen, dtype=numpy.uint8)[random.integers(colours, size=(20, 30))]
    image = Image.fromarray(pixels)
    for converted in (palette.with_palette(image, chosen), Image.open(io.BytesIO(encoding.encode_png(image)))):
        assert converted.mode == "P"
        assert (numpy.asarray(converted.convert("RGB")) == pixels).all()


def test_palette_takes_the_nearest_colour():
    random = numpy.random.default_rng(0)
    pixels = random.integers(256, size=(9, 11, 3), dtype=numpy.uint8)
    chosen = [tuple(map(int, colour)) for colour in random.integers(256, size=(40, 3))]
    shown = numpy.asarray(palette.with_palette(Image.fromarray(pixels), chosen).convert("RGB")).astype(int)
    distances = ((pixels[:, :, None].astype(int) - numpy.array(chosen)) ** 2).sum(-1)  # (9, 11, 40)
    assert (((shown - pixels) ** 2).sum(-1) == distances.min(-1)).all()


def test_clean_images_keep_their_colours_beside_noise():
    """Of six flat colours, none may change much, though noise has all colours there are."""
    flat = random_images(6, 3, 1, 1, seed=0).expand(6, 3, 8, 8)
    colours = numpy.array(palette.picture_palette(flat, colours=48, greys=16))
    assert len(colours) <= 48 + 27 + 4
    distances = ((colours[:, None] - flat[:, :, 0, 0].numpy().astype(int)) ** 2).sum(-1) ** 0.5
    assert distances.min(0).max() <= 8
    assert len(palette.picture_palette(flat[:, :1], colours=48, greys=16)) == 16


def test_house_style_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with canvas.house_style():
        assert matplotlib.rcParams["font.size"] == canvas.TEXT_SIZE
    assert dict(matplotlib.rcParams) == before


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("dark", "light", "ratio"),
    [
        (palette.INK, "white", 4.5),
        (palette.GREY_INK, "white", 4.5),
        (palette.BLUE, "white", 4.5),
        (palette.TRACKED_EDGE, palette.CROWD, 3),
        (palette.TRACKED_EDGE, palette.TRACKED, 3),
        (palette.CROWD, "white", 3),
    ],
)
def test_contrast_does_not_depend_on_hue(dark, light, ratio):
    """Text and marks that carry meaning differ in lightness, as WCAG 2 asks for (1.4.3 and 1.4.11)."""
    assert (luminance(light) + 0.05) / (luminance(dark) + 0.05) >= ratio


def test_smoothing():
    assert training.smooth([2.0] * 7) == [2.0] * 7
    values = list(numpy.random.default_rng(0).normal(size=100))
    smoothed = training.smooth(values)
    assert smoothed[0] == values[0]
    assert smoothed[50] == pytest.approx(numpy.mean(values[45:56]))
    assert smoothed[-1] == pytest.approx(numpy.mean(values[94:]))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("T", [2, 10, 1000])
def test_schedule_figure_states_what_is_left_of_the_signal(name, T):
    schedule = make_schedule(name, T, 1e-4, 0.01)
    with canvas.house_style():
        figure = training.schedule_figure(schedule)
        canvas.rasterise(figure)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(f"= {float(schedule.alpha_bar[-1]) ** 0.5:.3g}" in text for text in texts)
    crossing = process.schedule_crossing(schedule)
    below = numpy.nonzero(schedule.alpha_bar.numpy() < 0.5)[0]
    assert crossing == (below[0] + 1 if len(below) else None)


def test_schedule_figure_of_zero_terminal_signal():
    schedule = make_schedule("linear", 100, 1e-4, 0.01, rescale_betas_zero_snr=True)
    with canvas.house_style():
        figure = training.schedule_figure(schedule)
        canvas.rasterise(figure)
    assert len(figure.axes[2].lines[0].get_xdata()) == 99


def test_samplers_have_names():
    facts = {"sampler": "diffusers_ddim", "nfe": 100, "guidance_scale": 2.5}
    assert exhibit.sampler_title(facts) == "diffusers DDIM, 100 evaluations, guidance 2.5"
    assert exhibit.sampler_title({"sampler": "heun", "nfe": 9, "guidance_scale": 1.0}) == "Heun, 9 evaluations"


def test_samples_of_the_same_noise_stand_above_each_other():
    shades = {"first": 40, "second": 200}
    sets = {title: torch.full((4, 1, 8, 8), shade, dtype=torch.uint8) for title, shade in shades.items()}
    alone = {"points": {"a": torch.zeros(4, 2), "b": torch.zeros(4, 2)}, "one": {"a": sets["first"]}}
    with canvas.house_style():
        (exhibit,) = pairs.exhibits({"digits": sets, **alone}, 3)
    assert exhibit.file == "same_noise_digits.png"
    assert "The first 3 samples of each" in exhibit.caption
    image = Image.open(io.BytesIO(exhibit.content)).convert("L")
    middle = [image.getpixel((image.width - image.width // 8, y)) for y in range(image.height)]
    assert middle.index(40) < middle.index(200)
    assert middle.count(40) == middle.count(200) > 0


def test_held_out_data_that_are_synthetic_are_marked_as_such():
    groups = torch.full((2, 6, 3, 32, 32), 250, dtype=torch.uint8)
    with canvas.house_style():
        real, marked = (samples.encode_grid(groups, ["one", "other"], 2, synthetic) for synthetic in (False, True))
    one, other = (numpy.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int) for content in (real, marked))
    assert (numpy.abs(one - other) > 10).mean() > 0.02
