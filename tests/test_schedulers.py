"""The samplers against closed forms for Gaussian data, against diffusers, and against its published numbers."""

import copy
import importlib
import inspect
import itertools
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers.schedulers.scheduling_ddim as diffusers_ddim
import diffusers.schedulers.scheduling_ddpm as diffusers_ddpm
import diffusers.schedulers.scheduling_dpmsolver_multistep as diffusers_dpm_solver
import diffusers.schedulers.scheduling_heun_discrete as diffusers_heun
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from diffusion_ladder import schedulers
from diffusion_ladder.diffusion.noise import draw_noise
from diffusion_ladder.schedulers import ddim, ddpm, dpm_solver, heun
from diffusion_ladder.torchvision_import import repair_torchvision

OURS = {"ddpm": ddpm.DDPMScheduler, "ddim": ddim.DDIMScheduler}
PUBLIC = {"ddpm": schedulers.DDPMScheduler, "ddim": schedulers.DDIMScheduler}
THEIRS = {"ddpm": diffusers_ddpm.DDPMScheduler, "ddim": diffusers_ddim.DDIMScheduler}
SPACINGS = ["leading", "linspace", "trailing"]
PREDICTION_TYPES = ["epsilon", "sample", "v_prediction"]
VARIANCE_TYPES = ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"]
SAMPLE_SIZE = 768  # diffusers' own test sample

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # from diffusers' use of numpy
kinds = pytest.mark.parametrize("kind", ["ddpm", "ddim"])


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def diffusers_test_sample() -> Tensor:
    """The sample of diffusers' scheduler tests: 0 ... 767 over 768 as (4, 3, 8, 8)."""
    return (torch.arange(SAMPLE_SIZE) / SAMPLE_SIZE).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)


def diffusers_test_model(x: Tensor, t: Tensor | int) -> Tensor:
    return x * t / (t + 1)


def sample_with(scheduler: Any, x: Tensor, model: Callable[[Tensor, Any], Tensor], **options: Any) -> Tensor:
    """The sampling loop, once for every scheduler."""
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, **options).prev_sample
    return x


# Against diffusers


def run(scheduler: Any, dtype: torch.dtype, steps: int = 8, **options: Any) -> Tensor:
    """A full loop on a small sample with a model of x and t; twice the channels for a learned variance."""
    learned = str(scheduler.config.get("variance_type")).startswith("learned")

    def model(x: Tensor, t: Tensor) -> Tensor:
        prediction = x * (t + 1) / (t + 2)
        return torch.cat([prediction, 0.3 * x.abs() + 0.01], dim=1) if learned else prediction

    scheduler.set_timesteps(steps)
    x = torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).reshape(2, 3, 2, 2).to(dtype)
    draws = generator()
    for t in scheduler.timesteps:
        step = scheduler.step(model(x, t), t, x, generator=draws, **options)
        x = step.prev_sample
    if isinstance(scheduler, THEIRS["ddpm"]) and scheduler.timesteps[-1] > 0:
        return step.pred_original_sample  # diffusers adds noise in this last step, ours doesn't
    return x


def in_float64(theirs: Any, ours: Any) -> Any:
    """diffusers' scheduler with our exact alpha_bar in place of its float32 product."""
    theirs.alphas_cumprod = ours.schedule.alpha_bar
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    if hasattr(ours, "final_alpha_cumprod"):
        theirs.final_alpha_cumprod = ours.final_alpha_cumprod
    return theirs


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_like_diffusers(kind: str, config: dict[str, Any], **options: Any) -> None:
    ours, public, theirs = (family[kind](**config) for family in (OURS, PUBLIC, THEIRS))
    expected = run(theirs, torch.float32, **options)
    assert relative_error(run(public, torch.float32, **options), expected) < 1e-5, config
    # exact coefficients differ from diffusers' float32 ones by their rounding, 1e-4 of 1 - alpha_bar at t = 0
    assert relative_error(run(ours, torch.float32, **options), expected) < 1e-4, config
    expected = run(in_float64(theirs, ours), torch.float64, **options)
    for scheduler in (ours, public):
        assert relative_error(run(scheduler, torch.float64, **options), expected) < 1e-10, config


@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
@pytest.mark.parametrize("clip_sample", [True, False])
def test_ddpm_is_diffusers_ddpm(variance_type: str, clip_sample: bool) -> None:
    names = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
    for name, prediction_type, spacing in itertools.product(names, PREDICTION_TYPES, SPACINGS):
        config = {"beta_schedule": name, "prediction_type": prediction_type, "timestep_spacing": spacing}
        assert_like_diffusers("ddpm", {**config, "variance_type": variance_type, "clip_sample": clip_sample})


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip_sample", [True, False])
def test_ddim_is_diffusers_ddim(eta: float, clip_sample: bool) -> None:
    names = ["linear", "scaled_linear", "squaredcos_cap_v2"]
    for name, prediction_type, spacing in itertools.product(names, PREDICTION_TYPES, SPACINGS):
        config = {"beta_schedule": name, "prediction_type": prediction_type, "timestep_spacing": spacing}
        assert_like_diffusers("ddim", {**config, "clip_sample": clip_sample}, eta=eta)


OPTIONS: list[dict[str, Any]] = [
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8},
    {"clip_sample_range": 0.3},
    {"steps_offset": 1},
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"rescale_betas_zero_snr": True, "prediction_type": "sample", "timestep_spacing": "linspace"},
    {"num_train_timesteps": 20, "trained_betas": np.linspace(0.01, 0.3, 20)},
    {"num_train_timesteps": 100},
]


@kinds
@pytest.mark.parametrize("config", OPTIONS, ids="-".join)
def test_options_are_those_of_diffusers(kind: str, config: dict[str, Any]) -> None:
    assert_like_diffusers(kind, config)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("use_clipped_model_output", [True, False])
def test_ddim_options_are_those_of_diffusers(set_alpha_to_one: bool, use_clipped_model_output: bool) -> None:
    config = {"set_alpha_to_one": set_alpha_to_one, "beta_start": 0.01, "clip_sample_range": 0.5}
    options = {"eta": 0.3, "use_clipped_model_output": use_clipped_model_output}
    assert_like_diffusers("ddim", config, **options)
    stepped = []
    for scheduler in (OURS["ddim"](**config), THEIRS["ddim"](**config)):
        scheduler.set_timesteps(10)  # one step on which the clip bites, while the loop's end hides it
        x = torch.tensor([[2.0, -3.0]])
        stepped.append(scheduler.step(-0.5 * x, 100, x, generator=generator(), **options).prev_sample)
    assert relative_error(*stepped) < 1e-5


