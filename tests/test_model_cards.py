"""What a model's card tells to load it is run as it stands there, by itself."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest
from conftest import PROJECT
from PIL import Image
from test_pipelines import NETWORK, SAVED

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.foundation.section import merge
from diffusion_ladder.params.network import network_settings
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report.content import Reader
from diffusion_ladder.report.loading import snippet_of
from diffusion_ladder.report.model_cards import cards_of
from diffusion_ladder.rungs import Rung, build_network, save_rung

PARAMETERS = load_parameters(PROJECT / "params.yaml")
CLASSES = {"mnist": [str(digit) for digit in range(10)], "faces": ["female", "male"]}
SHAPES = {"mnist": (1, 28, 28), "faces": (3, 64, 64), "circles": (2,), "moons": (2,)}


def small(key):
    """A rung of params.yaml with a network of next to nothing."""
    block = PARAMETERS.rungs[key]
    name, classes = block.network.name, CLASSES.get(block.dataset, []) if block.conditional else []
    points = {"name": name, "hidden_size": 8, "hidden_layers": 1, "time_embedding_size": 8}
    settings = network_settings(points if name == "mlp" else NETWORK | {"name": name})
    shape, rows = SHAPES[block.dataset], len(classes) + 1 if classes else None
    plane = Normalisation((0.0, 0.0), (1.0, 1.0), bytes=False)
    network = build_network(settings, shape, rows, 0, key)
    null, seen = len(classes) or None, plane if name == "mlp" else IMAGES
    return Rung(key, block.dataset, network, settings, block.schedule, shape, len(classes), null, seen), classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small models of all rungs, and their cards."""
    root = tmp_path_factory.mktemp("project")
    for key in PARAMETERS.rungs:
        rung, classes = small(key)
        (root / "models").mkdir(exist_ok=True)
        save_rung(rung, root / "models" / key, {"class_names": classes}, SAVED)
    return root


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.S)


def python(folder, code, *options, **environment):
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    variables |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, *options, "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_code_in_every_card_of_a_library_s_network_runs_without_this_project(folder):
    cards = cards_of(Reader(folder, PARAMETERS).report())
    keys = [key for key, rung in PARAMETERS.rungs.items() if rung.network.name == "diffusers_unet"]
    shutil.copy(PROJECT / "src/diffusion_ladder/torchvision_import.py", folder)  # a repair of the environment
    begin = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n"
    begin += "from torchvision_import import repair_torchvision; repair_torchvision()\n"
    end = "images[0].save(f'{key}.png'); assert len(images) == 2\n"
    code = begin + "\n".join(f"key = {key!r}\n{snippets(cards[key])[0]}{end}" for key in keys)
    ran = python(folder, code + "assert 'diffusion_ladder' not in sys.modules", "-S")
    assert ran.returncode == 0, ran.stderr[-2000:]
    for key in keys:
        assert Image.open(folder / f"{key}.png").size == SHAPES[PARAMETERS.rungs[key].dataset][:0:-1]
        assert "trust_remote_code" in cards[key]
        assert len(snippets(cards[key])) == 1


@pytest.mark.slow
def test_the_code_in_every_card_of_a_network_from_scratch_runs(folder):
    cards = cards_of(Reader(folder, PARAMETERS).report())
    keys = [key for key, rung in PARAMETERS.rungs.items() if rung.network.name != "diffusers_unet"]
    code = "\n".join(f"{snippets(cards[key])[0]}print(tuple(samples.shape), samples.dtype)" for key in keys)
    ran = python(folder, code, PYTHONPATH=str(PROJECT / "src"))
    assert ran.returncode == 0, ran.stderr[-2000:]
    expected = {"mlp": "(4, 2) torch.float32", "unet": "(2, 1, 28, 28) torch.uint8"}
    assert ran.stdout.splitlines() == [expected[PARAMETERS.rungs[key].network.name] for key in keys]


def test_every_card_tells_use_data_quality_and_limits(folder):
    for card in cards_of(Reader(folder, PARAMETERS).report()).values():
        titles = re.findall(r"^## (.*)$", card, re.M)
        assert titles == ["Intended use", "How to load it", "Data", "Evaluation", "Limitations"]


def test_the_code_draws_as_the_rung_s_own_samples_are_drawn():
    rung = PARAMETERS.rungs["faces"]
    changed = Sampling.model_validate(
        merge(
            rung.sampling.model_dump(),
            {"sampler": "ddim", "guidance_scale": 3.0, "guidance_interval": [0.1, 0.8], "eta": 0.5, "steps": "all"},
        )
    )
    code = snippet_of("faces", rung.model_copy(update={"sampling": changed}), ['it"s', "b"])
    compile(code, "card", "exec")
    for part in ("DDIMScheduler.from_config", "num_inference_steps=1000", "guidance_scale=3.0", "eta=0.5"):
        assert part in code
    assert "guidance_interval=[0.1, 0.8]" in code
    own = snippet_of(
        "faces",
        rung.model_copy(update={"sampling": changed, "network": PARAMETERS.rungs["mnist_scratch"].network}),
        ["a"],
    )
    assert 'model.sample(class_labels=["a"], sampler="ddim", num_inference_steps=1000, guidance_scale=3.0' in own
    unconditional = rung.model_copy(update={"conditional": False})
    assert "batch_size=4" in snippet_of("faces", unconditional, ["a"])
    plain = unconditional.model_copy(
        update={"network": rung.network.model_copy(update={"patch_size": 1, "folding": None})}
    )
    assert "trust_remote_code" not in snippet_of("faces", plain, [])


def test_the_code_keeps_x_0_in_range_as_the_rung_does():
    rung = PARAMETERS.rungs["faces"]
    cases = {
        'clip_sample=True, variance_type="fixed_large"': {"clip_sample": True, "variance_type": "fixed_large"},
        "thresholding=True, sample_max_value=1.0": {"clip_sample": True, "sampler": "diffusers_dpm_solver"},
        "thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=2.0": {
            "thresholding": {"ratio": 0.9, "max_value": 2.0}
        },
    }
    for part, changes in cases.items():
        sampling = Sampling.model_validate(merge(rung.sampling.model_dump(), changes))
        assert part in snippet_of("faces", rung.model_copy(update={"sampling": sampling}), ["a", "b"])
