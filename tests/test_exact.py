"""Denoisers in closed form, and the samplers that run on them: recursions of Gaussian data, and finite data sets."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.datasets import make_circles, make_moons

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.diffusion.exact import data_set_x0, gaussian_x0, prediction_of
from diffusion_ladder.diffusion.targets import PREDICTION_TYPES, x0_and_epsilon
from diffusion_ladder.evaluation.gaussian_chain import closed_form, end_errors, gaussian_chains, reverse_chain
from diffusion_ladder.evaluation.memorisation import evaluate_memorisation
from diffusion_ladder.evaluation.points import wasserstein_2
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.networks.ideal_denoiser import IdealDenoiser
from diffusion_ladder.params.network import MLPNetwork
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.rungs import Rung
from diffusion_ladder.sampling.loop import Drawing, draw_samples
from diffusion_ladder.schedulers import ddim, ddpm

MEAN, STD = 0.6, 0.4  # of the Gaussian data
ETAS = [0.0, 0.4, 1.0]
SPACINGS = ["leading", "trailing"]


def noise_draws(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The denoisers


@given(st.floats(-3, 3), st.floats(0.001, 0.999), st.floats(-2, 2), st.floats(0.1, 2))
@settings(max_examples=40, deadline=None)
def test_the_mean_of_gaussian_data_given_a_noisy_one_is_the_integral_of_bayes_rule(x, alpha_bar, mean, std):
    centre = float(gaussian_x0(torch.tensor([[x]], dtype=torch.float64), alpha_bar, mean, std))
    narrow = 1 / math.sqrt(1 / std**2 + alpha_bar / (1 - alpha_bar))  # standard deviation of x_0 given x_t

    def joint(x0):
        return norm.pdf(x0, mean, std) * norm.pdf(x, math.sqrt(alpha_bar) * x0, math.sqrt(1 - alpha_bar))

    around = (centre - 10 * narrow, centre + 10 * narrow)
    total, first = quad(joint, *around)[0], quad(lambda x0: x0 * joint(x0), *around)[0]
    assert centre == pytest.approx(first / total, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("alpha_bar", [0.999, 0.5, 0.01])
def test_many_quantiles_of_a_gaussian_are_a_data_set_that_is_that_gaussian(alpha_bar):
    data = torch.from_numpy(norm.ppf((np.arange(20_000) + 0.5) / 20_000, MEAN, STD)).reshape(-1, 1)
    x = torch.linspace(-0.5, 1.5, 7, dtype=torch.float64).reshape(-1, 1)
    assert torch.allclose(data_set_x0(x, alpha_bar, data), gaussian_x0(x, alpha_bar, MEAN, STD), atol=2e-4)


@pytest.mark.parametrize("shape", [(2,), (1, 3, 3)])
def test_the_mean_of_a_data_set_weighs_its_points_by_their_likelihood(shape):
    data, x, alpha_bar = noise_draws((30, *shape), 1), noise_draws((1100, *shape), 2), 0.7
    found = data_set_x0(x, alpha_bar, data)
    for index in (0, 511, 512, 1099):  # on both sides of the border between two chunks
        squared = (x[index] - math.sqrt(alpha_bar) * data).flatten(1).square().sum(1)
        weight = torch.exp(-squared / (2 * (1 - alpha_bar)))
        expected = (weight @ data.flatten(1) / weight.sum()).reshape(shape)
        assert torch.allclose(found[index], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_all_data_and_with_next_to_no_noise_the_nearest_point_is_meant(dtype):
    data = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.1]], dtype=dtype)
    x = torch.tensor([[50.0, 40.0], [0.1, -0.2], [-1e4, 3.0]], dtype=dtype)
    assert torch.equal(data_set_x0(x, 1 - 1e-6, data), data[[2, 0, 0]])


def test_the_exact_epsilon_is_the_score_of_the_mixture():
    """Tweedie: -epsilon / sqrt(1 - alpha_bar) is the gradient of log q(x_t)."""
    data, x, alpha_bar = noise_draws((40, 2), 1), noise_draws((9, 2), 2).requires_grad_(), 0.6
    squared = torch.cdist(x, math.sqrt(alpha_bar) * data).square()
    log_density = torch.logsumexp(-squared / (2 * (1 - alpha_bar)), dim=1)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    epsilon = prediction_of("epsilon", data_set_x0(x, alpha_bar, data), x, alpha_bar)
    assert torch.allclose(-epsilon / math.sqrt(1 - alpha_bar), score, rtol=1e-9)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_prediction_of_any_type_means_the_x0_that_it_was_made_from(prediction_type):
    x, x0, alpha_bar = noise_draws((5, 2), 1), noise_draws((5, 2), 2), torch.linspace(0.1, 0.9, 5).double()
    prediction = prediction_of(prediction_type, x0, x, alpha_bar)
    assert torch.allclose(x0_and_epsilon(prediction_type, prediction, x, alpha_bar).x0, x0)


# Gaussian data: mean and variance of a chain follow a recursion


def visited_alpha_bars(scheduler):
    """alpha_bar at the timesteps visited, and 1 for the data."""
    return [*scheduler.schedule.alpha_bar[scheduler.timesteps].tolist(), 1.0]


def affine_x0(alpha_bar):
    """Slope and offset of E[x_0 | x_t], from the joint Gaussian of x_0 and x_t."""
    slope = math.sqrt(alpha_bar) * STD**2 / (alpha_bar * STD**2 + 1 - alpha_bar)
    return slope, MEAN - slope * math.sqrt(alpha_bar) * MEAN


def ddim_step(alpha_bar, alpha_bar_previous, eta):
    """Slope, offset and noise of a step: DDIM, eq. 12 and 16, with the best prediction put in."""
    slope, offset = affine_x0(alpha_bar)
    sigma = eta * math.sqrt((1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous))
    toward_x_t = math.sqrt(max(0.0, 1 - alpha_bar_previous - sigma**2) / (1 - alpha_bar))
    x0_weight = math.sqrt(alpha_bar_previous) - toward_x_t * math.sqrt(alpha_bar)
    return x0_weight * slope + toward_x_t, x0_weight * offset, sigma


def ddpm_step(alpha_bar, alpha_bar_previous, variance_type):
    """The same of DDPM's step: eq. 7 by adding up precisions, and both variances of section 3.2."""
    slope, offset = affine_x0(alpha_bar)
    if alpha_bar_previous == 1:
        return slope, offset, 0.0
    alpha = alpha_bar / alpha_bar_previous
    prior, likelihood = 1 / (1 - alpha_bar_previous), alpha / (1 - alpha)
    x0_weight = math.sqrt(alpha_bar_previous) * prior / (prior + likelihood)
    x_t_weight = likelihood / math.sqrt(alpha) / (prior + likelihood)
    variance = 1 / (prior + likelihood) if variance_type == "fixed_small" else 1 - alpha
    return x0_weight * slope + x_t_weight, x0_weight * offset, math.sqrt(variance)