def test_ddpm_with_custom_timesteps_is_diffusers_ddpm() -> None:
    ours, theirs = PUBLIC["ddpm"](), THEIRS["ddpm"]()
    x = diffusers_test_sample()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(timesteps=[900, 700, 123, 4, 0])
    found, expected = (
        sample_with(each, x, diffusers_test_model, generator=generator()) for each in (in_float64(theirs, ours), ours)
    )
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_more_steps_than_diffusers_tests_visit_agree_too(eta: float) -> None:
    assert_like_diffusers("ddim", {"timestep_spacing": "trailing"}, steps=250, eta=eta)
    assert_like_diffusers("ddpm", {"timestep_spacing": "trailing"}, steps=250)


def test_fixed_large_log_is_fixed_large_where_diffusers_gives_nan() -> None:
    config = {"variance_type": "fixed_large_log"}
    assert run(THEIRS["ddpm"](**config), torch.float64).isnan().any()
    expected = run(OURS["ddpm"](variance_type="fixed_large"), torch.float64)
    assert torch.allclose(run(OURS["ddpm"](**config), torch.float64), expected, rtol=1e-12)
    log_variance = OURS["ddpm"](**config)._get_variance(500)
    assert log_variance.item() == pytest.approx(THEIRS["ddpm"](**config)._get_variance(500).item(), rel=1e-4)


def test_an_unknown_variance_type_is_fixed_small_as_in_diffusers() -> None:
    expected = run(OURS["ddpm"](), torch.float64)
    assert torch.equal(run(OURS["ddpm"](variance_type="other"), torch.float64), expected)


# Against diffusers' published numbers


def families(kind: str) -> list[Any]:
    return [OURS[kind], PUBLIC[kind]]


def test_ddpm_variance_as_published() -> None:
    for family in families("ddpm"):
        scheduler = family()
        for t, variance in [(0, 0.0), (487, 0.00979), (999, 0.02)]:
            assert scheduler._get_variance(t).item() == pytest.approx(variance, abs=1e-5)


def test_ddim_variance_as_published() -> None:
    pairs = {(0, 0): 0.0, (420, 400): 0.14771, (980, 960): 0.32460, (487, 486): 0.00979, (999, 998): 0.02}
    for family in families("ddim"):
        scheduler = family()
        for (t, previous_t), variance in pairs.items():
            assert scheduler._get_variance(t, previous_t).item() == pytest.approx(variance, abs=1e-5)


@pytest.mark.parametrize(
    ("config", "sum_of_magnitudes"),
    [
        ({}, 172.0067),
        ({"prediction_type": "v_prediction"}, 52.5302),
        ({"beta_start": 0.01}, 149.8295),
        ({"beta_start": 0.01, "set_alpha_to_one": False}, 149.0784),
    ],
)
def test_ddim_loop_as_published(config: dict[str, Any], sum_of_magnitudes: float) -> None:
    for family in families("ddim"):
        scheduler = family(**config)
        scheduler.set_timesteps(10)
        x = sample_with(scheduler, diffusers_test_sample(), diffusers_test_model)
        assert x.abs().sum().item() == pytest.approx(sum_of_magnitudes, abs=1e-2)


@pytest.mark.parametrize(("prediction_type", "sum_of_magnitudes"), [("epsilon", 258.9606), ("v_prediction", 202.0296)])
def test_ddpm_loop_as_published(prediction_type: str, sum_of_magnitudes: float) -> None:
    for family in families("ddpm"):
        scheduler = family(prediction_type=prediction_type)
        x = sample_with(scheduler, diffusers_test_sample(), diffusers_test_model, generator=generator())
        assert x.abs().sum().item() == pytest.approx(sum_of_magnitudes, abs=1e-2)


# Against closed forms: data N(mean, std^2), for which the best prediction of x_0 is known


def best_x0(x_t: Tensor, alpha_bar: float, mean: float, std: float) -> Tensor:
    """E[x_0 | x_t] of a Gaussian: linear regression of x_0 on x_t."""
    gain = math.sqrt(alpha_bar) * std**2 / (alpha_bar * std**2 + 1 - alpha_bar)
    return mean + gain * (x_t - math.sqrt(alpha_bar) * mean)


def gaussian_scheduler(kind: str, **config: Any) -> Any:
    """A light scheduler that is told x_0 and leaves it as it is."""
    return OURS[kind](prediction_type="sample", clip_sample=False, beta_end=0.01, **config)


def posterior(x0: float, x_t: float, alpha_bar: float, alpha_bar_previous: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), by Bayes' rule for Gaussians: precisions add up."""
    if alpha_bar_previous == 1:
        return x0, 0.0
    alpha = alpha_bar / alpha_bar_previous
    prior, likelihood = 1 / (1 - alpha_bar_previous), alpha / (1 - alpha)
    mean = math.sqrt(alpha_bar_previous) * x0 * prior + x_t / math.sqrt(alpha) * likelihood
    return mean / (prior + likelihood), 1 / (prior + likelihood)


@pytest.mark.parametrize("steps", [1000, 50, 7])
def test_ddpm_steps_are_bayes_rule(steps: int) -> None:
    scheduler = gaussian_scheduler("ddpm", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    alpha_bars = [*scheduler.schedule.alpha_bar[scheduler.timesteps].tolist(), 1.0]
    x0, x_t = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-1.7]], dtype=torch.float64)
    z = torch.randn((1, 1), generator=generator(), dtype=torch.float64).item()
    for i, t in enumerate(scheduler.timesteps):
        mean, variance = posterior(0.3, -1.7, alpha_bars[i], alpha_bars[i + 1])
        found = scheduler.step(x0, t, x_t, generator=generator()).prev_sample.item()
        assert found == pytest.approx(mean + math.sqrt(variance) * z, rel=1e-9), t


