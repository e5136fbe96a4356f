"""Exercise 3: from a clean sample to a noisy one, in one jump.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon          DDPM, eq. 4

Hint: alpha_bar_t may hold one number for each sample; beside images (B, C, H, W) it must then have the shape
(B, 1, 1, 1). It is float64, so that its roots are exact; x_t has the dtype of x_0.
"""

import torch
from torch import Tensor


def add_noise(x0: Tensor, noise: Tensor, alpha_bar_t: Tensor | float) -> Tensor:
    """x_t, (B, ...), of clean samples x0 (B, ...) and their noise (B, ...); alpha_bar_t a number or (B,) float64."""
    ...