def moments(steps):
    """Mean and variance at the end of affine steps (slope, offset, noise) that start from N(0, 1)."""
    mean, variance = 0.0, 1.0
    for slope, offset, noise in steps:
        mean, variance = slope * mean + offset, slope**2 * variance + noise**2
    return mean, variance


def probed_steps(scheduler, **options):
    """Slope, offset and noise of each step of the scheduler itself: two starts with one noise, one start with two."""
    alpha_bar = scheduler.schedule.alpha_bar
    for t in scheduler.timesteps:

        def stepped(x, seed, t=t):
            x = torch.tensor([[x]], dtype=torch.float64)
            draws = torch.Generator().manual_seed(seed)
            best = gaussian_x0(x, alpha_bar[t].item(), MEAN, STD)
            return scheduler.step(best, t, x, generator=draws, **options).prev_sample.item()

        noises = [noise_draws((1, 1), seed).item() for seed in (0, 1)]
        noise = (stepped(0.0, 0) - stepped(0.0, 1)) / (noises[0] - noises[1])
        yield stepped(1.0, 0) - stepped(0.0, 0), stepped(0.0, 0) - noise * noises[0], noise


def chain(kind, steps, spacing, **config):
    scheduler = {"ddpm": ddpm, "ddim": ddim}[kind].Scheduler(
        prediction_type="sample", clip_sample=False, beta_end=0.01, timestep_spacing=spacing, **config
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [1000, 50, 5])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("eta", ETAS)
def test_mean_and_variance_of_ddim_chains_follow_the_recursion(eta, spacing, steps):
    scheduler = chain("ddim", steps, spacing)
    pairs = itertools.pairwise(visited_alpha_bars(scheduler))
    assert moments(probed_steps(scheduler, eta=eta)) == pytest.approx(
        moments(ddim_step(*pair, eta) for pair in pairs), rel=1e-6
    )


@pytest.mark.parametrize("steps", [1000, 50, 5])
@pytest.mark.parametrize(
    ("variance_type", "spacing"),
    # As in diffusers, a last step from another timestep than 0 adds noise of variance beta: with fixed_large too much.
    [("fixed_small", "leading"), ("fixed_small", "trailing"), ("fixed_large", "leading")],
)
def test_mean_and_variance_of_ddpm_chains_follow_the_recursion(variance_type, spacing, steps):
    scheduler = chain("ddpm", steps, spacing, variance_type=variance_type)
    pairs = itertools.pairwise(visited_alpha_bars(scheduler))
    assert moments(probed_steps(scheduler)) == pytest.approx(
        moments(ddpm_step(*pair, variance_type) for pair in pairs), rel=1e-6
    )


