"""Noise schedules against closed forms, published numbers and diffusers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import laplace

from diffusion_ladder.diffusion.schedules import (
    NoiseSchedule,
    add_noise,
    laplace_alpha_bar,
    make_beta,
    make_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_alpha_bar,
    schedule_from_betas,
)
from diffusion_ladder.diffusion.timesteps import checked_timesteps, spaced_timesteps

NAMES = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
betas = st.floats(1e-5, 0.5)


@st.composite
def schedules(draw: st.DrawFn, rescaled: bool = False) -> NoiseSchedule:
    low, high = sorted([draw(betas), draw(betas)])
    T = draw(st.integers(2, 400))
    return make_schedule(draw(st.sampled_from(NAMES)), T, low, high, rescale_betas_zero_snr=rescaled)


@given(schedules())
@settings(max_examples=60, deadline=None)
def test_a_schedule_adds_noise_at_every_step(schedule: NoiseSchedule) -> None:
    assert all(part.dtype == torch.float64 and part.shape == (schedule.T,) for part in vars(schedule).values())
    assert ((schedule.beta > 0) & (schedule.beta < 1)).all()
    assert ((schedule.alpha_bar > 0) & (schedule.alpha_bar < 1)).all()
    assert (schedule.alpha_bar.diff() < 0).all()
    assert (schedule.snr.diff() < 0).all()
    assert (schedule.sigma.diff() > 0).all()


@given(schedules())
@settings(max_examples=60, deadline=None)
def test_alpha_bar_is_the_product_of_the_alphas(schedule: NoiseSchedule) -> None:
    log_alpha_bar = [math.fsum(math.log1p(-b) for b in schedule.beta[: t + 1].tolist()) for t in (0, schedule.T - 1)]
    assert schedule.alpha_bar[[0, -1]].log().tolist() == pytest.approx(log_alpha_bar, rel=1e-9)
    assert torch.allclose(schedule.snr, schedule.alpha_bar / (1 - schedule.alpha_bar), rtol=1e-12)
    assert torch.allclose(schedule.sigma**2 * schedule.snr, torch.ones(schedule.T, dtype=torch.float64), rtol=1e-12)


@given(schedules(rescaled=True))
@settings(max_examples=60, deadline=None)
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_step(schedule: NoiseSchedule) -> None:
    assert schedule.alpha_bar[-1].item() == 0.0
    assert schedule.snr[-1].item() == 0.0
    assert schedule.terminal_signal == 0.0
    assert schedule.sigma[-1].item() == math.inf
    assert schedule.beta[-1].item() == 1.0
    assert (schedule.alpha_bar.diff() < 0).all()


@given(schedules())
@settings(max_examples=60, deadline=None)
def test_rescaling_is_affine_in_the_signal(schedule: NoiseSchedule) -> None:
    """Algorithm 1 of arXiv 2305.08891: shares of sqrt(alpha_bar)'s range stay what they were."""
    before, after = schedule.alpha_bar.sqrt(), rescale_to_zero_terminal_snr(schedule.alpha_bar).sqrt()
    assert after[0].item() == pytest.approx(before[0].item(), rel=1e-14)
    share = (before - before[-1]) / (before[0] - before[-1])
    assert torch.allclose(after / after[0], share, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "beta_start", "beta_end", "terminal_signal"),
    [
        ("linear", 1e-4, 0.01, 0.079),
        ("scaled_linear", 0.00085, 0.012, 0.068),
        ("linear", 1e-4, 0.02, 0.0064),
    ],
)
def test_terminal_signal_as_published(name: str, beta_start: float, beta_end: float, terminal_signal: float) -> None:
    schedule = make_schedule(name, 1000, beta_start, beta_end)
    assert schedule.terminal_signal == pytest.approx(terminal_signal, rel=0.01)


def test_cosine_alpha_bar_is_the_squared_cosine_until_the_cap() -> None:
    """Nichol and Dhariwal, eq. 17: the product of the alphas telescopes to f(t + 1) / f(0)."""
    T = 1000
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    schedule = make_schedule("squaredcos_cap_v2", T, 1e-4, 0.02)
    uncapped = schedule.beta < 0.999
    expected = torch.tensor(f[1:], dtype=torch.float64) / f[0]
    assert torch.allclose(schedule.alpha_bar[uncapped], expected[uncapped], rtol=1e-10)
    assert schedule.beta[~uncapped].tolist() == [0.999]  # the last step alone, where the cosine reaches 0


