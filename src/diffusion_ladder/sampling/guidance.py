"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), in an interval of the noise (arXiv 2404.07724)."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.rungs import Rung

Predict = Callable[[Tensor, Tensor], Tensor]


def is_guided(timestep: float, T: int, settings: Sampling) -> bool:
    """Whether guidance acts at a timestep in [0, T): at scale 1 never, elsewhere in its interval, as a share of T."""
    first, last = settings.guidance_interval or (0.0, 1.0)
    return settings.guidance_scale != 1 and first <= timestep / T < last


def conditional(rung: Rung, labels: Tensor | None, precision: torch.dtype) -> Predict:
    """The network's own prediction: (B, ...) noisy samples at a timestep () to (B, ...), in float32.

    Args:
        rung: the model, in evaluation mode.
        labels: (B,) int64 requested labels, or None for an unconditional model.
        precision: of matrix products.
    """

    def predict(samples: Tensor, timestep: Tensor) -> Tensor:
        timesteps = timestep.to(samples.device).expand(len(samples))  # (B,)
        if samples.ndim == 4:
            samples = samples.contiguous(memory_format=torch.channels_last)
        with torch.autocast(samples.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            return rung.network(samples, timesteps, labels).float()

    return predict


def evaluations(timesteps: Tensor, T: int, settings: Sampling) -> int:
    """NFE: evaluations of the network for one sample along these timesteps; guidance needs two in place of one.

    At scale 0 it needs the unconditional prediction alone.
    """
    extra = settings.guidance_scale != 0
    return sum(1 + (extra and is_guided(float(timestep), T, settings)) for timestep in timesteps)


def guided(rung: Rung, labels: Tensor | None, settings: Sampling, precision: torch.dtype) -> Predict:
    """The prediction that a sampler asks for, as that of `conditional`, with the same arguments.

    With guidance scale w it is null + w (conditional - null), eq. 6 with w = 1 + their w. At w = 1, and outside the
    guidance interval, it is the conditional prediction, which is then computed alone, as is the unconditional one at
    w = 0; elsewhere each prediction costs two network evaluations.

    Args:
        settings: scale and interval of the guidance.
    """
    with_label = conditional(rung, labels, precision)
    if labels is None or rung.null_label is None:
        return with_label
    without_label = conditional(rung, torch.full_like(labels, rung.null_label), precision)

    def predict(samples: Tensor, timestep: Tensor) -> Tensor:
        if not is_guided(float(timestep), rung.schedule.T, settings):
            return with_label(samples, timestep)
        null = without_label(samples, timestep)
        if settings.guidance_scale == 0:
            return null
        return null + settings.guidance_scale * (with_label(samples, timestep) - null)

    return predict