def test_with_every_timestep_the_recursions_end_at_the_data_but_for_what_is_left_of_them_in_the_noise():
    alpha_bars = visited_alpha_bars(chain("ddpm", 1000, "trailing"))
    for eta in ETAS:
        mean, variance = moments(ddim_step(*pair, eta) for pair in itertools.pairwise(alpha_bars))
        assert (mean, math.sqrt(variance)) == pytest.approx((MEAN, STD), rel=0.04)


@pytest.mark.parametrize("steps", [100, 10])
@pytest.mark.parametrize(
    ("kind", "choice"), [("ddpm", "fixed_small"), ("ddpm", "fixed_large"), *(("ddim", eta) for eta in ETAS)]
)
def test_samples_have_the_moments_of_the_recursion_within_sampling_error(kind, choice, steps):
    count, options = 20_000, {"eta": choice} if kind == "ddim" else {}
    scheduler = chain(kind, steps, "leading", **({"variance_type": choice} if kind == "ddpm" else {}))
    step = ddim_step if kind == "ddim" else ddpm_step
    mean, variance = moments(step(*pair, choice) for pair in itertools.pairwise(visited_alpha_bars(scheduler)))
    draws = torch.Generator().manual_seed(0)
    x = torch.randn((count, 1), generator=draws, dtype=torch.float64)
    for t in scheduler.timesteps:
        best = gaussian_x0(x, scheduler.schedule.alpha_bar[t].item(), MEAN, STD)
        x = scheduler.step(best, t, x, generator=draws, **options).prev_sample
    assert x.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
    assert x.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / count))


@pytest.mark.parametrize("steps", [1000, 50, 5])
def test_the_gaussian_chain_of_the_report_is_that_recursion_and_starts_and_ends_where_it_should(steps):
    schedule = chain("ddpm", steps, "linspace").schedule
    found = reverse_chain(schedule, steps, MEAN, STD)
    assert found.timesteps[[0, -2, -1]].tolist() == [1000, 1, 0]
    alpha_bars = [*schedule.alpha_bar[found.timesteps[:-1] - 1].tolist(), 1.0]
    mean, variance = moments(ddpm_step(*pair, "fixed_small") for pair in itertools.pairwise(alpha_bars))
    assert (found.mean[-1].item(), found.std[-1].item()) == pytest.approx((mean, math.sqrt(variance)), rel=1e-6)


def test_the_chain_meets_the_closed_form_with_every_timestep_and_spreads_too_little_with_few():
    schedule = chain("ddpm", 10, "linspace").schedule
    forward = closed_form(schedule, MEAN, STD)
    noisy = MEAN + STD * noise_draws((50_000,), 1)
    noisy = schedule.add_noise(noisy, noise_draws((50_000,), 2), torch.tensor(499))
    assert (noisy.mean().item(), noisy.std().item()) == pytest.approx(
        (forward.mean[500].item(), forward.std[500].item()), abs=0.015
    )
    errors = end_errors(gaussian_chains(schedule, MEAN, STD))
    at_the_end = [errors[f"gaussian_std_error_of_{steps}_steps"] for steps in (1000, 50, 10)]
    assert at_the_end == sorted(at_the_end)
    assert at_the_end[0] < 0.02 < 0.1 < at_the_end[-1]


# A finite data set: its own ideal denoiser brings the circles and the moons back


