"""Gaussian data, where all is known: the forward process in closed form, and the reverse chain as a recursion.

If x_0 ~ N(m, s^2), every x_t is Gaussian too, and so is each state of a chain whose denoiser is ideal: its steps are
affine. Where the two meet, sampling is exact; how far they are apart is what leaving out timesteps costs.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_ladder.diffusion.exact import gaussian_x0
from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.evaluation.bounds import rounded
from diffusion_ladder.schedulers.ddpm import ddpm_step, reverse_spread

STEPS = (10, 50)  # of the chains beside the one that visits every timestep


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of x_t, (F,) float64 each, at timesteps t counted from 1; 0 is the data."""

    timesteps: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Chains:
    """The forward process of Gaussian data in closed form, and reverse chains by their number of steps."""

    marginals: Moments
    chains: dict[int, Moments]


def closed_form(schedule: NoiseSchedule, mean: float, std: float) -> Moments:
    """The forward process at t = 0 ... T: N(sqrt(alpha_bar) m, alpha_bar s^2 + 1 - alpha_bar), DDPM eq. 4."""
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar])  # (T + 1,)
    return Moments(torch.arange(len(alpha_bar)), alpha_bar.sqrt() * mean, (alpha_bar * std**2 + 1 - alpha_bar).sqrt())


def reverse_chain(schedule: NoiseSchedule, steps: int, mean: float, std: float) -> Moments:
    """DDPM's chain (algorithm 2) with the ideal denoiser of N(mean, std^2), from pure noise at T to the data.

    Args:
        steps: how many of the T timesteps are visited, evenly spaced from the first to the last.
    """
    visited = torch.linspace(schedule.T, 1, steps, dtype=torch.float64).round().long()  # counted from 1
    alpha_bars = [*schedule.alpha_bar[visited - 1], torch.tensor(1.0, dtype=torch.float64)]
    states = [(0.0, 1.0)]  # mean and variance
    for pair in pairwise(alpha_bars):
        slope, offset, variance = affine_step(*pair, mean, std)
        states.append((slope * states[-1][0] + offset, slope**2 * states[-1][1] + variance))
    means, variances = torch.tensor(states, dtype=torch.float64).unbind(dim=1)
    return Moments(torch.cat([visited, torch.zeros(1, dtype=torch.int64)]), means, variances.sqrt())


def affine_step(alpha_bar: Tensor, alpha_bar_previous: Tensor, mean: float, std: float) -> tuple[float, float, float]:
    """Slope, offset and variance of one step: x_{t-1} = slope x_t + offset + sigma z. The last adds no noise."""
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)  # where the ideal denoiser and the step are asked
    at_0, at_1 = ddpm_step(x, gaussian_x0(x, alpha_bar, mean, std), alpha_bar, alpha_bar_previous).tolist()
    is_last = alpha_bar_previous.item() == 1
    return at_1 - at_0, at_0, 0.0 if is_last else reverse_spread("fixed_small", alpha_bar, alpha_bar_previous).item()


def gaussian_chains(schedule: NoiseSchedule, mean: float, std: float) -> Chains:
    """The forward process of N(mean, std^2) in closed form, and chains of few, more and all T steps."""
    counts = sorted({*(steps for steps in STEPS if steps < schedule.T), schedule.T})
    return Chains(closed_form(schedule, mean, std), {n: reverse_chain(schedule, n, mean, std) for n in counts})


def end_errors(chains: Chains) -> dict[str, float]:
    """How far the chains end from the data, by their number of steps, in standard deviations of the data."""
    mean, std = chains.marginals.mean[0].item(), chains.marginals.std[0].item()
    numbers = {}
    for steps, chain in chains.chains.items():
        numbers[f"gaussian_mean_error_of_{steps}_steps"] = rounded(abs(chain.mean[-1].item() - mean) / std)
        numbers[f"gaussian_std_error_of_{steps}_steps"] = rounded(abs(chain.std[-1].item() - std) / std)
    return numbers
