"""Full loops of the samplers written here agree with those of diffusers, to 1e-5 in float32 and 1e-10 in float64."""

import math
import re

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffusion_ladder.diffusion.targets import PREDICTION_TYPES
from diffusion_ladder.params.samplers import VARIANTS
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report import schedulers as tables
from diffusion_ladder.schedulers import ddim, parity
from diffusion_ladder.schedulers.parity import DTYPES, SPACINGS, Float64Sample, Loop

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # from diffusers' use of numpy

SETTINGS = load_parameters().scheduler_comparison
LIMITS = {"float32": 1e-5, "float64": 1e-10}


def agree(loop, **changes):
    """Whether the states of a loop agree; NaN in diffusers' own is known at zero terminal SNR with eta = 1 alone."""
    difference, noise_left = parity.compare(loop, SETTINGS.model_copy(update=changes), seed=0)
    if noise_left:  # known where the last timestep visited isn't the first
        assert (VARIANTS[loop.sampler].sampler.stochastic, loop.spacing) == (True, "trailing")
    if difference is None:
        assert (loop.sampler, loop.rescaled) == ("ddim_eta_1", True)
        return True
    return difference <= LIMITS[loop.dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sampler", VARIANTS)
def test_loops_of_ten_steps_agree_for_every_schedule_prediction_type_and_spacing(sampler, dtype):
    short = SETTINGS.model_copy(update={"steps": [10], "long_steps": 25})
    chosen = [loop for loop in parity.loops(short) if (loop.sampler, loop.dtype) == (sampler, dtype)]
    kinds = {(loop.schedule, loop.rescaled, loop.prediction_type, loop.spacing) for loop in chosen}
    schedules = len(VARIANTS[sampler].twin.schedules)
    rescaled = schedules * 2 * len(SPACINGS) if VARIANTS[sampler].sampler.rescales else 0
    assert len(kinds) == schedules * len(PREDICTION_TYPES) * len(SPACINGS) + rescaled
    assert [loop for loop in chosen if not agree(loop)] == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sampler", VARIANTS)
def test_loops_of_a_thousand_steps_agree(sampler, dtype):
    for schedule in VARIANTS[sampler].twin.schedules:
        for rescaled in {False, VARIANTS[sampler].sampler.rescales}:
            prediction_type = "v_prediction" if rescaled else "epsilon"
            loop = Loop(sampler, schedule, rescaled, dtype, prediction_type, "trailing", 1000)
            assert agree(loop), loop


@st.composite
def any_loop(draw):
    """A loop, and the settings that make its schedule: T, the betas, the data."""
    name = draw(st.sampled_from(sorted(VARIANTS)))
    variant = VARIANTS[name]
    rescaled = variant.sampler.rescales and draw(st.booleans())
    T = draw(st.integers(4, 1500))
    spacing = draw(st.sampled_from(SPACINGS))
    steps = draw(st.integers(2, min(60, T - 1)))
    assume(len(np.arange(T, 0, -T / steps)) == steps)  # where it overruns by one, diffusers visits the timestep -1
    loop = Loop(
        sampler=name,
        schedule=draw(st.sampled_from(variant.twin.schedules)),
        rescaled=rescaled,
        dtype=draw(st.sampled_from(sorted(DTYPES))),
        prediction_type=draw(st.sampled_from(PREDICTION_TYPES[1:] if rescaled else PREDICTION_TYPES)),
        spacing=spacing,
        steps=steps,
    )
    beta_start = draw(st.floats(1e-5, 1e-3))
    changes = {
        "T": T,
        "beta_start": beta_start,
        "beta_end": draw(st.floats(2 * beta_start, 0.03)),
        "data_mean": draw(st.floats(-1, 1)),
        "data_std": draw(st.floats(0.1, 1.5)),
    }
    return loop, changes


@given(any_loop())
@settings(max_examples=60, deadline=None)
def test_whatever_the_schedule_and_the_data_loops_agree(case):
    loop, changes = case
    assert agree(loop, **changes)


def test_a_slightly_wrong_step_is_found(monkeypatch):
    right = ddim.step_variance
    monkeypatch.setattr(ddim, "step_variance", lambda *alpha_bars: 1.0001 * right(*alpha_bars))
    for dtype in DTYPES:
        assert not agree(Loop("ddim_eta_1", "linear", False, dtype, "epsilon", "trailing", 50))
        assert agree(Loop("ddim_eta_0", "linear", False, dtype, "epsilon", "trailing", 50))


@pytest.mark.parametrize(
    ("sampler", "steps", "dtype", "expected"),
    [
        ("ddpm", 10, "float64", True),  # noise of the smallest variance, 1e-20, at t = 99
        ("ddpm", 1000, "float64", False),
        ("ddim_eta_0", 10, "float32", False),
        ("ddim_eta_0", 15, "float32", True),  # 1000 // 15 steps down from t = 66 is t = 0
        ("ddim_eta_1", 15, "float64", True),
        ("heun", 15, "float64", False),
        ("dpm_solver", 15, "float64", False),
    ],
)
def test_where_diffusers_leaves_noise_in_finished_samples_it_is_told(sampler, steps, dtype, expected):
    loop = Loop(sampler, "linear", False, dtype, "epsilon", "trailing", steps)
    difference, noise_left = parity.compare(loop, SETTINGS, seed=0)
    assert difference <= LIMITS[dtype]
    assert noise_left == expected


def test_a_state_of_ours_that_is_not_finite_is_an_infinite_difference(monkeypatch):
    monkeypatch.setattr(ddim, "step_variance", lambda *alpha_bars: torch.tensor(math.nan))
    loop = Loop("ddim_eta_1", "linear", False, "float64", "epsilon", "trailing", 5)
    assert parity.compare(loop, SETTINGS, seed=0).difference == math.inf


def test_diffusers_dpm_solver_rounds_float64_samples_unless_they_decline():
    scheduler = DPMSolverMultistepScheduler(prediction_type="sample")
    x = torch.full((1, 1), 1 / 3, dtype=torch.float64)
    stepped = []
    for sample in (x, x.as_subclass(Float64Sample)):
        scheduler.set_timesteps(5)
        scheduler.sigmas = scheduler.sigmas.double()
        stepped.append(scheduler.step(0 * x, scheduler.timesteps[0], sample).prev_sample.item())
    assert stepped[0] != stepped[1]
    assert stepped[0] == pytest.approx(stepped[1], rel=1e-6)
    assert x.as_subclass(Float64Sample).to(torch.float16).dtype == torch.float16


def test_the_tables_of_the_report_show_every_group():
    tiny = SETTINGS.model_copy(update={"steps": [2], "long_steps": 3, "T": 8, "sample_shape": [1, 2]})
    ticks = []
    found = parity.differences_by_group(tiny, 0, lambda: ticks.append(1))
    assert found["loops"] == len(ticks) == len(parity.loops(tiny))
    numbered = {key: index + 1 for index, key in enumerate(sorted(found))}
    report = tables.scheduler_report(numbered, tiny)
    shown = [cell for table in report.tables for _, cells in table.rows for cell in cells if cell != tables.NOTHING]
    assert sorted(shown, key=int) == [
        str(number) for key, number in numbered.items() if re.search("float(32|64)$", key)
    ]
    assert [len(table.exceeded) for table in report.tables] == [len(shown) // 2] * 2
    assert tables.scheduler_report({}, tiny) is None