def affine_step(scheduler: Any, t: Tensor, mean: float, std: float, **options: Any) -> tuple[float, float]:
    """Slope and offset of the deterministic part of a step, for the best prediction on Gaussian data."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    x0 = best_x0(x, scheduler.schedule.alpha_bar[t].item(), mean, std)
    at_zero, at_one = scheduler.step(x0, t, x, **options).prev_sample.flatten().tolist()
    return at_one - at_zero, at_zero


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_with_the_true_x0_keeps_every_marginal(eta: float) -> None:
    """DDIM, section 3.1: whatever eta, x at each timestep is N(sqrt(alpha_bar) x_0, 1 - alpha_bar)."""
    scheduler = gaussian_scheduler("ddim", timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    alpha_bar = scheduler.schedule.alpha_bar
    x_mean, x_variance = math.sqrt(alpha_bar[-1].item()) * 0.7, 1 - alpha_bar[-1].item()
    no_noise = torch.zeros(2, 1, dtype=torch.float64)
    for t in scheduler.timesteps:
        slope, offset = affine_step(scheduler, t, mean=0.7, std=0.0, eta=eta, variance_noise=no_noise)
        previous_t = scheduler.previous_timestep(t)
        sigma = eta * math.sqrt(scheduler._get_variance(int(t), previous_t).item())
        x_mean, x_variance = slope * x_mean + offset, slope**2 * x_variance + sigma**2
        signal = alpha_bar[previous_t].item() if previous_t >= 0 else 1.0
        assert (x_mean, x_variance) == pytest.approx((math.sqrt(signal) * 0.7, 1 - signal), abs=1e-12)


def test_ddim_turns_standard_normal_data_by_the_angle_between_timesteps() -> None:
    """For N(0, 1), x_t = cos x_0 + sin epsilon on a circle: a step scales x by the cosine of the angle it turns."""
    scheduler = gaussian_scheduler("ddim", timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    angles = [math.acos(math.sqrt(a)) for a in [*scheduler.schedule.alpha_bar[scheduler.timesteps].tolist(), 1.0]]
    for t, angle, next_angle in zip(scheduler.timesteps, angles, angles[1:], strict=False):
        slope, offset = affine_step(scheduler, t, mean=0.0, std=1.0)
        assert (slope, offset) == (pytest.approx(math.cos(angle - next_angle), rel=1e-9), 0.0)


def flow_error(scheduler: Any, steps: int, mean: float = 0.5, std: float = 0.3) -> float:
    """How far a deterministic sampler lands from the exact flow, which keeps each sample's quantile."""
    scheduler.set_timesteps(steps)
    alpha_bar = scheduler.schedule.alpha_bar
    last = alpha_bar[-1].item()
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1)
    exact = mean + std * (x_T - math.sqrt(last) * mean) / math.sqrt(last * std**2 + 1 - last)
    x = sample_with(scheduler, x_T, lambda x, t: best_x0(x, alpha_bar[t].item(), mean, std))
    return (x - exact).abs().max().item()


def test_ddim_converges_to_the_exact_flow_at_first_order() -> None:
    scheduler = gaussian_scheduler("ddim", timestep_spacing="trailing")
    errors = [flow_error(scheduler, steps) for steps in (50, 100, 200)]
    ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
    assert ratios == pytest.approx([2.0, 2.0], rel=0.15)


def test_ddpm_variances_are_the_optimal_ones_of_the_paper() -> None:
    """DDPM, section 3.2: beta is optimal for x_0 ~ N(0, 1), beta_tilde for a single x_0: both keep every marginal."""
    for variance_type, mean, std in [("fixed_large", 0.0, 1.0), ("fixed_small", 0.7, 0.0)]:
        scheduler = gaussian_scheduler("ddpm", variance_type=variance_type)
        alpha_bar = scheduler.schedule.alpha_bar.tolist()
        for t in (999, 998, 500, 2, 1):
            drawn = torch.randn((2, 1), generator=generator(), dtype=torch.float64).flatten().tolist()
            sigma = math.sqrt(scheduler._get_variance(t).item())
            x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
            moved = scheduler.step(best_x0(x, alpha_bar[t], mean, std), t, x, generator=generator()).prev_sample
            low, high = (value - sigma * noise for value, noise in zip(moved.flatten().tolist(), drawn, strict=True))
            variance_t, variance_previous = (alpha_bar[s] * std**2 + 1 - alpha_bar[s] for s in (t, t - 1))
            assert (high - low) ** 2 * variance_t + sigma**2 == pytest.approx(variance_previous, rel=1e-9)


def test_ddim_at_eta_1_is_ddpm() -> None:
    """DDIM, section 4.1: sigma of eq. 16 at eta = 1 makes the generative process a DDPM, step for step."""
    for steps in (1000, 50):
        ddpm_scheduler, ddim_scheduler = OURS["ddpm"](clip_sample=False), OURS["ddim"](clip_sample=False)
        x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
        outcomes = []
        for scheduler, options in [(ddpm_scheduler, {}), (ddim_scheduler, {"eta": 1.0})]:
            scheduler.set_timesteps(steps)
            outcomes.append(
                [
                    scheduler.step(0.3 * x, t, x, generator=generator(), **options).prev_sample
                    for t in scheduler.timesteps
                ]
            )
        for from_ddpm, from_ddim in zip(*outcomes, strict=True):
            assert torch.allclose(from_ddpm, from_ddim, rtol=1e-9, atol=1e-9)


# Mistakes that peers make


@kinds
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_visited_timestep_steps_and_the_last_step_reaches_the_data(kind: str, spacing: str) -> None:
    for steps in (1, 10, 50):
        scheduler = OURS[kind](timestep_spacing=spacing, clip_sample=False)
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) == scheduler.num_inference_steps == steps
        if spacing == "trailing":
            assert scheduler.timesteps[0] == 999  # where training's x_t is noisiest
        x, t = torch.full((1, 2), 0.5), scheduler.timesteps[-1]
        out = scheduler.step(0.1 * x, t, x, generator=generator()) if kind == "ddim" or t == 0 else None
        assert out is None or torch.allclose(out.prev_sample, out.pred_original_sample)  # no noise left in it


