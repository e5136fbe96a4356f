"""Exercise 8: one step of DDPM, from x_t to x_{t-1}.

    alpha_t = alpha_bar_t / alpha_bar_{t-1},     beta_t = 1 - alpha_t
    mean    = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x_0
              + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t          DDPM, eq. 7
    x_{t-1} = mean + sigma z                                                         algorithm 2, line 4

Hint: at the last step, t = 0, alpha_bar_{t-1} is 1 and no noise is given (None): draw none (algorithm 2, line 3).
"""

from torch import Tensor


def ddpm_step(
    x_t: Tensor,
    x0: Tensor,
    alpha_bar: Tensor,
    alpha_bar_previous: Tensor,
    sigma: Tensor | float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_{t-1}, (B, ...); x_t, x0 (as predicted) and noise z (B, ...); alpha_bar () float64 at t and at t-1."""
    ...
