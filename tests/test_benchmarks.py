"""The benchmarks run, compare like with like, and their page says what their results say. No test asks how fast."""

import json
import sys

import pytest
import torch
from conftest import PROJECT, run

from diffusion_ladder.params.whole import load_parameters

MODELS = ["mnist_diffusers", "mnist_scratch", "faces"]


@pytest.fixture
def parameters():
    """Those of the smoke preset: small networks, one thread."""
    from diffusion_ladder.params.whole import validate
    from diffusion_ladder.presets import merged_parameters

    return validate(merged_parameters("smoke"), "smoke")


@pytest.fixture
def digits(tmp_path):
    """A few of the embedded digits, as the stages leave them, and a judge that has hardly learnt."""
    from diffusion_ladder.data.digits.dataset import fetch_embedded, parse_embedded
    from diffusion_ladder.data.normalise import IMAGES
    from diffusion_ladder.evaluation.classifier import new_classifier, save_classifier, train
    from diffusion_ladder.foundation.artifacts import write_tensors
    from diffusion_ladder.params.classifier import Classifier
    from diffusion_ladder.randomness import generator

    fetch_embedded(tmp_path)
    images, labels = (values[::10] for values in parse_embedded(tmp_path / "mnist_5k.csv.gz"))
    order = torch.randperm(len(images), generator=generator(0, "split"))
    tensors = {"train": images[order[:300]], "train_labels": labels[order[:300]],
               "test": images[order[300:]], "test_labels": labels[order[300:]]}  # fmt: skip
    write_tensors(tmp_path / "data/processed/mnist.safetensors", tensors, {"dataset": "mnist"})
    settings = Classifier(channels=[8, 16], feature_size=16, steps=60, batch_size=32, learning_rate=0.01,
                          weight_decay=0.01, shift=0, flip=False, min_accuracy=0)  # fmt: skip
    classifier = new_classifier((1, 28, 28), settings, 10, generator(0, "weights"))
    given = generator(0, "order"), generator(0, "augmentation")
    list(train(classifier, tensors["train"], tensors["train_labels"], IMAGES, settings, *given))
    save_classifier(classifier.eval(), tmp_path / "data/judges/mnist/classifier", {})
    return tmp_path


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


def test_judges_tell_digits_from_noise_and_hold_equal_sets(digits):
    import judges

    from diffusion_ladder.foundation.artifacts import read_tensors

    tensors = read_tensors(digits / "data/processed/mnist.safetensors")
    panel = judges.panel_of(digits / "data/judges/mnist/classifier", tensors, 60, steps=60)
    rest = [image for image in tensors["test"] if not (image == panel.reference).flatten(1).all(1).any()]
    assert len(rest) == len(tensors["test"]) - 60  # the second classifier's digits are no reference
    assert min(panel.accuracies.values()) > 0.4
    floor, noise = panel.floor(tensors["train"]), panel.distances(torch.randint(256, (60, 1, 28, 28)).byte())
    assert all(noise[name] > 2 * floor[name]["mean"] for name in ("own", "second", "random"))
    assert panel.distances(panel.reference) == pytest.approx(dict.fromkeys(noise, 0), abs=1e-6)
    with pytest.raises(ValueError, match="59 images"):
        panel.distances(panel.reference[1:])


def test_a_recipe_is_trained_by_the_clock_and_begins_the_same_every_time(digits):
    import course
    import peer

    from diffusion_ladder.foundation.artifacts import read_tensors

    tensors = read_tensors(digits / "data/processed/mnist.safetensors")
    given = peer.Digits(*(tensors[name][:16] for name in ("train", "train_labels", "test", "test_labels")))
    settings, mode = course.SETTINGS[0], peer.MODES[0]
    trainings = [peer.begin(course, settings, mode, given) for _ in range(2)]
    losses = [peer.held_out_loss(training.peer, given) for training in trainings]
    assert losses[0] == losses[1]
    training = trainings[0]
    for budget in (0.0, 1e-6, 1e-6):
        training.until(budget)
    assert training.steps == 1  # no step once the time is up
    assert training.seconds > 1e-6
    assert peer.held_out_loss(training.peer, given) != losses[0]
    drawn = training.peer.draw(10, 2)
    assert drawn.shape == (10, 1, 28, 28)
    assert drawn.dtype == torch.uint8


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    import denoising_diffusion

    from diffusion_ladder.foundation.errors import UserError

    monkeypatch.setattr(denoising_diffusion, "PACKAGES", tmp_path)
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    with pytest.raises(UserError, match=r"^the package denoising_diffusion_pytorch is missing.*make bench-peers.*$"):
        denoising_diffusion.load_package()


