"""Prediction types and loss weights: inverses, equivalences, limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_ladder.diffusion.clipping import dynamic_threshold
from diffusion_ladder.diffusion.schedules import add_noise, make_schedule
from diffusion_ladder.diffusion.targets import (
    PREDICTION_TYPES,
    alpha_bar_of_snr,
    loss_weight,
    refuse_undefined_target,
    training_target,
    velocity,
    x0_and_epsilon,
)

alpha_bars = st.floats(1e-6, 1 - 1e-6)
prediction_types = pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, noise


@prediction_types
@given(alpha_bar=alpha_bars)
@settings(max_examples=50, deadline=None)
def test_reading_a_perfect_prediction_returns_what_was_mixed(prediction_type: str, alpha_bar: float) -> None:
    x0, noise = pair(2, 3)
    x_t = add_noise(x0, noise, alpha_bar)
    target = training_target(prediction_type, x0, noise, alpha_bar)
    read = x0_and_epsilon(prediction_type, target, x_t, alpha_bar)
    assert torch.allclose(read.x0, x0, atol=1e-9 / math.sqrt(alpha_bar))
    assert torch.allclose(read.epsilon, noise, atol=1e-9 / math.sqrt(1 - alpha_bar))


@prediction_types
@given(alpha_bar=alpha_bars)
@settings(max_examples=50, deadline=None)
def test_conversions_are_mutually_inverse(prediction_type: str, alpha_bar: float) -> None:
    """Any network output, however wrong, is recovered from the (x_0, epsilon) it stands for."""
    model_output, x_t = pair(2, 3, seed=1)
    x0, epsilon = x0_and_epsilon(prediction_type, model_output, x_t, alpha_bar)
    assert torch.allclose(training_target(prediction_type, x0, epsilon, alpha_bar), model_output, atol=1e-9)
    assert torch.allclose(add_noise(x0, epsilon, alpha_bar), x_t, atol=1e-9)


@prediction_types
def test_timesteps_may_differ_within_a_batch(prediction_type: str) -> None:
    x0, noise = pair(4, 1, 2, 2)
    alpha_bar = torch.tensor([0.9, 0.5, 0.1, 0.01], dtype=torch.float64)
    together = training_target(prediction_type, x0, noise, alpha_bar)
    read = x0_and_epsilon(prediction_type, together, add_noise(x0, noise, alpha_bar), alpha_bar)
    assert torch.allclose(read.x0, x0)
    for i, each in enumerate(alpha_bar.tolist()):
        assert torch.allclose(together[i], training_target(prediction_type, x0[i], noise[i], each))


def test_velocity_is_the_derivative_along_the_circle() -> None:
    """x_t = cos(phi) x_0 + sin(phi) epsilon, so v = dx_t / dphi (Salimans and Ho, appendix D)."""
    x0, noise = pair(5)
    phi, step = 0.7, 1e-6
    later, earlier = (add_noise(x0, noise, math.cos(phi + sign * step) ** 2) for sign in (1, -1))
    assert torch.allclose(velocity(x0, noise, math.cos(phi) ** 2), (later - earlier) / (2 * step), atol=1e-8)


def test_velocity_is_that_of_diffusers() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    x0, noise = (part.float() for part in pair(3, 1, 4, 4))
    t = torch.tensor([0, 400, 999])
    schedule = make_schedule("linear", 1000, 1e-4, 0.02)
    theirs = DDPMScheduler().get_velocity(x0, noise, t)
    assert torch.allclose(training_target("v_prediction", x0, noise, schedule.alpha_bar[t]), theirs, atol=1e-5)


def test_epsilon_is_refused_at_zero_terminal_snr_and_the_reason_given() -> None:
    x0, noise = pair(2, 2)
    alpha_bar = make_schedule("linear", 10, 1e-4, 0.02, rescale_betas_zero_snr=True).alpha_bar[[3, 9]]
    with pytest.raises(ValueError, match="pure noise"):
        refuse_undefined_target("epsilon", alpha_bar)
    for value in (alpha_bar, 0.0):
        with pytest.raises(ValueError, match="pure noise"):
            x0_and_epsilon("epsilon", x0, noise, value)
    for prediction_type in ("sample", "v_prediction"):
        refuse_undefined_target(prediction_type, alpha_bar)
        target = training_target(prediction_type, x0, noise, alpha_bar)
        read = x0_and_epsilon(prediction_type, target, add_noise(x0, noise, alpha_bar), alpha_bar)
        assert torch.allclose(read.x0, x0)
        assert torch.allclose(read.epsilon, noise)


def test_epsilon_of_a_clean_sample_is_refused() -> None:
    x0, _ = pair(2, 2)
    with pytest.raises(ValueError, match="no noise"):
        x0_and_epsilon("sample", x0, x0, 1.0)


def test_unknown_names_are_refused() -> None:
    x0, noise = pair(1, 1)
    snr = torch.ones(1)
    calls = [
        lambda: training_target("score", x0, noise, 0.5),
        lambda: x0_and_epsilon("score", x0, noise, 0.5),
        lambda: loss_weight("min_snr", "score", snr, 5.0),
        lambda: loss_weight("p2", "score", snr, 1.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="score must be one of epsilon, sample or v_prediction"):
            call()
    with pytest.raises(ValueError, match="karras must be one of uniform, min_snr or p2"):
        loss_weight("karras", "epsilon", snr, 5.0)


@pytest.mark.parametrize(("name", "gamma"), [("min_snr", 5.0), ("min_snr", 1.0), ("p2", 1.0), ("p2", 0.5)])
@given(alpha_bar=alpha_bars)
@settings(max_examples=50, deadline=None)
def test_weighted_losses_do_not_depend_on_what_is_predicted(name: str, gamma: float, alpha_bar: float) -> None:
    """The same guess of x_0, expressed as any prediction, has the same weighted error."""
    x0, noise = pair(8)
    x_t = add_noise(x0, noise, alpha_bar)
    guess = x0 + 0.1
    implied_noise = (x_t - math.sqrt(alpha_bar) * guess) / math.sqrt(1 - alpha_bar)
    snr = torch.tensor([alpha_bar / (1 - alpha_bar)], dtype=torch.float64)
    losses = []
    for prediction_type in PREDICTION_TYPES:
        prediction = training_target(prediction_type, guess, implied_noise, alpha_bar)
        error = prediction - training_target(prediction_type, x0, noise, alpha_bar)
        losses.append((loss_weight(name, prediction_type, snr, gamma) * error.square().mean()).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_min_snr_weights_are_the_papers() -> None:
    """arXiv 2303.09556: min(SNR, gamma) on x_0, over SNR on epsilon, over SNR + 1 on v."""
    snr = torch.tensor([0.01, 1.0, 4.0, 5.0, 20.0, 1e4], dtype=torch.float64)
    clamped = snr.clamp(max=5.0)
    assert torch.allclose(loss_weight("min_snr", "sample", snr, 5.0), clamped)
    assert torch.allclose(loss_weight("min_snr", "epsilon", snr, 5.0), clamped / snr)
    assert torch.allclose(loss_weight("min_snr", "v_prediction", snr, 5.0), clamped / (snr + 1))
    assert torch.allclose(loss_weight("p2", "epsilon", snr, 1.0), 1 / (1 + snr))
    assert torch.equal(loss_weight("uniform", "epsilon", snr, 5.0), torch.ones_like(snr))


@prediction_types
@pytest.mark.parametrize(("name", "gamma"), [("uniform", 5.0), ("min_snr", 5.0), ("p2", 1.0)])
def test_weights_are_finite_from_zero_to_infinite_snr(name: str, gamma: float, prediction_type: str) -> None:
    snr = torch.tensor([0.0, 1e-300, 1e300, math.inf], dtype=torch.float64)
    weight = loss_weight(name, prediction_type, snr, gamma)
    assert weight.isfinite().all()
    assert torch.allclose(weight[[0, 3]], weight[[1, 2]], atol=1e-12)  # the limits are reached, not jumped to


def test_weights_at_the_limits_of_snr() -> None:
    snr = torch.tensor([0.0, math.inf], dtype=torch.float64)
    assert loss_weight("min_snr", "epsilon", snr, 5.0).tolist() == [1.0, 0.0]
    assert loss_weight("min_snr", "sample", snr, 5.0).tolist() == [0.0, 5.0]
    assert loss_weight("min_snr", "v_prediction", snr, 5.0).tolist() == [0.0, 0.0]
    assert loss_weight("p2", "sample", snr, 1.0).tolist() == [0.0, 1.0]
    assert alpha_bar_of_snr(snr).tolist() == [0.0, 1.0]


def test_dynamic_threshold_clips_at_the_percentile_of_each_sample() -> None:
    """Imagen, section 2.3: by hand for two samples, one saturated and one not."""
    x0 = torch.tensor([[-4.0, -2.0, 0.0, 2.0, 4.0], [0.1, -0.2, 0.3, 0.5, -0.9]])
    expected = torch.tensor([[-1.0, -2 / 3, 0.0, 2 / 3, 1.0], [0.1, -0.2, 0.3, 0.5, -0.9]])
    # half of the magnitudes 0, 2, 2, 4, 4 lie at or below 2; the 0.625 quantile is halfway from 2 to 4
    assert torch.allclose(dynamic_threshold(x0, 0.625, largest=10.0), expected)
    assert torch.allclose(dynamic_threshold(x0, 0.625, largest=2.0)[0], x0[0].clamp(-2, 2) / 2)
    assert dynamic_threshold(x0.half(), 0.5, 10.0).dtype == torch.float16
    assert dynamic_threshold(x0.reshape(2, 1, 5, 1), 0.5, 10.0).shape == (2, 1, 5, 1)
