"""Which of the T training timesteps a sampler visits: Table 2 of arXiv 2305.08891."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


def spaced_timesteps(spacing: str, T: int, steps: int, steps_offset: int = 0) -> Tensor:
    """`steps` of the timesteps 0 ... T-1 in falling order, (steps,) int64.

    linspace: from T-1 to 0 in equal parts. leading: multiples of T // steps, plus steps_offset; ends at 0 but starts
    below T-1. trailing: starts at T-1, where the noise is pure. Raises ValueError for more steps than timesteps.
    """
    if not 1 <= steps <= T:
        raise ValueError(
            f"num_inference_steps is {steps}: it must lie between 1 and {T}, the number of timesteps trained on"
        )
    match spacing:
        case "linspace":
            timesteps = np.linspace(0, T - 1, steps).round()[::-1]
        case "leading":
            timesteps = np.arange(steps, dtype=np.float64)[::-1] * (T // steps) + steps_offset
        case "trailing":  # arange by a fraction may overrun by one element, which would be the timestep -1
            timesteps = np.arange(T, 0, -T / steps)[:steps].round() - 1
        case _:
            raise ValueError(f"timestep_spacing {spacing} is not supported: choose linspace, leading or trailing")
    if timesteps[0] >= T:
        raise ValueError(
            f"steps_offset {steps_offset} starts at timestep {timesteps[0]:.0f}; the last trained on is {T - 1}"
        )
    return torch.from_numpy(timesteps.astype(np.int64))


def checked_timesteps(timesteps: list[int], T: int) -> Tensor:
    """The given timesteps as (steps,) int64. Raises ValueError unless they fall strictly and start below T."""
    if any(later >= earlier for earlier, later in pairwise(timesteps)):
        raise ValueError("`custom_timesteps` must be in descending order.")
    if timesteps[0] >= T:
        raise ValueError(f"`timesteps` must start before `self.config.train_timesteps`: {T}.")
    return torch.tensor(timesteps, dtype=torch.int64)
