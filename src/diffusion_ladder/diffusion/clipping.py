"""Keeping the predicted x_0 inside the data's range."""

import torch
from torch import Tensor


def dynamic_threshold(x0: Tensor, ratio: float, largest: float) -> Tensor:
    """Clip each sample at a percentile of its own magnitudes and divide by it (Imagen, arXiv 2205.11487, section 2.3).

    x0: (B, ...); ratio: the percentile as a share, e.g. 0.995; the threshold is kept in [1, largest], so that a sample
    that stays within [-1, 1] is left alone.
    """
    magnitudes = x0.flatten(1).abs()  # (B, D)
    if magnitudes.dtype != torch.float64:
        magnitudes = magnitudes.float()  # quantile knows no half precision
    threshold = magnitudes.quantile(ratio, dim=1).clamp(min=1, max=largest)  # (B,)
    threshold = threshold.reshape(-1, *[1] * (x0.ndim - 1))  # (B, 1, ..., 1)
    clipped = x0.to(magnitudes.dtype).clamp(-threshold, threshold) / threshold
    return clipped.to(x0.dtype)