@pytest.fixture(scope="module", params=["circles", "moons"])
def known(request):
    """Points in data units, held-out ones like them, and a rung that knows the first by heart."""
    draw = {"circles": partial(make_circles, factor=0.5), "moons": make_moons}[request.param]
    train, test = (torch.from_numpy(draw(1000, noise=0.05, random_state=seed)[0]).float() for seed in (1, 2))
    normalisation = Normalisation(tuple(train.mean(0).tolist()), tuple(train.std(0).tolist()), bytes=False)
    schedule = load_parameters().rungs[request.param].schedule.model_copy(update={"beta_end": 0.02})  # ends in noise
    labels = torch.zeros(len(train), dtype=torch.int64)
    rung = Rung(
        model="ideal",
        dataset="ideal",
        network=IdealDenoiser(normalise(train, normalisation), labels, forward_process(schedule), "epsilon"),
        settings=MLPNetwork(name="mlp", hidden_size=2, hidden_layers=1, time_embedding_size=2),
        schedule=schedule,
        sample_shape=(2,),
        num_classes=0,
        null_label=None,
        normalisation=normalisation,
    )
    return train, test, rung


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "steps", "last"), [("ddpm", "all", 0), ("ddim", 250, 0), ("dpm_solver", 250, 3), ("heun", 100, 0)]
)
def test_with_its_ideal_denoiser_every_sampler_brings_a_data_set_back(known, sampler, steps, last):
    """Samples lie on the points, as near as the noise of the last timestep visited; no part of the data is missing."""
    train, test, rung = known
    changes = {"spacing": "leading", "trajectory_count": 2, "batch_size": 1000}
    settings = load_parameters().rungs["circles"].sampling.model_copy(update=changes)
    drawn = draw_samples(Drawing(rung, sampler, settings, steps, 400, seed=0))
    assert drawn.timesteps[-1] == last
    noise = math.sqrt(1 - rung.network.schedule.alpha_bar[last].item())  # in standard deviations of the data
    nearest, nearest_of_others = (
        torch.cdist(normalise(points, rung.normalisation), rung.network.data).amin(dim=1)
        for points in (drawn.samples, test)
    )
    assert nearest.mean() < noise < nearest_of_others.mean()
    assert nearest.max() < 4 * noise
    draws = torch.Generator().manual_seed(0)
    redrawn = [train[torch.randint(len(train), (400,), generator=draws)] for _ in range(20)]
    floors = torch.tensor([wasserstein_2(points, test) for points in redrawn])
    assert wasserstein_2(drawn.samples, test) < floors.mean() + 3 * floors.std()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_ideal_denoiser_is_a_network_that_knows_each_class_by_heart(prediction_type):
    """Mixed timesteps and labels in one batch, against the definition for each sample alone."""
    data, labels = noise_draws((30, 2, 3), 1), torch.arange(30) % 3
    schedule = forward_process(load_parameters().rungs["circles"].schedule)
    network = IdealDenoiser(data, labels, schedule, prediction_type)
    x, t, asked = noise_draws((12, 2, 3), 2), torch.arange(12) % 4 * 300, torch.arange(12) % 3
    for classes in (None, asked):
        found = network(x, t, classes)
        for index in range(12):
            known = data if classes is None else data[labels == classes[index]]
            alpha_bar = schedule.alpha_bar[t[index]].item()
            squared = (x[index] - math.sqrt(alpha_bar) * known).flatten(1).square().sum(1)
            weight = torch.exp(-(squared - squared.min()) / (2 * (1 - alpha_bar)))
            x0 = (weight[:, None, None] * known).sum(0) / weight.sum()
            epsilon = (x[index] - math.sqrt(alpha_bar) * x0) / math.sqrt(1 - alpha_bar)
            v = math.sqrt(alpha_bar) * epsilon - math.sqrt(1 - alpha_bar) * x0
            expected = {"sample": x0, "epsilon": epsilon, "v_prediction": v}[prediction_type]
            assert torch.allclose(found[index], expected, rtol=1e-9, atol=1e-9)


def test_the_ideal_denoiser_of_images_draws_training_images_of_the_requested_class_and_is_caught():
    draws = torch.Generator().manual_seed(0)
    images = {name: torch.randint(256, (60, 1, 6, 6), generator=draws, dtype=torch.uint8) for name in ("train", "test")}
    labels = torch.arange(60) % 2
    parameters = load_parameters().rungs["mnist_scratch"]
    normalisation = Normalisation((0.5,), (0.5,), bytes=True)
    network = IdealDenoiser(
        normalise(images["train"], normalisation), labels, forward_process(parameters.schedule), "epsilon"
    )
    rung = Rung("ideal", "ideal", network, parameters.network, parameters.schedule, (1, 6, 6), 2, None, normalisation)
    settings = parameters.sampling.model_copy(update={"spacing": "linspace", "trajectory_count": 2})
    drawn = draw_samples(Drawing(rung, "ddpm", settings, 10, 20, seed=0, seeds=2))
    same = (drawn.samples[:, None] == images["train"]).flatten(2).all(2)  # (40, 60)
    assert torch.equal(labels[same.long().argmax(1)], drawn.labels)
    assert same.any(1).all()
    samples = {"samples": drawn.samples, "sampling_seed": drawn.sampling_seed}

    def generator_of(*purpose):
        return torch.Generator().manual_seed(len(purpose))

    numbers = evaluate_memorisation(samples, images, parameters.evaluation.memorisation, 20, generator_of).numbers
    assert numbers["exact_duplicates"] == numbers["copied_share"] == 1
    assert numbers["memorisation_verdict"].startswith("Signs of memorisation: 100.00% of the samples equal")
