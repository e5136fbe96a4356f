"""Exercise 4: how the network is told the time.

    frequency_i = max_period^(-i / (size/2)),     i = 0 ... size/2 - 1
    embedding(t) = (cos(t frequency_0), ..., sin(t frequency_0), ...)

Vaswani et al. (arXiv 1706.03762), section 3.5, with all cosines before all sines.

Hint: timesteps[:, None] times frequencies[None, :] is (B, size/2). Timesteps can be integers or fractions.
"""

import torch
from torch import Tensor


def sinusoidal_embedding(timesteps: Tensor, size: int, max_period: float = 10_000.0) -> Tensor:
    """(B, size) float32 of timesteps (B,); size is even."""
    ...
