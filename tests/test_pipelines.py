"""The folders of image rungs as pipelines of diffusers, in a process that can't see this project."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import pytest
import torch
from conftest import PROJECT

from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.foundation.artifacts import read_tensors
from diffusion_ladder.params.network import DiffusersUNetNetwork
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.randomness import seed_of
from diffusion_ladder.rungs import PIPELINE, Rung, build_network, load_rung, save_rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # from diffusers' use of numpy

NETWORK = {
    **{"name": "diffusers_unet", "block_out_channels": [8, 16], "layers_per_block": 1, "norm_groups": 4},
    **{"attention_levels": [False, True], "attention_head_size": 8, "scale_shift": True, "middle_attention": True},
    **{"time_embedding_size": 16, "patch_size": 2, "folding": "haar"},
}
SETTINGS = {
    **{"sampler": "diffusers_ddpm", "steps": 5, "spacing": "trailing", "variance_type": "fixed_small", "seeds": 2},
    **{"count": 4, "batch_size": 4, "comparison_steps": 5, "comparison_count": 4},
    **{"trajectory_count": 2, "trajectory_frames": 2, "clip_sample": True},
}
SAVED = {"timestep_spacing": "trailing", "clip_sample": True}


def rung(name="toy", shape=(3, 16, 16), classes=("cat", "dog"), null=True, prediction="v_prediction", **network):
    """A rung with random weights none of which is zero, so that every input counts."""
    settings = DiffusersUNetNetwork.model_validate(NETWORK | network)
    rows = len(classes) + null if classes else None
    schedule = Schedule(name="scaled_linear", T=1000, beta_start=8.5e-4, beta_end=0.012, prediction_type=prediction)
    built = build_network(settings, shape, rows, 0, name).eval()
    return Rung(
        model=name,
        dataset=name,
        network=built,
        settings=settings,
        schedule=schedule,
        sample_shape=shape,
        num_classes=len(classes),
        null_label=len(classes) if classes and null else None,
        normalisation=IMAGES,
    )


CONDITIONAL = rung()
GREY = rung("grey", (1, 16, 16), classes=(), prediction="epsilon", folding=None)
PLAIN = rung("plain", (1, 8, 8), classes=(), prediction="epsilon", patch_size=1, folding=None)
MANY = rung("many", (1, 8, 8), classes=tuple(f"class {i}" for i in range(12)), null=False)

# What is drawn: the rung, the scheduler in diffusers, how it is made from the saved one, its settings here, the call.
CASES = {
    "ddpm": (CONDITIONAL, None, {}, {}, {}),
    "guided": (CONDITIONAL, None, {}, {"guidance_scale": 2.5}, {"guidance_scale": 2.5}),
    "no class": (CONDITIONAL, None, {}, {"guidance_scale": 0.0}, {"guidance_scale": 0.0}),
    "guided in an interval": (
        CONDITIONAL,
        None,
        {"clip_sample": False, "timestep_spacing": "linspace"},
        {"guidance_scale": 3.0, "guidance_interval": [0.2, 0.7], "clip_sample": False, "spacing": "linspace"},
        {"guidance_scale": 3.0, "guidance_interval": [0.2, 0.7]},
    ),
    "ddim": (CONDITIONAL, "DDIMScheduler", {}, {"sampler": "diffusers_ddim"}, {}),
    "noisy ddim": (CONDITIONAL, "DDIMScheduler", {}, {"sampler": "diffusers_ddim", "eta": 0.7}, {"eta": 0.7}),
    "solver": (
        CONDITIONAL,
        "DPMSolverMultistepScheduler",
        {},
        {"sampler": "diffusers_dpm_solver", "clip_sample": False},
        {},
    ),
    "heun": (
        CONDITIONAL,
        "HeunDiscreteScheduler",
        {"clip_sample": False},
        {"sampler": "diffusers_heun", "clip_sample": False},
        {},
    ),
    "heun from less than all noise": (
        CONDITIONAL,
        "HeunDiscreteScheduler",
        {"clip_sample": False, "timestep_spacing": "leading"},
        {"sampler": "diffusers_heun", "clip_sample": False, "spacing": "leading"},
        {},
    ),
    "unconditional, folded": (GREY, None, {}, {}, {}),
    "unconditional, plain": (PLAIN, None, {}, {}, {}),
    "many classes": (MANY, None, {}, {"count": 12}, {}),
}

ELSEWHERE = """
import importlib.util, json, sys
sys.path.append(json.loads(sys.argv[1])["packages"])
for name in ("diffusion_ladder", "stages"):
    assert importlib.util.find_spec(name) is None, "this project can be seen from here"
