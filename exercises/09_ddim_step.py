"""Exercise 9: one step of DDIM, which needs no noise.

    x_{t-1} = sqrt(alpha_bar_{t-1}) x_0 + sqrt(1 - alpha_bar_{t-1} - sigma^2) epsilon + sigma z          DDIM, eq. 12
    sigma   = eta sqrt((1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_{t-1})    eq. 16

DDIM (arXiv 2010.02502) writes alpha_t for what is alpha_bar_t here. "t-1" is the timestep that is visited next.

Hint: at eta = 0 sigma is 0, and noise is None.
"""

from torch import Tensor


def ddim_step(
    x0: Tensor,
    epsilon: Tensor,
    alpha_bar: Tensor,
    alpha_bar_previous: Tensor,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_{t-1}, (B, ...); x0 and epsilon (as predicted) and noise z (B, ...); alpha_bar () float64 at t and at t-1."""
    ...