def test_ours_is_trained_as_many_steps_as_the_budget_has_room_for(digits, parameters, monkeypatch):
    import judges
    import peers

    from diffusion_ladder.foundation.artifacts import read_tensors

    tensors = read_tensors(digits / "data/processed/mnist.safetensors")
    panel = judges.panel_of(digits / "data/judges/mnist/classifier", tensors, 60, steps=1)
    match = peers.Match(parameters, tensors, panel, None)
    monkeypatch.setattr(peers, "seconds_per_step", lambda match, labelled: 0.5)
    labelled, unlabelled = (peers.our_run(match, 1.5, labelled) for labelled in (True, False))
    assert labelled["steps"] == unlabelled["steps"] == 3
    assert labelled["evaluations"] == parameters.rungs["mnist_scratch"].sampling.steps
    assert set(labelled["distances"]) == {"own", "second", "random"}
    assert labelled["distances"] != unlabelled["distances"]


def test_the_best_setting_of_a_peer_has_the_least_loss():
    import course
    import peer
    import peers

    tried = [{"settings": {"learning_rate": rate}, "held_out_loss": loss} for rate, loss in ((1, 0.3), (2, 0.1))]
    assert peers.Prepared(course, peer.MODES[0], {}, tried).settings == {"learning_rate": 2}


@pytest.fixture
def trained(tmp_path, digits, parameters):
    """A project with an untrained rung in it."""
    import training

    from diffusion_ladder.rungs import save_rung

    model = parameters.rungs["mnist_diffusers"]
    short = model.schedule.model_copy(update={"T": 40})
    drawn = model.sampling.model_copy(update={"steps": 25, "batch_size": 20})
    model = model.model_copy(update={"schedule": short, "sampling": drawn})
    images, labels = torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10)
    task = training.Task("mnist", model, images, labels, parameters.runtime)
    rung = training.our_rung(task, torch.device("cpu"))
    save_rung(rung, digits / "mnist_diffusers", {"class_names": [str(digit) for digit in range(10)]}, {})
    return model


def test_the_plain_loop_draws_what_our_loop_draws_with_all_steps(digits, parameters, trained):
    import sampling

    from diffusion_ladder.rungs import load_rung

    folder = digits / "mnist_diffusers"
    task = sampling.Task(load_rung(folder), folder, trained, wanted=40, judged=60)
    assert task.batches == [20, 20, 20]
    assert sampling.wanted_batches(task) == 2
    images = []
    measure = lambda drawn: images.append(drawn) or 0.0  # noqa: E731
    theirs = sampling.peer(task, measure)
    ours = sampling.ours(task, "diffusers_ddpm", "all", torch.float32, measure)
    assert theirs["evaluations"] == ours["evaluations"] == 40
    peers, own = (drawn.float() for drawn in images)
    assert peers.shape == own.shape == (60, 1, 28, 28)
    # A fresh network predicts zero, so both only scale noise: the same distribution from other noise.
    assert peers.mean().item() == pytest.approx(own.mean().item(), abs=6)
    assert peers.std().item() == pytest.approx(own.std().item(), rel=0.05)