from torchvision_import import repair_torchvision
repair_torchvision()
import diffusers, torch
from safetensors.torch import save_file

torch.set_num_threads(1)
drawn = {}
for name, case in json.loads(sys.argv[1])["cases"].items():
    pipe = diffusers.DiffusionPipeline.from_pretrained(case["folder"], trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    kind = getattr(diffusers, case["scheduler"] or "DDPMScheduler")
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **case["config"])
    generator = [torch.Generator().manual_seed(seed) for seed in case["seeds"]]
    images = pipe(generator=generator, num_inference_steps=5, output_type="pt", **case["call"]).images
    drawn[name] = (images * 255).round().byte().contiguous()
    if name == "ddpm":
        custom = diffusers.DiffusionPipeline.from_pretrained(
            case["folder"], custom_pipeline=case["folder"], trust_remote_code=True
        )
        labels = ["cat", "cat", "dog", "dog"]
        one = torch.Generator().manual_seed(1)
        assert custom(class_labels=labels, generator=one, num_inference_steps=2).images[3].size == (16, 16)
        x_T = torch.cat([torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(s)) for s in case["seeds"]])
        pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        given = [pipe(class_labels=labels, output_type="np", num_inference_steps=5, latents=x_T).images,
                 pipe(class_labels=labels, output_type="np", num_inference_steps=5, generator=[
                     torch.Generator().manual_seed(s) for s in case["seeds"]]).images]
        assert given[0].shape == (4, 16, 16, 3) and abs(given[0] - given[1]).max() < 1e-5
        pipe.save_pretrained("saved again")
        for call, complaint in [
            ({"class_labels": ["cow"]}, "there is no class 'cow', but cat, dog"),
            ({"class_labels": [2]}, "there is no class 2, but cat, dog"),
            ({"latents": x_T[:, :2]}, "latents have the shape (4, 2, 16, 16), and (1, 3, 16, 16) is needed"),
        ]:
            try:
                pipe(**call)
            except ValueError as error:
                assert str(error) == complaint, error
            else:
                raise AssertionError(complaint)
    if name == "many classes":
        assert pipe.class_names[:3] == ["class 0", "class 1", "class 2"]
        for call in ({"guidance_scale": 2.0, "class_labels": [1]}, {}):
            try:
                pipe(**call)
            except ValueError as error:
                assert "no null label" in str(error)
            else:
                raise AssertionError("guided without a null label")
