"""Exercise 6: the average of the weights, from which samples are drawn.

    average <- decay average + (1 - decay) parameter,     after each optimiser step

self.average is a list of tensors, one for each of network.parameters(), in their order.

Hint: write into the tensors of self.average (mul_, add_, lerp_ or copy_); a new tensor bound to the loop's variable
changes nothing. The average needs no gradient: torch.no_grad().
"""

import torch
from torch import nn

from diffusion_ladder.training.ema import ExponentialMovingAverage


def update(self: ExponentialMovingAverage, network: nn.Module, decay: float) -> None:
    """Move self.average toward the network's parameters; nothing is returned."""
    ...
