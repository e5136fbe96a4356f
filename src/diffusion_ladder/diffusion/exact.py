"""Denoisers in closed form: what a network that has learnt everything would answer.

The best prediction of x_0, in squared error, is its mean given x_t, E[x_0 | x_t]; the best epsilon, v and score follow
from it. For Gaussian data and for a finite data set this mean is known exactly.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion_ladder.diffusion.schedules import signal_and_noise_scales
from diffusion_ladder.diffusion.targets import training_target, x0_and_epsilon

CHUNK = 512  # noisy samples that are compared with a whole data set at once
WITHOUT_CANCELLATION = "donot_use_mm_for_euclid_dist"  # torch's other way subtracts large squares


def gaussian_x0(x_t: Tensor, alpha_bar_t: Tensor | float, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """E[x_0 | x_t] where each coordinate of x_0 is N(mean, std^2): the linear regression of x_0 on x_t.

    x_t: (B, ...); alpha_bar_t: a number, () or (B,); mean, std: numbers, or tensors that broadcast to x_t.
    """
    signal, noise = signal_and_noise_scales(alpha_bar_t, x_t)
    gain = signal * std**2 / (signal**2 * std**2 + noise**2)  # covariance of x_0 and x_t over the variance of x_t
    return mean + gain * (x_t - signal * mean)


def data_set_x0(x_t: Tensor, alpha_bar_t: float, data: Tensor) -> Tensor:
    """E[x_0 | x_t] where x_0 is one of N equally likely points: their mean, weighted by how likely each became x_t.

    Karras et al. (arXiv 2206.00364), eq. 57: the weights are the softmax of -|x_t - sqrt(alpha_bar) x_i|^2 / (2 (1 -
    alpha_bar)), which neither overflows nor vanishes altogether.

    Args:
        x_t: (B, ...) floating, in the data's units.
        alpha_bar_t: below 1, of the whole batch.
        data: (N, ...).
    """
    points = data.flatten(1).to(x_t.dtype)  # (N, D)
    means = [weights.softmax(dim=1) @ points for weights in log_weights(x_t.flatten(1), alpha_bar_t, points)]
    return torch.cat(means).reshape(x_t.shape)


def data_set_log_density(x_t: Tensor, alpha_bar_t: float, data: Tensor) -> Tensor:
    """log q(x_t), (B,), of the same data: equally likely points, scaled, with Gaussian noise around each."""
    points = data.flatten(1).to(x_t.dtype)  # (N, D)
    N, D = points.shape
    sums = [weights.logsumexp(dim=1) for weights in log_weights(x_t.flatten(1), alpha_bar_t, points)]
    return torch.cat(sums) - math.log(N) - D / 2 * math.log(2 * math.pi * (1 - alpha_bar_t))


def log_weights(x_t: Tensor, alpha_bar_t: float, points: Tensor) -> Iterator[Tensor]:
    """-|x_t - sqrt(alpha_bar) x_i|^2 / (2 (1 - alpha_bar)), (C, N), of a few of x_t (B, D) at once."""
    for queries in x_t.split(CHUNK):
        squared = torch.cdist(queries, alpha_bar_t**0.5 * points, compute_mode=WITHOUT_CANCELLATION).square()
        yield -squared / (2 * (1 - alpha_bar_t))


def prediction_of(prediction_type: str, x0: Tensor, x_t: Tensor, alpha_bar_t: Tensor | float) -> Tensor:
    """What a network of that prediction type answers at x_t (B, ...) if it means x_0 = x0 (B, ...).

    alpha_bar_t: a number, () or (B,), below 1. Raises ValueError as `x0_and_epsilon` and `training_target` do.
    """
    return training_target(prediction_type, *x0_and_epsilon("sample", x0, x_t, alpha_bar_t), alpha_bar_t)
