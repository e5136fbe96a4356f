"""The way back from data to noise, and ways between two noises or two predictions, where the answers are known."""

import math

import pytest
import torch
from test_sampling import SAMPLING, rung

from diffusion_ladder.sampling.between import finished, inverted, mixed, slerp
from diffusion_ladder.sampling.guidance import conditional
from diffusion_ladder.sampling.loop import sampler_for

DDIM = SAMPLING.model_copy(update={"sampler": "ddim", "steps": 100})
MEAN, DEVIATION = 1.5, 0.3  # of the data that the perfect network of test_sampling knows


def inverse(x_0, iterations, steps=100):
    gaussian, settings = rung(), DDIM.model_copy(update={"steps": steps})
    scheduler, _ = sampler_for("ddim", gaussian, settings, steps)
    predict = conditional(gaussian, None, torch.float32)
    noise = inverted(gaussian, scheduler, predict, x_0, iterations)
    return noise, finished(gaussian, settings, predict, noise)


def test_the_noise_of_data_leads_back_to_them():
    x_0 = MEAN + DEVIATION * torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    _, back = inverse(x_0, 10)
    torch.testing.assert_close(back, x_0, atol=2e-4, rtol=0)


def test_more_iterations_come_nearer_and_one_is_the_common_inversion():
    x_0 = torch.tensor([[1.2, 1.9]])
    errors = [float((inverse(x_0, iterations, steps=20)[1] - x_0).abs().max()) for iterations in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 20 * errors[-1]


def test_the_noise_of_gaussian_data_is_where_the_exact_flow_leads():
    """The probability flow ODE of data N(m, s^2) keeps a point's place in units of the marginal's deviation."""
    x_0 = torch.tensor([[MEAN - 2 * DEVIATION, MEAN], [MEAN + DEVIATION, MEAN + 3 * DEVIATION]])
    noise, _ = inverse(x_0, 8, steps=250)
    alpha_bar = float(rung().network.alpha_bar[-1])
    mean, deviation = math.sqrt(alpha_bar) * MEAN, math.sqrt(alpha_bar * DEVIATION**2 + 1 - alpha_bar)
    torch.testing.assert_close(noise, mean + deviation * torch.tensor([[-2.0, 0.0], [1.0, 3.0]]), atol=0.08, rtol=0)


def test_the_arc_between_two_noises_keeps_their_length():
    first, last = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    share = torch.linspace(0, 1, 5)
    arc = slerp(first, last, share)
    torch.testing.assert_close(arc[0], first)
    torch.testing.assert_close(arc[-1], last)
    assert arc.flatten(1).std(dim=1).min() > 0.97
    assert torch.lerp(first, last, 0.5).std() < 0.75  # as a straight line would not
    steps = (arc[1:] - arc[:-1]).flatten(1).norm(dim=1)
    assert steps.max() < 1.05 * steps.min()


def test_the_arc_from_a_noise_to_itself_stays_there():
    noise = torch.randn(3, 4)
    torch.testing.assert_close(slerp(noise, noise, torch.linspace(0, 1, 3)), noise.expand(3, 3, 4))


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4, 4)])
def test_a_mixture_of_predictions_has_the_share_of_each_sample(shape):
    predict = mixed(lambda x, t: torch.zeros_like(x), lambda x, t: torch.full_like(x, 8.0), torch.tensor([0, 0.25, 1]))
    found = predict(torch.zeros(shape), torch.tensor(3)).flatten(1)
    assert found.unique(dim=1).squeeze(1).tolist() == [0.0, 2.0, 8.0]
