"""Exercise 5: what the network is trained on.

    losses = weight(t) |target - network(x_t, t)|^2, averaged over each example's values          DDPM, eq. 14

The target is epsilon, x_0, or v = sqrt(alpha_bar_t) epsilon - sqrt(1 - alpha_bar_t) x_0, as
rung.schedule.prediction_type says (epsilon, sample or v_prediction).

What you are given: batch.x0 and batch.noise (B, ...), batch.timesteps (B,), batch.labels (B,) or None;
scheduler.add_noise(x0, noise, timesteps); rung.network(x_t, timesteps, labels).

Hint: the functions imported below give alpha_bar at the timesteps, the target, and the weight. In the checks,
precision is float32: nothing to do for it.
"""

from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.diffusion.targets import training_target
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.params.training import LossWeight
from diffusion_ladder.rungs import Rung
from diffusion_ladder.training.loop import Batch, weight_of


def losses_of(rung: Rung, scheduler: Any, batch: Batch, weighting: LossWeight | None, precision: torch.dtype) -> Tensor:
    """One loss for each example, (B,): forward_process(rung.schedule).alpha_bar_at(timesteps) is alpha_bar_t, (B,)."""
    ...
