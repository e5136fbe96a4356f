"""Exercise 10: classifier-free guidance.

    prediction = null + w (conditional - null)          arXiv 2207.12598, eq. 6, with w = 1 + their w

null is the prediction without a class: under the label rung.null_label. w is settings.guidance_scale; guidance acts
where is_guided(timestep, rung.schedule.T, settings) says so, and elsewhere the conditional prediction stands alone.

Hint: conditional(rung, labels, precision) makes a function (samples, timestep) -> prediction. Call it twice, once with
the labels and once with null labels, and return a function that mixes the two. Without labels, or without a null label,
there is nothing to mix. Where one evaluation of the network is enough, make one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.rungs import Rung
from diffusion_ladder.sampling.guidance import conditional, is_guided


def guided(
    rung: Rung, labels: Tensor | None, settings: Sampling, precision: torch.dtype
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function predict(samples, timestep): (B, ...) and () to (B, ...); labels (B,) int64 or None."""
    ...