def test_ddim_arrives_at_the_timestep_visited_next() -> None:
    for spacing, steps in itertools.product(["leading", "trailing"], [1, 2, 10, 50, 250, 1000]):
        scheduler = OURS["ddim"](timestep_spacing=spacing)
        scheduler.set_timesteps(steps)
        arrivals = [scheduler.previous_timestep(t) for t in scheduler.timesteps]
        assert arrivals[:-1] == scheduler.timesteps[1:].tolist()
        assert arrivals[-1] < 0


def test_all_timesteps_are_visited_until_told_otherwise() -> None:
    for family in OURS.values():
        assert family().timesteps.tolist() == list(range(999, -1, -1))
        assert len(family(num_train_timesteps=7)) == 7


@kinds
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [10, 15, 600])
def test_no_noise_is_drawn_in_the_last_step(kind: str, spacing: str, steps: int) -> None:
    options = {"eta": 1.0} if kind == "ddim" else {}
    for family in (OURS, PUBLIC):
        scheduler, draws, x = family[kind](timestep_spacing=spacing), generator(), torch.ones(2, 3)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps[-2:]:
            before = draws.get_state()
            out = scheduler.step(0.1 * x, t, x, generator=draws, **options)
            assert torch.equal(draws.get_state(), before) == (t == scheduler.timesteps[-1])
        assert torch.allclose(out.prev_sample, out.pred_original_sample)
    draws = generator()
    before = draws.get_state()
    OURS["ddpm"]().step(x, 0, x, generator=draws)  # all timesteps, without set_timesteps
    assert torch.equal(draws.get_state(), before)


@kinds
def test_the_global_random_numbers_are_left_alone(kind: str) -> None:
    before = torch.get_rng_state()
    run(OURS[kind](), torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


# Zero terminal SNR


@kinds
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_zero_terminal_snr_samples_from_pure_noise(kind: str, prediction_type: str) -> None:
    config = {"rescale_betas_zero_snr": True, "prediction_type": prediction_type, "timestep_spacing": "trailing"}
    scheduler = OURS[kind](**config)
    scheduler.set_timesteps(10)
    model_output, x_T = torch.full((1, 2), -0.25), torch.full((1, 2), 3.0)
    x0 = scheduler.step(model_output, scheduler.timesteps[0], x_T, generator=generator()).pred_original_sample
    assert torch.allclose(x0, -model_output if prediction_type == "v_prediction" else model_output)  # no x_T in it
    assert run(scheduler, torch.float32).isfinite().all()


@kinds
def test_epsilon_at_zero_terminal_snr_is_refused(kind: str) -> None:
    scheduler = OURS[kind](rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="undefined at zero terminal SNR"):
        scheduler.step(torch.ones(1, 2), scheduler.timesteps[0], torch.ones(1, 2))


# Random numbers


def test_noise_is_that_of_diffusers() -> None:
    from diffusers.utils.torch_utils import randn_tensor

    shape = (3, 2, 4, 4)
    for make in (lambda: generator(5), lambda: [generator(5)], lambda: [generator(i) for i in range(3)]):
        for dtype in (torch.float32, torch.float64):
            found = draw_noise(shape, make(), "cpu", dtype)
            assert torch.equal(found, randn_tensor(shape, make(), torch.device("cpu"), dtype))


def test_noise_without_a_generator_comes_from_torchs_own() -> None:
    torch.manual_seed(3)
    found = draw_noise((2, 3), None, "cpu", torch.float32)
    torch.manual_seed(3)
    assert torch.equal(found, torch.randn(2, 3))


@kinds
@pytest.mark.parametrize("family", [OURS, PUBLIC])
def test_a_sample_does_not_depend_on_its_batch(kind: str, family: dict[str, Any]) -> None:
    scheduler = family[kind]()
    scheduler.set_timesteps(10)
    options = {"eta": 1.0} if kind == "ddim" else {}
    x_T = torch.randn((5, 1, 4, 4), generator=generator(9))

    def sample(indices: list[int]) -> Tensor:
        generators = [generator(i) for i in indices]
        return sample_with(scheduler, x_T[indices], diffusers_test_model, generator=generators, **options)

    together = sample([0, 1, 2, 3, 4])
    for i in range(5):
        assert torch.equal(sample([i])[0], together[i])
    assert torch.equal(sample([3, 1]), together[[3, 1]])


def test_as_many_generators_as_samples() -> None:
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw_noise((3, 2), [generator(), generator()], "cpu", torch.float32)
    with pytest.raises(ValueError, match="can't draw noise for cpu"):
        draw_noise((3, 2), FakeGenerator(), "cpu", torch.float32)  # type: ignore[arg-type]


class FakeGenerator:
    """Stands in for a generator on a GPU."""

    device = torch.device("cuda")


# Interface


@kinds
def test_constructor_arguments_and_defaults_are_those_of_diffusers(kind: str) -> None:
    theirs = inspect.signature(THEIRS[kind].__init__).parameters
    for family in (OURS, PUBLIC):
        ours = inspect.signature(family[kind].__init__).parameters
        assert {name: p.default for name, p in ours.items()} == {name: p.default for name, p in theirs.items()}
        assert list(ours) == list(theirs)
    for method in ("set_timesteps", "step", "scale_model_input", "add_noise", "get_velocity"):
        ours, theirs = (inspect.signature(getattr(family[kind], method)).parameters for family in (OURS, THEIRS))
        assert {name: p.default for name, p in ours.items()} == {name: p.default for name, p in theirs.items()}
        assert list(ours) == list(theirs)


@kinds
def test_modules_are_loaded_by_name(kind: str) -> None:
    for name, parent in [(kind, OURS[kind]), (f"diffusers_{kind}", THEIRS[kind])]:
        scheduler_class = importlib.import_module(f"diffusion_ladder.schedulers.{name}").Scheduler
        assert scheduler_class is parent
        scheduler = scheduler_class(
            num_train_timesteps=100,
            beta_start=1e-4,
            beta_end=0.01,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        )
        assert run(scheduler, torch.float32).isfinite().all()


def test_the_from_scratch_modules_do_not_import_diffusers() -> None:
    program = (
        "import sys, torch\n"
        "from diffusion_ladder.schedulers import ddpm, ddim, dpm_solver, heun\n"
        "for kind in (ddpm, ddim, dpm_solver, heun):\n"
        "    scheduler = kind.Scheduler(); scheduler.set_timesteps(2)\n"
        "    for t in scheduler.timesteps: scheduler.step(torch.ones(1, 2), t, torch.ones(1, 2))\n"
        "heavy = {'diffusers', 'huggingface_hub', 'transformers', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    source = str(Path(schedulers.__file__).parents[2])
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"})


def test_an_unknown_scheduler_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="EulerScheduler"):
        _ = schedulers.EulerScheduler


@kinds
def test_light_schedulers_carry_their_config(kind: str) -> None:
    scheduler = OURS[kind](50, beta_end=0.01, clip_sample=False)
    assert (scheduler.config.num_train_timesteps, scheduler.config["beta_end"]) == (50, 0.01)
    assert scheduler.config.timestep_spacing == "leading"
    again = type(scheduler).from_config(scheduler.config, beta_end=0.02, no_such_option=1)
    assert dict(again.config) == {**scheduler.config, "beta_end": 0.02}
    from_diffusers = type(scheduler).from_config(THEIRS[kind](beta_start=0.001).config)
    assert from_diffusers.config.beta_start == 0.001
    for copied in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert copied.config == scheduler.config
        assert torch.equal(run(copied, torch.float32), run(scheduler, torch.float32))
    with pytest.raises(AttributeError, match="fixed"):
        scheduler.config.beta_end = 0.5
    with pytest.raises(AttributeError, match="fixed"):
        scheduler.config["beta_end"] = 0.5
    with pytest.raises(AttributeError, match="no_such_option"):
        _ = scheduler.config.no_such_option


@kinds
def test_public_schedulers_are_saved_and_loaded_by_either_library(kind: str, tmp_path: Path) -> None:
    ours = PUBLIC[kind](beta_schedule="scaled_linear", beta_start=0.00085, trained_betas=[0.1, 0.2])
    ours.save_pretrained(tmp_path)
    for family in (PUBLIC, THEIRS):
        loaded = family[kind].from_pretrained(tmp_path)
        assert {k: loaded.config[k] for k in ours.config if k[0] != "_"} == {
            k: v for k, v in ours.config.items() if k[0] != "_"
        }
    assert PUBLIC[kind].from_config(THEIRS[kind](beta_end=0.3).config).config.beta_end == 0.3
    assert THEIRS[kind] in ours.compatibles
    assert diffusers_dpm_solver.DPMSolverMultistepScheduler in ours.compatibles
    assert pickle.loads(pickle.dumps(ours)).config == ours.config


@kinds
def test_public_schedulers_keep_defaults_of_their_own_between_classes(kind: str) -> None:
    """A default that wasn't chosen isn't imposed on the next class: Euler's spacing is linspace."""
    from diffusers import EulerDiscreteScheduler

    assert EulerDiscreteScheduler.from_config(PUBLIC[kind]().config).config.timestep_spacing == "linspace"
    chosen = PUBLIC[kind](timestep_spacing="trailing")
    assert EulerDiscreteScheduler.from_config(chosen.config).config.timestep_spacing == "trailing"


def tiny_unet() -> Any:
    repair_torchvision()
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )


