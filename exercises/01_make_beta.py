"""Exercise 1: how much noise each step adds.

    linear:         beta_t = beta_start + t / (T - 1) (beta_end - beta_start)                        DDPM, section 4
    scaled_linear:  sqrt(beta_t) = sqrt(beta_start) + t / (T - 1) (sqrt(beta_end) - sqrt(beta_start))

t counts from 0 to T - 1: the first beta is beta_start, the last one beta_end.

Hint: torch.linspace gives the line. The project's function knows more names; these two are enough here.
"""

import torch
from torch import Tensor


def make_beta(name: str, T: int, beta_start: float, beta_end: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """The betas of a schedule, (T,) float64; name is linear or scaled_linear."""
    ...