def test_what_the_plain_loop_ends_with_is_unfolded(digits, parameters, trained, monkeypatch):
    import sampling

    from diffusion_ladder.data.normalise import normalise
    from diffusion_ladder.foundation.artifacts import read_tensors
    from diffusion_ladder.networks.embeddings import fold
    from diffusion_ladder.rungs import load_rung

    folder = digits / "mnist_diffusers"
    task = sampling.Task(load_rung(folder), folder, trained, wanted=20, judged=20)
    images = read_tensors(digits / "data/processed/mnist.safetensors")["test"][:20]
    settings = trained.network
    folded = fold(normalise(images, task.rung.normalisation), settings.patch_size, settings.folding == "haar")
    monkeypatch.setattr(sampling, "peer_batch", lambda *arguments: iter([torch.zeros(1), folded]))
    seen = []
    sampling.peer(task, lambda drawn: seen.append(drawn) or 0.0)
    assert torch.equal(seen[0], images)


def test_seconds_to_samples_are_compared_where_they_are_no_worse(digits, parameters, trained):
    import sampling

    from diffusion_ladder.rungs import load_rung

    folder = digits / "mnist_diffusers"
    task = sampling.Task(load_rung(folder), folder, trained, wanted=20, judged=20)
    found = sampling.compare(task, digits, parameters)
    names = {(row["name"], row["evaluations"]) for row in found["ours"]}
    assert {("ours, diffusers_ddpm", 25), ("ours, diffusers_ddpm", 10), ("ours, diffusers_dpm_solver", 20)} <= names
    limit = found["peer"]["distance"] + found["floor_deviation"]
    assert all(row["good"] == (row["distance"] <= limit) for row in found["ours"])
    assert [row["own"] for row in found["ours"]].count(True) == 1


@pytest.mark.parametrize("power", [1, 2, 0.5])
def test_an_exponent_is_that_of_the_power_law(power):
    import growth

    found = growth.growth_of([10, 40, 160], [3 * size**power for size in (10, 40, 160)])
    assert found["exponent"] == pytest.approx(power)
    assert found["between"] == pytest.approx([power, power])
    assert found["straight"]


def test_a_bent_line_is_said_to_be_one():
    import growth

    found = growth.growth_of([10, 40, 160], [10 + 0.1 * size**2 for size in (10, 40, 160)])
    assert not found["straight"]
    assert found["between"][1] > found["between"][0]


def test_every_task_of_growth_does_its_work(tmp_path, parameters):
    import growth
    import streaming

    streaming.write_shards(tmp_path / "offered", 12)
    for name, task in growth.TASKS.items():
        size = 256 if task.of == "pixels" else 20
        done = task.prepare(growth.Setting(size, tmp_path, parameters))()
        expected = {"fetch": 12, "filter_gender": 12, "preprocess": 12, "nearest neighbours": growth.QUERIES,
                    "training step": growth.STEPS, "sampling portraits": growth.DRAWN_SIDE,
                    "sampling digits": 20}  # fmt: skip
        assert done == expected.get(name, done)
        assert done > 0


def test_the_chart_of_growth_is_a_picture_with_every_line():
    import io

    import growth
    import growth_chart
    from PIL import Image

    rows = [{"factor": factor, "seconds": factor**0.9, "mib": 10.0 * factor} for factor in growth.FACTORS]
    curve = {"exponent": 1.0}
    found = {name: {"of": task.of, "rows": rows, "seconds": curve, "mib": curve} for name, task in growth.TASKS.items()}
    picture = Image.open(io.BytesIO(growth_chart.chart(found)))
    assert picture.width == growth_chart.WIDTH
    colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    wanted = [tuple(bytes.fromhex(colour[1:])) for colour in growth_chart.COLOURS]
    assert len(wanted) == len(growth.TASKS)
    assert set(wanted) <= colours


def test_generated_portraits_have_the_columns_and_the_size_of_the_hubs():
    import io

    import full_size
    from PIL import Image

    from diffusion_ladder.data.portraits.dataset import COLUMNS

    table = full_size.table(30)
    assert table.column_names == list(COLUMNS)
    images = [row["bytes"] for row in table["image"].to_pylist()]
    assert len(set(images)) == 30
    assert Image.open(io.BytesIO(images[7])).size == (421, 632)