def pipeline_images(pipeline: Any, generators: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(2, generator=generators, num_inference_steps=10, output_type="np").images


@pytest.mark.slow
@pytest.mark.parametrize("make", [generator, lambda: [generator(1), generator(2)]])
def test_diffusers_pipeline_runs_on_our_scheduler(make: Callable[[], Any]) -> None:
    unet = tiny_unet()
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

    ours, theirs = (DDPMPipeline(unet, scheduler=family["ddpm"]()) for family in (PUBLIC, THEIRS))
    assert np.allclose(pipeline_images(ours, make()), pipeline_images(theirs, make()), atol=1e-5)


@pytest.mark.slow
def test_a_saved_pipeline_loads_with_our_scheduler(tmp_path: Path) -> None:
    unet = tiny_unet()
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

    ours = DDPMPipeline(unet, scheduler=PUBLIC["ddpm"](beta_end=0.01))
    ours.save_pretrained(tmp_path)
    loaded = DDPMPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is PUBLIC["ddpm"]
    assert loaded.scheduler.config.beta_end == 0.01
    assert np.array_equal(pipeline_images(loaded, generator()), pipeline_images(ours, generator()))


@kinds
def test_outputs_by_name_and_as_a_tuple(kind: str) -> None:
    for family in (OURS, PUBLIC):
        scheduler = family[kind]()
        scheduler.set_timesteps(10)
        x, t = torch.ones(2, 3), scheduler.timesteps[0]
        named = scheduler.step(0.1 * x, t, x, generator=generator())
        plain = scheduler.step(0.1 * x, t, x, generator=generator(), return_dict=False)
        assert isinstance(plain, tuple)
        assert torch.equal(named.prev_sample, plain[0])
        assert torch.equal(named.pred_original_sample, plain[1])
        assert torch.equal(named[0], plain[0])
    assert scheduler.scale_model_input(x, t) is x
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.order == 1


@kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4, 4), (2, 3, 2, 2, 2)])
def test_steps_keep_shape_and_dtype(kind: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    for config in ({}, {"thresholding": True}):
        for family in (OURS, PUBLIC):
            scheduler = family[kind](**config)
            scheduler.set_timesteps(5)
            out = scheduler.step(torch.ones(shape, dtype=dtype), scheduler.timesteps[1], torch.ones(shape, dtype=dtype))
            assert (out.prev_sample.dtype, out.prev_sample.shape) == (dtype, shape)
            assert (out.pred_original_sample.dtype, out.pred_original_sample.shape) == (dtype, shape)


@kinds
def test_noise_and_velocity_are_those_of_diffusers(kind: str) -> None:
    x0, noise = diffusers_test_sample(), diffusers_test_sample().flip(0)
    for timesteps in (torch.tensor([0, 10, 500, 999]), torch.tensor([7]), torch.tensor(7)):
        for ours in (OURS[kind](), PUBLIC[kind]()):
            theirs = THEIRS[kind]()
            found, expected = (each.add_noise(x0, noise, timesteps) for each in (ours, theirs))
            assert torch.allclose(found, expected, atol=1e-5)
            found, expected = (each.get_velocity(x0, noise, timesteps) for each in (ours, theirs))
            assert torch.allclose(found, expected, atol=1e-5)


@kinds
def test_noise_and_velocity_take_any_dtype_shape_and_kind_of_timestep(kind: str) -> None:
    """Within two roundings of the truth, where diffusers rounds alpha_bar itself: to 1, without noise, in bfloat16."""
    generators = generator(0), generator(1)
    for dtype, shape in itertools.product(
        [torch.float16, torch.bfloat16, torch.float32, torch.float64], [(4,), (4, 2), (4, 1, 3, 3), (4, 2, 2, 2, 2)]
    ):
        x0, noise = (torch.randn(shape, generator=each).to(dtype) for each in generators)
        for t in (torch.tensor([0, 3, 500, 999]), torch.tensor([5], dtype=torch.int32), torch.tensor(5)):
            scheduler = PUBLIC[kind]()
            alpha_bar = scheduler.schedule.alpha_bar[t.long()].reshape(-1, *[1] * (len(shape) - 1))
            signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
            room = 3 * torch.finfo(dtype).eps * (x0.double().abs() + noise.double().abs())
            for found, expected in (
                (scheduler.add_noise(x0, noise, t), signal * x0.double() + sigma * noise.double()),
                (scheduler.get_velocity(x0, noise, t), signal * noise.double() - sigma * x0.double()),
            ):
                assert (found.dtype, found.shape) == (dtype, shape)
                assert ((found.double() - expected).abs() <= room).all()
    x0, noise = torch.zeros(1, 2, dtype=torch.bfloat16), torch.ones(1, 2, dtype=torch.bfloat16)
    t = torch.tensor([5])
    assert THEIRS[kind]().add_noise(x0, noise, t).abs().max() == 0
    assert PUBLIC[kind]().add_noise(x0, noise, t).min() > 0.02


@kinds
def test_timesteps_are_on_the_device_asked_for(kind: str) -> None:
    for family in (OURS, PUBLIC, THEIRS):
        scheduler = family[kind]()
        assert (len(scheduler), scheduler.timesteps.device.type) == (1000, "cpu")
        scheduler.set_timesteps(10, device="meta")
        assert scheduler.timesteps.device.type == "meta"
        assert scheduler.init_noise_sigma == 1.0


@kinds
def test_configs_with_unknown_keys_are_taken_as_diffusers_takes_them(kind: str, tmp_path: Path) -> None:
    THEIRS[kind](beta_end=0.3).save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"skip_prk_steps": True, "beta_start": 0.001}))
    for family in (PUBLIC, THEIRS):
        loaded = family[kind].from_pretrained(tmp_path)
        assert (loaded.config.beta_start, loaded.config.beta_end) == (0.001, 0.3)
        _, unused = family[kind].from_config({"beta_end": 0.3, "foo": 1}, return_unused_kwargs=True, bar=2)
        assert unused == {"bar": 2, "foo": 1}
        with pytest.raises(ValueError, match="provide a config"):
            family[kind].from_config(None)
        with pytest.raises(TypeError, match="foo"):
            family[kind](foo=1)


