"""Exercise 2: the betas of a schedule that is given by what is left of the signal, as the cosine schedule is.

    beta_t = min(1 - alpha_bar((t + 1) / T) / alpha_bar(t / T), 0.999),     t = 0 ... T - 1

Nichol and Dhariwal (arXiv 2102.09672), eq. 17 and section 3.2. Why the cap? Their alpha_bar(1) is 0.

Hint: alpha_bar_of takes and gives plain numbers; ask it T + 1 times, and take each pair of neighbours.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def beta_of_alpha_bar(alpha_bar_of: Callable[[float], float], T: int) -> Tensor:
    """The betas, (T,) float64, of a continuous alpha_bar(u) that falls from u = 0 to u = 1."""
    ...
