"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598)."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_ladder.rungs import Rung

Predict = Callable[[Tensor, Tensor], Tensor]


def guided(rung: Rung, labels: Tensor | None, guidance_scale: float, precision: torch.dtype) -> Predict:
    """The prediction that a sampler asks for: (B, ...) noisy samples and (B,) timesteps to (B, ...), in float32.

    With guidance scale w it is null + w (conditional - null), eq. 6 with w = 1 + their w. At w = 1 that is the
    conditional prediction, which is then computed alone; elsewhere each prediction costs two network evaluations.

    Args:
        rung: the model, in evaluation mode.
        labels: (B,) int64 requested labels, or None for an unconditional model.
        guidance_scale: w; 1 for none.
        precision: of matrix products.
    """

    def predict(samples: Tensor, timesteps: Tensor) -> Tensor:
        if samples.ndim == 4:
            samples = samples.contiguous(memory_format=torch.channels_last)
        with torch.autocast(samples.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            conditional = rung.network(samples, timesteps, labels).float()
            if guidance_scale == 1 or labels is None or rung.null_label is None:
                return conditional
            null = rung.network(samples, timesteps, torch.full_like(labels, rung.null_label)).float()
        return null + guidance_scale * (conditional - null)

    return predict