@kinds
def test_every_compatible_scheduler_can_be_made_from_our_config_and_back(kind: str) -> None:
    ours = PUBLIC[kind](beta_end=0.3)
    assert len(ours.compatibles) > 10
    for compatible in ours.compatibles:
        back = PUBLIC[kind].from_config(compatible.from_config(ours.config).config)
        assert {name: back.config[name] for name in ours.config} == dict(ours.config), compatible


def test_schedule_tensors_go_by_diffusers_names() -> None:
    ours, theirs = OURS["ddim"](), THEIRS["ddim"]()
    for name in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod"):
        assert torch.allclose(getattr(ours, name).float(), getattr(theirs, name), atol=1e-6)
        assert getattr(ours, name).dtype == torch.float64
    assert OURS["ddim"](set_alpha_to_one=False).final_alpha_cumprod == ours.alphas_cumprod[0]


@kinds
def test_public_schedule_tensors_have_diffusers_precision_so_that_scripts_may_multiply_with_them(kind: str) -> None:
    ours, theirs = PUBLIC[kind](), THEIRS[kind]()
    for name in ("betas", "alphas", "alphas_cumprod"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6)
        assert getattr(ours, name).dtype == torch.float32
    ours.alphas_cumprod = OURS[kind](beta_end=0.01).alphas_cumprod  # as some training scripts do
    assert torch.allclose(run(ours, torch.float64), run(OURS[kind](beta_end=0.01), torch.float64), rtol=1e-9)


