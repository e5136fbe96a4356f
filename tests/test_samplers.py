"""The table of samplers: it is right about each sampler, nothing else names one, and a row and a file add one."""

import ast
import inspect
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import PROJECT

from diffusion_ladder.diffusion.timesteps import spaced_timesteps
from diffusion_ladder.params.samplers import (
    MODULES,
    NOISING_MODULES,
    ROWS,
    SAMPLERS,
    VARIANTS,
    is_library,
    module_beside,
)
from diffusion_ladder.report.equations import STEPS
from diffusion_ladder.report.excerpts import EXCERPTS, source_of

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # from diffusers' use of numpy

NAMED = {  # each makes use of one sampler, whichever the rung's own is
    "sampling/preview.py": {"ddim"},
    "interpolate.py": {"ddim"},
    "invert.py": {"ddim"},
    "model.py": {"dpm_solver"},
    "rungs.py": {"diffusers_ddpm"},
    "exercises/checks_of_training.py": {"ddpm"},
    "exercises/checks_of_sampling.py": {"ddpm"},
    "known_failures/small.py": {"ddim", "ddpm"},
}
FILES = [*sorted((PROJECT / "src/diffusion_ladder").rglob("*.py")), *sorted((PROJECT / "stages").glob("*.py"))]


def scheduler_of(module, **options):
    return import_module(f"diffusion_ladder.schedulers.{module}").Scheduler(**options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_sampler_is_named_outside_the_table(path):
    name = path.relative_to(PROJECT).as_posix().removeprefix("src/diffusion_ladder/")
    if name == "params/samplers.py":
        return
    constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert constants & (MODULES.keys() | VARIANTS.keys()) == NAMED.get(name, set())


@pytest.mark.parametrize("module", MODULES)
def test_the_table_tells_which_options_and_timesteps_a_scheduler_takes(module):
    row, scheduler = MODULES[module], scheduler_of(module, timestep_spacing="leading")
    scheduler_class = type(scheduler)
    own = not is_library(module)
    known = inspect.signature(scheduler_class).parameters if own else {**scheduler.config, "clip_sample": None}
    offered = SAMPLERS["ddpm"].options
    assert {option for option in offered if option in known} >= set(row.options)
    if own and not row.needs_place_for_data:  # the solver knows, and doesn't use, diffusers' variance_type
        assert {option for option in offered if option in known} == set(row.options)
    assert set(row.step_options) <= inspect.signature(scheduler_class.step).parameters.keys()
    assert ("rescale_betas_zero_snr" in known) == row.rescales
    assert scheduler.order == row.evaluations
    scheduler.set_timesteps(row.most_steps(1000, "leading"))
    for budget in (9, 10):
        scheduler.set_timesteps(row.steps_within(budget))
        assert budget - row.evaluations < len(scheduler.timesteps) <= budget


def test_only_who_leaves_the_data_a_place_visits_fewer_timesteps():
    for row in ROWS:
        for spacing in ("leading", "linspace", "trailing"):
            scheduler = scheduler_of(row.name, timestep_spacing=spacing)
            scheduler.set_timesteps(row.most_steps(1000, spacing))
            if row.most_steps(1000, spacing) < 1000:
                with pytest.raises(ValueError, match="takes 1 to 999"):
                    scheduler.set_timesteps(1000)
    assert [row.name for row in ROWS if row.needs_place_for_data] == ["dpm_solver"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_who_adds_noise_draws_it(row, eta):
    scheduler, draws = scheduler_of(row.name), torch.Generator().manual_seed(0)
    scheduler.set_timesteps(5)
    before, x = draws.get_state(), torch.ones(2, 3)
    options = {"eta": eta} if "eta" in row.step_options else {}
    scheduler.step(x, scheduler.timesteps[0], x, generator=draws, **options)
    assert torch.equal(draws.get_state(), before) != row.adds_noise(eta)


@pytest.mark.parametrize("module", MODULES)
def test_training_may_use_those_that_add_noise_as_ddpm_does(module):
    x0, noise, t = torch.ones(1, 2), torch.full((1, 2), 2.0), torch.tensor([700])
    scheduler = scheduler_of(module, beta_start=1e-4, beta_end=0.02)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[700]
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    assert torch.allclose(scheduler.add_noise(x0, noise, t), x_t, rtol=1e-4) or module not in NOISING_MODULES


def test_modules_are_those_of_the_folder_and_each_method_has_its_own_look():
    folder = PROJECT / "src/diffusion_ladder/schedulers"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "parity", "diffusers_interface"}
    assert MODULES.keys() == files
    for look in ("colour", "marker", "title"):
        assert len({getattr(row, look) for row in ROWS}) == len(ROWS)
    assert (module_beside("heun", "ddim"), module_beside("heun", "diffusers_ddim")) == ("heun", "diffusers_heun")
    assert [variant.title for variant in VARIANTS.values()][1:3] == ["DDIM, η = 0", "DDIM, η = 1"]


def test_the_report_quotes_the_pure_function_of_each_sampler_and_has_its_equation():
    sources = {excerpt.key: source_of(excerpt) for excerpt in EXCERPTS if excerpt.key.endswith("_step")}
    assert list(sources) == [row.step_function for row in ROWS] == [equation.key for equation in STEPS]
    for row in ROWS:
        assert sources[row.step_function].startswith(f"def {row.name}_step(")
        assert "self" not in sources[row.step_function]


def test_the_table_is_read_without_torch():
    program = (
        "import sys, diffusion_ladder.params.samplers; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(PROJECT / "src")})


def test_spacing_is_what_the_samplers_are_told():
    for row in ROWS:
        scheduler = scheduler_of(row.name, timestep_spacing="trailing")
        scheduler.set_timesteps(10)
        visited = dict.fromkeys(int(t) for t in scheduler.timesteps)
        assert list(visited) == spaced_timesteps("trailing", 1000, 10).tolist()


# A new sampler: one file and one row

EULER_ANCESTRAL = '''"""Euler's method with fresh noise in every step but the last, as in k-diffusion."""

import torch

from diffusion_ladder.schedulers import heun
from diffusion_ladder.schedulers.heun import heun_step, slope_at


def euler_ancestral_step(x, x0, sigma, following_sigma, noise=None):
    """x at the next sigma: down to where fresh noise lifts it up again."""
    up = (following_sigma**2 * (sigma**2 - following_sigma**2) / sigma**2) ** 0.5
    down = (following_sigma**2 - up**2) ** 0.5
    x = heun_step(x, sigma, down, slope_at(x, x0, sigma))
    return x if noise is None else x + up * noise


class Scheduler(heun.HeunDiscreteScheduler):
    order = 1

    def visit(self, timesteps, device=None):
        super().visit(timesteps, device)
        self.timesteps = timesteps.float().to(device)
        self.sigmas = self.sigmas_visited(self.schedule.sigma)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        position = self.position_of(timestep)
        sigmas = self.sigmas[position].item(), self.sigmas[position + 1].item()
        x0 = self.clipped(self.x0_of(model_output, sample, self.sigmas[position]))
        noise = self.noise_like(sample, generator) if sigmas[1] > 0 else None
        self.step_index = position + 1
        return self.output(euler_ancestral_step(sample, x0, *sigmas, noise), x0, return_dict)
'''
ROW = """    Sampler(
        "euler_ancestral",
        "Euler ancestral",
        colour="#cc79a7",
        marker="v",
        stochastic=True,
        options=("clip_sample",),
        rescales=False,
    ),
"""
PROGRAM = """
import io
from types import SimpleNamespace as Values

import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image, ImageColor
from torch import nn

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.figures.exhibit import sampler_title
from diffusion_ladder.figures.evaluation import cost_exhibit
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.report.equations import equations_of
from diffusion_ladder.report.excerpts import excerpts_of, source_of
from diffusion_ladder.report.words import sampler_name
from diffusion_ladder.rungs import Rung, build_scheduler
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.samplers import SAMPLERS
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.params.whole import validate
from diffusion_ladder.sampling.loop import Drawing, draw_samples
from diffusion_ladder.sampling.sweep import Setting, settings_by_table

NAME = "euler_ancestral"
betas = {"T": 1000, "beta_start": 1e-4, "beta_end": 0.02}
schedule = Schedule.model_construct(name="linear", prediction_type="epsilon", rescale_betas_zero_snr=False, **betas)
sampling = Values(
    sampler="ddim", spacing="trailing", eta=0.0, clip_sample=False, thresholding=None, guidance_scale=1.0,
    guidance_interval=None, variance_type="fixed_small", batch_size=8, trajectory_count=2, trajectory_frames=3,
)

# the scheduler is built by its name, and is the library's
ours = build_scheduler(NAME, schedule, timestep_spacing="trailing", clip_sample=False)
theirs = EulerAncestralDiscreteScheduler(1000, 1e-4, 0.02, timestep_spacing="trailing")
states = []
for scheduler in (ours, theirs):
    draws = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(12)
    x = torch.randn(4, 6, generator=draws) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        epsilon = torch.sin(scheduler.scale_model_input(x, t))
        x = scheduler.step(epsilon, t, x, generator=draws).prev_sample
    states.append(x)
torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)

# the sweep draws it at every cost, and its last step leaves no noise
sweep = Values(samplers=["ddim", NAME], evaluations=[5, 20], guidance=None)
settings = settings_by_table(sweep, sampling)["cost"]
assert settings[2:] == [Setting(NAME, 5, 1.0), Setting(NAME, 20, 1.0)]


class OnePoint(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.tensor(1.5))

    def forward(self, x, t, labels=None):
        alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t.long()][:, None]
        return (x - alpha_bar.sqrt() * self.place) / (1 - alpha_bar).sqrt()


network = Values(name="mlp")
plain = Normalisation(mean=(0.0,), std=(1.0,), bytes=False)
rung = Rung("one", "plane", OnePoint(), network, schedule, (2,), 0, None, plain)
drawn = draw_samples(Drawing(rung, NAME, sampling, settings[3].steps, 8, seed=0))
torch.testing.assert_close(drawn.samples, torch.full((8, 2), 1.5), atol=2e-3, rtol=0)
assert drawn.nfe == 20

# figures give it a title and a colour
row = {"energy_distance_std": 0.1, "is_knee": 0, "is_cheapest_good": 0}
rows = [row | {"sampler": s.sampler, "nfe": s.steps, "energy_distance": 1 / s.steps} for s in settings]
rows[-1]["is_cheapest_good"] = 1
exhibit = cost_exhibit(Findings({"default_is_cheapest_good": 0}, {"cost": rows}))
assert "Euler ancestral with 20 evaluations" in exhibit.caption
pixels = Image.open(io.BytesIO(exhibit.content)).convert("RGB").getcolors(1 << 20)
assert ImageColor.getrgb(SAMPLERS[NAME].colour) in {colour for _, colour in pixels}
facts = {"sampler": NAME, "nfe": 20, "guidance_scale": 1.0}
assert sampler_title(facts) == "Euler ancestral, 20 evaluations"

# the report names it and quotes it
schedulers, sampling.sampler = Values(training="ddpm", comparison="diffusers_ddim"), NAME
training = Values(ema_decay=0, label_dropout=0, loss_weight=None, pairing="optimal_transport", flip=0)
model = Values(schedule=schedule, schedulers=schedulers, training=training, network=network, dataset="plane")
assert sampler_name(NAME) == "Euler ancestral"
quoted = [excerpt for excerpt in excerpts_of(model, sampling) if excerpt.key.endswith("_step")]
assert [excerpt.title for excerpt in quoted] == ["One step of Euler ancestral"]
assert "def euler_ancestral_step" in source_of(quoted[0])
assert "ddim_step" in [equation.key for equation in equations_of(model, sampling, [])]

# the parameters may name it, and the checks know what it can't do
values = load_yaml("params.yaml")
rung = values["rungs"]["circles"]
rung["sampling"]["sampler"] = NAME
rung["sweep"]["samplers"] = ["ddim", NAME]
check_consistency(validate(values))
rung["schedule"] |= {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
for refused in ("starts at sigma", "adds noise"):
    try:
        check_consistency(validate(values))
    except ParameterError as error:
        assert f"{NAME} {refused}" in str(error), error
    else:
        raise AssertionError(refused)
    rung["schedule"]["rescale_betas_zero_snr"] = False
    rung["training"]["pairing"] = "optimal_transport"
"""


@pytest.mark.slow
def test_a_new_sampler_is_one_file_and_one_row(tmp_path):
    shutil.copytree(PROJECT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src/diffusion_ladder"
    (package / "schedulers/euler_ancestral.py").write_text(EULER_ANCESTRAL)
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    table = (package / "params/samplers.py").read_text()
    rows, rest = table.split("\n)\nSAMPLERS = ")
    (package / "params/samplers.py").write_text(f"{rows}\n{ROW})\nSAMPLERS = {rest}")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    environment = {"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