def test_sigmoid_is_symmetric_about_its_middle() -> None:
    beta = make_beta("sigmoid", 101, 0.001, 0.021)
    assert beta[50].item() == pytest.approx(0.011, rel=1e-12)
    assert torch.allclose(beta + beta.flip(0), torch.full((101,), 0.022, dtype=torch.float64), rtol=1e-12)


def test_laplace_has_its_log_snrs_at_the_quantiles_of_that_distribution() -> None:
    """arXiv 2407.03297: log-SNR is distributed over the timesteps as Laplace(0, 1/2), high at the clean end."""
    u = np.linspace(0.01, 0.99, 99)
    alpha_bar = np.array([laplace_alpha_bar(each) for each in u])
    assert np.allclose(np.log(alpha_bar / (1 - alpha_bar)), laplace(scale=0.5).ppf(1 - u), atol=1e-4)


def test_diffusers_laplace_takes_the_root_for_alpha_bar() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule="laplace").alphas_cumprod.double()
    ours = schedule_from_betas(make_beta("laplace", 1000, 1e-4, 0.02)).alpha_bar
    assert torch.allclose(ours, theirs**2, atol=1e-5)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_betas_are_those_of_diffusers(name: str, rescaled: bool) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule=name, beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=rescaled)
    ours = schedule_from_betas(make_beta(name, 1000, 0.00085, 0.012), rescaled)
    assert torch.allclose(ours.beta, theirs.betas.double(), atol=2e-6)  # float32 holds 1 - beta to 6e-8
    assert torch.allclose(ours.alpha_bar, theirs.alphas_cumprod.double(), atol=1e-5)


@given(schedules())
@settings(max_examples=30, deadline=None)
def test_one_jump_of_the_forward_process_equals_its_steps(schedule: NoiseSchedule) -> None:
    """DDPM eq. 2 iterated gives eq. 4: signal prod sqrt(1 - beta), noise variance v <- (1 - beta) v + beta."""
    signal, variance = 1.0, 0.0
    for beta in schedule.beta.tolist():
        signal, variance = math.sqrt(1 - beta) * signal, (1 - beta) * variance + beta
    one = torch.ones(1, dtype=torch.float64)
    last = torch.tensor([schedule.T - 1])
    assert schedule.add_noise(one, 0 * one, last).item() == pytest.approx(signal, rel=1e-9, abs=1e-300)
    assert schedule.add_noise(0 * one, one, last).item() == pytest.approx(math.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 4, 4), (5, 3, 2, 2, 2), (5,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_add_noise_keeps_shape_and_dtype_and_rounds_once(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    schedule = make_schedule("linear", 1000, 1e-4, 0.02)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    t = torch.tensor([0, 1, 500, 998, 999])
    x_t = schedule.add_noise(x0, noise, t)
    assert (x_t.shape, x_t.dtype) == (shape, dtype)
    for i, step in enumerate(t.tolist()):
        alpha_bar = schedule.alpha_bar[step].item()
        exact = math.sqrt(alpha_bar) * x0[i].double() + math.sqrt(1 - alpha_bar) * noise[i].double()
        room = 3 * torch.finfo(dtype).eps * (x0[i].double().abs() + noise[i].double().abs())
        assert ((x_t[i].double() - exact).abs() <= room).all()


def test_add_noise_takes_one_timestep_for_the_whole_batch() -> None:
    schedule = make_schedule("linear", 10, 1e-4, 0.02)
    x0, noise = torch.ones(3, 2), torch.full((3, 2), 2.0)
    each = schedule.add_noise(x0, noise, torch.tensor([7, 7, 7]))
    assert torch.equal(schedule.add_noise(x0, noise, torch.tensor([7])), each)
    assert torch.allclose(schedule.add_noise(x0, noise, torch.tensor(7)), each, rtol=1e-6)
    assert torch.allclose(add_noise(x0, noise, schedule.alpha_bar[7].item()), each, rtol=1e-6)


def test_add_noise_refuses_integers_and_timesteps_beyond_the_last() -> None:
    schedule = make_schedule("linear", 10, 1e-4, 0.02)
    with pytest.raises(ValueError, match="uint8"):
        schedule.add_noise(torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1, 1), torch.tensor([0]))
    with pytest.raises(IndexError):
        schedule.add_noise(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([10]))


def test_a_schedule_can_be_built_from_its_betas_or_its_alpha_bars() -> None:
    schedule = make_schedule("scaled_linear", 50, 0.00085, 0.012)
    assert torch.equal(schedule_from_betas(schedule.beta).alpha_bar, schedule.alpha_bar)
    assert torch.allclose(schedule_from_alpha_bar(schedule.alpha_bar).beta, schedule.beta, rtol=1e-10)
    assert schedule_from_betas(torch.tensor([0.1, 0.3], dtype=torch.float64)).beta.tolist() == [0.1, 0.3]


@pytest.mark.parametrize(("T", "low", "high"), [(0, 1e-4, 0.02), (10, 0.0, 0.02), (10, 1e-4, 1.0), (10, -0.1, 0.02)])
def test_impossible_schedules_are_refused(T: int, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"T is 0|leaves \(0, 1\)"):
        make_schedule("linear", T, low, high)


def test_unknown_schedules_are_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="quadratic"):
        make_schedule("quadratic", 10, 1e-4, 0.02)
    with pytest.raises(ValueError, match="at least two timesteps"):
        make_schedule("linear", 1, 1e-4, 0.02, rescale_betas_zero_snr=True)