@given(st.sampled_from(SPACINGS), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_ddpm_walks_down_the_timesteps(spacing: str, T: int, data: st.DataObject) -> None:
    scheduler = OURS["ddpm"](num_train_timesteps=T, timestep_spacing=spacing)
    scheduler.set_timesteps(data.draw(st.integers(1, T)))
    walked = [int(scheduler.previous_timestep(t)) for t in scheduler.timesteps]
    assert walked == [*scheduler.timesteps[1:].tolist(), -1]


# Refusals, as in diffusers


def test_impossible_timesteps_are_refused() -> None:
    for family in OURS.values():
        for steps in (0, 1001):
            with pytest.raises(ValueError, match="between 1 and 1000"):
                family().set_timesteps(steps)
        with pytest.raises(ValueError, match="is not supported"):
            family(timestep_spacing="quadratic").set_timesteps(10)
    scheduler = OURS["ddpm"]()
    for arguments in ({}, {"num_inference_steps": 5, "timesteps": [5, 3]}):
        with pytest.raises(ValueError, match="Can only pass one"):
            scheduler.set_timesteps(**arguments)
    with pytest.raises(ValueError, match="descending"):
        scheduler.set_timesteps(timesteps=[100, 87, 50, 51, 0])
    with pytest.raises(ValueError, match="must start before"):
        scheduler.set_timesteps(timesteps=[1000, 3])
    scheduler.set_timesteps(10)
    with pytest.raises(IndexError, match="timestep 5 is not among the 10"):
        scheduler.previous_timestep(5)


def test_impossible_configs_are_refused_by_name() -> None:
    for kind in OURS:
        for family in (OURS, PUBLIC, THEIRS):
            with pytest.raises(NotImplementedError, match="quadratic"):
                family[kind](beta_schedule="quadratic")
            scheduler = family[kind](prediction_type="score")
            scheduler.set_timesteps(10)
            with pytest.raises(ValueError, match="score"):
                scheduler.step(torch.ones(1, 2), scheduler.timesteps[0], torch.ones(1, 2))
    for variance_type in ("learned", "learned_range"):
        with pytest.raises(ValueError, match="twice the channels"):
            OURS["ddpm"](variance_type=variance_type).step(torch.ones(1, 2), 5, torch.ones(1, 2))


def test_ddim_refuses_to_step_unprepared_or_beyond_the_noise_there_is() -> None:
    for family in (OURS, PUBLIC, THEIRS):
        with pytest.raises(ValueError, match="Number of inference steps is 'None'"):
            family["ddim"]().step(torch.ones(1, 2), 5, torch.ones(1, 2))
        scheduler = family["ddim"]()
        scheduler.set_timesteps(10)
        x = torch.ones(1, 2)
        with pytest.raises(ValueError, match="Cannot pass both generator and variance_noise"):
            scheduler.step(x, scheduler.timesteps[0], x, eta=1.0, generator=generator(), variance_noise=x)
    with pytest.raises(ValueError, match="eta adds noise"):
        OURS["ddim"].step(prepared("ddim", 10), x, 900, x, eta=10.0, generator=generator())


@kinds
def test_fractions_of_a_timestep_are_no_timestep(kind: str) -> None:
    for family in (OURS, PUBLIC, THEIRS):
        scheduler = family[kind]()
        scheduler.set_timesteps(1000)
        for timestep in (500.5, torch.tensor(500.5)):
            with pytest.raises((TypeError, IndexError)):
                scheduler.step(torch.ones(1, 1, 2, 2), timestep, torch.ones(1, 1, 2, 2))


def prepared(kind: str, steps: int) -> Any:
    scheduler = OURS[kind]()
    scheduler.set_timesteps(steps)
    return scheduler


# The second-order solvers

SOLVERS = {"dpm_solver": dpm_solver.DPMSolverMultistepScheduler, "heun": heun.HeunDiscreteScheduler}
PUBLIC_SOLVERS = {"dpm_solver": schedulers.DPMSolverMultistepScheduler, "heun": schedulers.HeunDiscreteScheduler}
THEIR_SOLVERS = {
    "dpm_solver": diffusers_dpm_solver.DPMSolverMultistepScheduler,
    "heun": diffusers_heun.HeunDiscreteScheduler,
}
solvers = pytest.mark.parametrize("kind", ["dpm_solver", "heun"])


def run_solver(scheduler: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """A full loop that scales the network's input, on the small sample of `run`; the timesteps are set."""
    start = torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    x = (start * scheduler.init_noise_sigma).to(dtype)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(scaled * (t + 1) / (t + 2), t, x).prev_sample
    return x


def assert_solver_like_diffusers(kind: str, config: dict[str, Any], **steps: Any) -> None:
    """As diffusers is, to the rounding of its float32 sigmas; with our sigmas in their place, to that of the samples.

    diffusers' DPM-Solver computes in float32 whatever the samples are; one such rounding of x_t is enlarged by sigma
    at T, up to 157, where epsilon is subtracted from it.
    """
    ours, public, theirs = (family[kind](**config) for family in (SOLVERS, PUBLIC_SOLVERS, THEIR_SOLVERS))
    for scheduler in (ours, public, theirs):
        scheduler.set_timesteps(**steps)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert torch.allclose(ours.sigmas.float(), theirs.sigmas, rtol=1e-3)
    assert relative_error(run_solver(public), run_solver(theirs)) < 1e-5, (config, steps)
    theirs.set_timesteps(**steps)
    theirs.sigmas = ours.sigmas
    dtype, tolerance = (torch.float64, 1e-10) if kind == "heun" else (torch.float32, 1e-4)
    assert relative_error(run_solver(ours, dtype), run_solver(theirs, dtype)) < tolerance, (config, steps)


@solvers
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_solvers_are_those_of_diffusers(kind: str, prediction_type: str, spacing: str) -> None:
    config = {"prediction_type": prediction_type, "timestep_spacing": spacing}
    for name, steps in itertools.product(["linear", "scaled_linear"], [1, 10, 25]):
        assert_solver_like_diffusers(kind, {**config, "beta_schedule": name}, num_inference_steps=steps)


@pytest.mark.parametrize(
    "config",
    [
        {"solver_order": 1},
        {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"steps_offset": 1, "timestep_spacing": "leading"},
        {"lower_order_final": False},
        {"euler_at_final": True},
        {"beta_schedule": "squaredcos_cap_v2"},
    ],
    ids="-".join,
)
def test_dpm_solver_options_are_those_of_diffusers(config: dict[str, Any]) -> None:
    config = {"prediction_type": "v_prediction", **config}
    for steps in (2, 20):
        assert_solver_like_diffusers("dpm_solver", config, num_inference_steps=steps)
    assert_solver_like_diffusers("dpm_solver", config, timesteps=[900, 700, 123, 4])


def test_heun_options_are_those_of_diffusers() -> None:
    for config in ({"clip_sample": True, "clip_sample_range": 0.5}, {"steps_offset": 1, "timestep_spacing": "leading"}):
        assert_solver_like_diffusers("heun", {"prediction_type": "v_prediction", **config}, num_inference_steps=10)
    assert_solver_like_diffusers("heun", {"prediction_type": "sample"}, timesteps=[900, 700, 123, 4])


def test_first_order_dpm_solver_is_ddim() -> None:
    """DPM-Solver++, section 4: at first order it is DDIM, written in lambda."""
    first_order = SOLVERS["dpm_solver"](solver_order=1, timestep_spacing="trailing")
    found = run(first_order, torch.float64, steps=20)
    expected = run(OURS["ddim"](clip_sample=False, timestep_spacing="trailing"), torch.float64, steps=20)
    assert relative_error(found, expected) < 1e-10


def test_clipping_in_dpm_solver_is_thresholding_at_one() -> None:
    clipped = SOLVERS["dpm_solver"](clip_sample=True)
    thresholded = SOLVERS["dpm_solver"](thresholding=True, sample_max_value=1.0)
    assert torch.equal(run(clipped, torch.float32), run(thresholded, torch.float32))


def solver_error(kind: str, steps: int, stop: int = 99, mean: float = 0.5, std: float = 0.3) -> float:
    """Distance from the exact flow of Gaussian data at timestep `stop`."""
    scheduler = SOLVERS[kind](prediction_type="sample", beta_start=1e-4, beta_end=0.01, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    alpha_bars = scheduler.schedule.alpha_bar
    first, last = alpha_bars[999].item(), alpha_bars[stop].item()
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1)
    x = x_T / math.sqrt(first) if kind == "heun" else x_T
    for t in scheduler.timesteps:
        alpha_bar = alpha_bars[int(t)].item()
        network_input = scheduler.scale_model_input(x, t)
        if t == stop and getattr(scheduler, "state_in_first_order", True):
            break
        x = scheduler.step(best_x0(network_input, alpha_bar, mean, std), t, x).prev_sample
    spread = math.sqrt((last * std**2 + 1 - last) / (first * std**2 + 1 - first))
    exact = math.sqrt(last) * mean + spread * (x_T - math.sqrt(first) * mean)
    return (network_input - exact).abs().max().item()


@solvers
def test_solvers_converge_to_the_exact_flow_at_second_order(kind: str) -> None:
    errors = [solver_error(kind, steps) for steps in (50, 100, 200)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine > 3.9
    assert errors[0] < 0.1 * abs(flow_error(gaussian_scheduler("ddim", timestep_spacing="trailing"), 50))


@solvers
def test_solvers_end_at_the_data(kind: str) -> None:
    for spacing in SPACINGS:
        scheduler = SOLVERS[kind](timestep_spacing=spacing)
        scheduler.set_timesteps(5)
        assert len(scheduler.timesteps) == (5 if kind == "dpm_solver" else 9)
        x = torch.ones(1, 2)
        for t in scheduler.timesteps:
            out = scheduler.step(0.1 * x, t, x)
        assert torch.allclose(out.prev_sample, out.pred_original_sample, atol=1e-6)


def test_heun_noises_in_its_own_units() -> None:
    scheduler, x0, noise = SOLVERS["heun"](), torch.ones(2, 3), torch.full((2, 3), 2.0)
    t = torch.tensor([10, 999])
    x = scheduler.add_noise(x0, noise, t)
    assert torch.allclose(x, x0 + scheduler.schedule.sigma[t].float()[:, None] * noise)
    theirs = THEIR_SOLVERS["heun"]()
    assert torch.allclose(x, theirs.add_noise(x0, noise, t.float()), rtol=1e-4)


@solvers
def test_pipelines_may_skip_the_first_timesteps(kind: str) -> None:
    found, expected = [], []
    for family, results in ((SOLVERS, found), (THEIR_SOLVERS, expected)):
        scheduler = family[kind](prediction_type="sample")
        scheduler.set_timesteps(10)
        scheduler.set_begin_index(2)
        x = torch.full((1, 2), 0.7)
        for t in scheduler.timesteps[2:]:
            scheduler.scale_model_input(x, t)
            x = scheduler.step(0.5 * x, t, x).prev_sample
            results.append(x)
    assert torch.allclose(torch.cat(found), torch.cat(expected), rtol=1e-4)


@solvers
def test_solver_arguments_and_defaults_are_those_of_diffusers(kind: str) -> None:
    theirs = {name: p.default for name, p in inspect.signature(THEIR_SOLVERS[kind].__init__).parameters.items()}
    for family in (SOLVERS, PUBLIC_SOLVERS):
        ours = {name: p.default for name, p in inspect.signature(family[kind].__init__).parameters.items()}
        assert {name: ours[name] for name in theirs} == theirs
        assert ours.keys() - theirs.keys() <= {"clip_sample", "clip_sample_range"}


@solvers
def test_public_solvers_are_saved_and_loaded_by_either_library(kind: str, tmp_path: Path) -> None:
    PUBLIC_SOLVERS[kind](beta_end=0.3, timestep_spacing="trailing").save_pretrained(tmp_path)
    for family in (PUBLIC_SOLVERS, THEIR_SOLVERS):
        config = family[kind].from_pretrained(tmp_path).config
        assert (config.beta_end, config.timestep_spacing) == (0.3, "trailing")


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("dpm_solver", "solver_order", 3),
        ("dpm_solver", "algorithm_type", "sde-dpmsolver++"),
        ("dpm_solver", "solver_type", "heun"),
        ("dpm_solver", "final_sigmas_type", "sigma_min"),
        ("dpm_solver", "lambda_min_clipped", -5.1),
        ("dpm_solver", "variance_type", "learned"),
        ("dpm_solver", "use_lu_lambdas", True),
        ("dpm_solver", "use_flow_sigmas", True),
        ("dpm_solver", "use_dynamic_shifting", True),
        ("dpm_solver", "use_karras_sigmas", True),
        ("heun", "use_karras_sigmas", True),
        ("heun", "use_exponential_sigmas", True),
        ("heun", "use_beta_sigmas", True),
    ],
)
def test_options_left_out_are_refused_by_name(kind: str, option: str, value: Any) -> None:
    for family in (SOLVERS, PUBLIC_SOLVERS):
        with pytest.raises(NotImplementedError, match=re.escape(f"{option} {value} is not implemented")):
            family[kind](**{option: value})


def test_solvers_refuse_what_they_cannot_space() -> None:
    for solver in SOLVERS.values():
        for arguments in ({}, {"num_inference_steps": 5, "timesteps": [5, 3]}):
            with pytest.raises(ValueError, match="exactly one"):
                solver().set_timesteps(**arguments)
    with pytest.raises(ValueError, match="linspace spacing takes 1 to 999 of 1000"):
        SOLVERS["dpm_solver"]().set_timesteps(1000)
    with pytest.raises(NotImplementedError, match="mu is not implemented"):
        SOLVERS["dpm_solver"]().set_timesteps(10, mu=1.0)
    with pytest.raises(ValueError, match="need to run 'set_timesteps'"):
        SOLVERS["dpm_solver"]().step(torch.ones(1, 2), 5, torch.ones(1, 2))
    with pytest.raises(IndexError, match="is not among"):
        SOLVERS["heun"]().step(torch.ones(1, 2), 5.5, torch.ones(1, 2))
