"""Deterministic ways between noise and data: from data back to the noise, and between two noises or two classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.diffusion.targets import x0_and_epsilon
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.rungs import Rung
from diffusion_ladder.sampling.guidance import Predict
from diffusion_ladder.sampling.loop import reverse_process, sampler_for


@torch.no_grad()
def finished(
    rung: Rung,
    settings: Sampling,
    predict: Predict,
    x_T: Tensor,
    generators: Sequence[torch.Generator] = (),
    progress: Any = None,
) -> Tensor:
    """What the sampler of some settings makes of noise x_T: (B, ...) to (B, ...), both normalised.

    Args:
        predict: the prediction to follow.
        generators: one a sample, for a sampler that adds noise.
        progress: called after every step with the number of samples.
    """
    scheduler, step_options = sampler_for(settings.sampler, rung, settings, settings.steps)
    for state in reverse_process(predict, scheduler, x_T, generators, **step_options):
        x = state.previous
        if progress is not None:
            progress(len(x))
    return x


@torch.no_grad()
def inverted(
    rung: Rung, scheduler: Any, predict: Predict, x_0: Tensor, iterations: int, progress: Any = None
) -> Tensor:
    """The noise from which deterministic DDIM draws x_0: its steps in reverse order, each solved for where it began.

    Args:
        scheduler: DDIM's, its timesteps set, without clipping.
        predict: the prediction that the samples follow.
        x_0: (B, ...) normalised data.
        iterations: of `ddim_inverse_step`; 1 is DDIM inversion as it is commonly done (arXiv 2010.02502, section 4.3).
        progress: called after every step with the number of samples.
    """
    x = x_0
    for t in scheduler.timesteps.flip(0):
        alpha_bar, alpha_bar_previous = scheduler.alpha_bar_pair(int(t), int(scheduler.previous_timestep(t)))
        x = ddim_inverse_step(predict, rung.schedule.prediction_type, x, t, alpha_bar, alpha_bar_previous, iterations)
        if progress is not None:
            progress(len(x))
    return x


def ddim_inverse_step(
    predict: Predict,
    prediction_type: str,
    previous: Tensor,
    t: Tensor,
    alpha_bar: Tensor,
    alpha_bar_previous: Tensor,
    iterations: int,
) -> Tensor:
    """x_t (B, ...) from which DDIM's eq. 12 with eta 0 leads to `previous`, by iterating it as a fixed point.

    x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) epsilon, where previous has the same x_0 and epsilon; but epsilon is
    the network's at x_t, which is not known yet: the first guess for it is `previous`, the next what comes out.
    """
    x_t = previous
    for _ in range(iterations):
        epsilon = x0_and_epsilon(prediction_type, predict(x_t, t), x_t, alpha_bar).epsilon
        x_0 = (previous - (1 - alpha_bar_previous).sqrt() * epsilon) / alpha_bar_previous.sqrt()
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * epsilon
    return x_t


def slerp(first: Tensor, last: Tensor, share: Tensor) -> Tensor:
    """Along the great arc from one noise to another (Shoemake 1985): as likely at every place as at its ends.

    A straight line between two standard normal tensors would lead through shorter ones, which noise never is.

    Args:
        first, last: (...) noise.
        share: (F,) places in [0, 1].

    Returns:
        (F, ...) noise.
    """
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0)
    angle = cosine.clamp(-1, 1).acos()
    share = share.view(-1, *[1] * first.ndim)
    if angle < 1e-4:  # the same noise: sin(angle) would be 0
        return torch.lerp(first.expand(len(share), *first.shape), last.expand(len(share), *last.shape), share)
    return (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()


def mixed(first: Predict, last: Predict, share: Tensor) -> Predict:
    """Between two predictions, such as those of two classes: (1 - share) first + share last.

    Args:
        share: (B,) in [0, 1], of each sample.
    """

    def predict(samples: Tensor, timestep: Tensor) -> Tensor:
        weight = share.to(samples.device).view(-1, *[1] * (samples.ndim - 1))
        return torch.lerp(first(samples, timestep), last(samples, timestep), weight)

    return predict
