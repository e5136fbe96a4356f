"""Exponential moving average of the weights, from which samples are drawn."""

import math

import torch
from torch import Tensor, nn


def ema_decay(step: int, longest: float, warmup: int) -> float:
    """The decay at a step (counted from 1): it rises as (1 + step) / (warmup + step) up to `longest`.

    With a warm-up of 10 the average always covers about the last tenth of the run, until it covers 1 / (1 - longest)
    steps: without the rise, the random initial weights would stay in it long after training has left them.
    """
    return min(longest, (1 + step) / (warmup + step))


def half_life(decay: float, batch_size: int) -> float:
    """Images after which a step's weights count half as much in the average: those of log(1/2) / log(decay) steps."""
    return batch_size * math.log(0.5) / math.log(decay) if decay else 0.0


class ExponentialMovingAverage:
    """Holds the average of a network's parameters, in float32.

    Attributes:
        longest: the decay that it is to reach, see `ema_decay`.
    """

    def __init__(self, network: nn.Module, longest: float) -> None:
        self.longest = longest
        self.average: list[Tensor] = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """average = decay * average + (1 - decay) * parameter, after an optimiser step."""
        torch._foreach_lerp_(self.average, list(network.parameters()), 1 - decay)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Give the network the averaged parameters."""
        for parameter, average in zip(network.parameters(), self.average, strict=True):
            parameter.copy_(average)