@given(st.sampled_from(["leading", "linspace", "trailing"]), st.integers(1, 1200), st.data())
@settings(max_examples=200, deadline=None)
def test_timesteps_fall_within_those_trained_on(spacing: str, T: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, T))
    timesteps = spaced_timesteps(spacing, T, steps)
    assert timesteps.dtype == torch.int64
    assert len(timesteps) == steps
    assert (timesteps.diff() < 0).all()
    assert 0 <= timesteps[-1] <= timesteps[0] < T
    if spacing == "trailing":  # starts where the noise is strongest
        assert timesteps[0] == T - 1
    if spacing == "leading":
        assert timesteps[-1] == 0
    if spacing == "linspace" and steps > 1:
        assert (timesteps[0], timesteps[-1]) == (T - 1, 0)
    if steps == T:
        assert timesteps.tolist() == list(range(T))[::-1]


def test_timesteps_as_in_table_2_of_the_paper() -> None:
    """arXiv 2305.08891, Table 2, counted from 0: T = 1000, 10 steps."""
    assert spaced_timesteps("leading", 1000, 10).tolist() == list(range(900, -1, -100))
    assert spaced_timesteps("trailing", 1000, 10).tolist() == list(range(999, 0, -100))
    assert spaced_timesteps("linspace", 1000, 10).tolist() == list(range(999, -1, -111))
    assert spaced_timesteps("leading", 1000, 5, steps_offset=1).tolist() == [801, 601, 401, 201, 1]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_timesteps_are_those_of_diffusers(spacing: str) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(timestep_spacing=spacing)
    for steps in range(1, 1001, 3):
        theirs.set_timesteps(steps)
        # for some numbers of steps, diffusers' trailing spacing has one element too many, the timestep -1
        assert spaced_timesteps(spacing, 1000, steps).tolist() == theirs.timesteps[:steps].tolist(), steps


def test_impossible_timesteps_are_refused() -> None:
    for steps in (0, 11):
        with pytest.raises(ValueError, match="between 1 and 10"):
            spaced_timesteps("leading", 10, steps)
    with pytest.raises(ValueError, match="choose linspace, leading or trailing"):
        spaced_timesteps("quadratic", 10, 5)
    with pytest.raises(ValueError, match="steps_offset 1 starts at timestep 10"):
        spaced_timesteps("leading", 10, 10, steps_offset=1)
    with pytest.raises(ValueError, match="descending"):
        checked_timesteps([3, 3], 10)
    with pytest.raises(ValueError, match="must start before"):
        checked_timesteps([10, 3], 10)