@pytest.mark.slow
def test_the_stages_go_through_in_a_scratch_copy(tmp_path):
    import full_size

    found = full_size.measure(40, "smoke", 1, tmp_path)
    assert found["kept"] == 32  # of every ten, two have no class
    assert [stage["stage"] for stage in found["stages"]] == full_size.STAGES
    assert all(stage["seconds"] > 0 and stage["peak_memory_mib"] > 50 for stage in found["stages"])
    assert found["stages"][-1]["work"]["example trained on"]["count"] == found["batch_size"]


def run_of(recipe, ours, budget, distance):
    distances = {"own": distance, "second": 10 - distance, "random": distance}
    return {"recipe": recipe, "ours": ours, "budget": budget, "seconds": budget, "steps": 9, "images": 18,
            "sampler": "ddpm", "evaluations": 50, "sampling_seconds": 3.0, "distances": distances}  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """Results of every kind that the committed page might lack."""
    import machine

    facts = machine.facts(torch.device("cpu"))
    runs = [run_of("ours", True, 60, 3.0), run_of("peer", False, 60, 9.0), run_of("peer", False, 240, 4.0)]
    settings = {"settings": {"learning_rate": 0.001}, "mode": "bf16", "milliseconds": {"bf16": 7.0}, "trials": []}
    floor = {judge: {"mean": 1.25, "deviation": 0.25} for judge in ("own", "second", "random")}
    judged = {"accuracies": {"own": 0.98, "second": 0.96}, "floor": floor, "judge_images": 700}
    peers = {"samples": 300, "training_images": 4000, "peers": {"peer": settings}, "runs": runs, **judged}
    row = {"name": "ours, ddpm", "own": True, "evaluations": 50, "seconds": 2.0, "distance": 3.0, "good": True}
    plain = {"name": "plain", "evaluations": 1000, "seconds": 200.0, "distance": 3.5}
    rung = {"wanted": 64, "judged": 256, "floor": 1.0, "floor_deviation": 0.5, "peer": plain}
    sampled = {"rungs": {"faces": rung | {"ours": [row | {"fewer": 100.0}]}}}
    sizes = [{"size": 10 * factor, "seconds": factor, "mib": factor} for factor in (1, 4, 16)]
    curves = {"seconds": {"exponent": 1.0, "between": [1.0, 1.0], "straight": True},
              "mib": {"exponent": 0.5, "between": [0.2, 0.8], "straight": False}}  # fmt: skip
    grown = {"repeats": 2, "tasks": {"fetch": {"of": "rows", "rows": sizes, **curves}}}
    stage = {"stage": "train@faces", "seconds": 99.0, "peak_memory_mib": 2048.4}
    work = {"work": {"example trained on": {"count": 1280, "seconds": 80.0}}}
    full = {"preset": "full", "rows": 10_000, "image_size": [421, 632], "bytes": 4e8, "parameters": 9, "steps": 20,
            "batch_size": 64, "kept": 8000, "stages": [stage | work]}  # fmt: skip
    written = {"peers-x": peers, "sampling-x": sampled, "growth": grown, "full_size-x": full}
    for name, result in written.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"machine": facts, **result}))
    return tmp_path


def test_the_page_tells_every_kind_of_result(results):
    import page

    written = page.render(results)
    compared = "ours after 60 s is {} the best peer after 240 s: {} (peer)"
    assert "By the project's own judge, " + compared.format("ahead of", "3.00 against 4.00") in written
    assert "By the second judge, " + compared.format("behind", "7.00 against 6.00") in written
    assert "1.25 ± 0.25 |\n| ours | 60 | 60.0 | 9 | 18 | ddpm, 50 | 3 | 3.00 | 7.00 | 3.00 |\n" in written
    assert "| ours, ddpm (the rung's own) | 50 | 2.00 | 100.0 | 3.00 | yes |" in written
    assert "| fetch | 10 rows | 1, 4, 16 | 1.00 | yes | 1, 4, 16 | 0.50 | no: 0.20, then 0.80 |" in written
    assert "| `train@faces` | 99.0 | 2,048 | 4.00 |" in written
    for table in (lines for lines in written.split("\n\n") if lines.startswith("|")):
        assert len({line.replace("\\|", "").count("|") for line in table.strip().splitlines()}) == 1, table