assert not [name for name in sys.modules if name.startswith("diffusion_ladder")]
save_file(drawn, "drawn.safetensors")
"""


def ours(drawn, changes):
    settings = Sampling.model_validate(SETTINGS | changes)
    drawing = Drawing(drawn, settings.sampler, settings, settings.steps, settings.count, seed=0)
    return draw_samples(drawing).samples


def seeds_of(drawn, count):
    """Of the generators that `ours` draws its noise from: one for each sample of a class."""
    per_class = count // max(1, drawn.num_classes)
    return [seed_of(0, "sample", drawn.dataset, "noise", index % per_class) for index in range(count)]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What diffusers draws from the saved folders in another process, started in a folder of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(PROJECT / "src/diffusion_ladder/torchvision_import.py", folder)  # a repair of the environment
    cases = {}
    for name, (drawn, scheduler, config, changes, call) in CASES.items():
        models = folder / drawn.model
        if not models.exists():
            names = ["cat", "dog"] if drawn.num_classes == 2 else [f"class {i}" for i in range(drawn.num_classes)]
            save_rung(drawn, models, {"class_names": names}, SAVED)
        count = changes.get("count", 4)
        labels = [i // (count // drawn.num_classes) for i in range(count)] if drawn.num_classes else None
        shown = {"batch_size": count} if labels is None else {"class_labels": labels}
        entry = {"folder": str(models), "scheduler": scheduler, "config": config, "call": shown | call}
        cases[name] = entry | {"seeds": seeds_of(drawn, count)}
    given = json.dumps({"packages": sysconfig.get_path("purelib"), "cases": cases})
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    variables |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-S", "-W", "ignore", "-c", ELSEWHERE, given]  # -S: without this project's link
    ran = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_plain_diffusers_draws_the_same_pictures_from_the_same_noise(elsewhere, case):
    drawn, _, _, changes, _ = CASES[case]
    expected, found = ours(drawn, changes), read_tensors(elsewhere / "drawn.safetensors")[case]
    assert found.shape == expected.shape
    assert expected.float().std() > 20  # a picture, and not one grey
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.slow
def test_the_classes_and_the_guidance_of_the_pictures_count(elsewhere):
    drawn = read_tensors(elsewhere / "drawn.safetensors")
    assert (drawn["ddpm"][:2].int() - drawn["ddpm"][2:].int()).abs().float().mean() > 1
    for case in ("guided", "no class"):
        assert (drawn["ddpm"].int() - drawn[case].int()).abs().float().mean() > 1


@pytest.mark.slow
def test_a_pipeline_that_diffusers_saved_again_has_the_same_weights(elsewhere):
    again = read_tensors(elsewhere / "saved again/unet/diffusion_pytorch_model.safetensors")
    for name, weight in CONDITIONAL.network.unet.state_dict().items():
        assert torch.equal(weight, again[name])


def test_a_pipeline_s_folder_is_complete_and_holds_safetensors_alone(tmp_path):
    from diffusers import DDPMScheduler, UNet2DModel

    save_rung(CONDITIONAL, tmp_path / "toy", {"class_names": ["cat", "dog"]}, SAVED)
    assert sorted(file.name for file in (tmp_path / "toy").iterdir()) == [
        *("config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "pipeline.py", "rung.json"),
        "scheduler_config.json",
    ]
    index = json.loads((tmp_path / "toy/model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "LadderPipeline"]
    assert index["id2label"] == {"0": "cat", "1": "dog"}
    assert UNet2DModel.from_pretrained(tmp_path / "toy").config.num_class_embeds == 3
    config = DDPMScheduler.from_pretrained(tmp_path / "toy").config
    assert (config.prediction_type, config.beta_end, config.timestep_spacing) == ("v_prediction", 0.012, "trailing")
    loaded = load_rung(tmp_path / "toy")
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([3, 400]), torch.tensor([1, 2])
    with torch.no_grad():
        assert torch.equal(loaded.network(x, t, labels), CONDITIONAL.network(x, t, labels))
    save_rung(PLAIN, tmp_path / "plain", {"class_names": []}, SAVED)
    assert json.loads((tmp_path / "plain/model_index.json").read_text())["_class_name"] == "DDPMPipeline"
    assert not (tmp_path / "plain/pipeline.py").exists()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_rung(CONDITIONAL, tmp_path / name, {"class_names": ["cat", "dog"]}, SAVED)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_the_documentation_quotes_the_pipeline_as_it_is():
    quoted = re.findall(r"```py\n(def .*?)```", (PROJECT / "docs/models.md").read_text(), re.S)
    source = PIPELINE.read_text()
    functions = [part for block in quoted for part in re.split(r"\n+(?=def )", block.strip())]
    assert len(functions) > 1
    assert all(textwrap.indent(part, "    ") in source for part in functions)
