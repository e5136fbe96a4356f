"""Exercise 7: what a prediction says of the clean sample, and of the noise.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon
    v   = sqrt(alpha_bar_t) epsilon - sqrt(1 - alpha_bar_t) x_0

The network answers one of epsilon, x_0 (sample) and v (v_prediction); x_t is known. Solve for the other two.
DDPM, eq. 15, for epsilon; Salimans and Ho (arXiv 2202.00512), section 4, for v.

Hint: (x_t, v) is (x_0, epsilon) turned by an angle whose cosine is sqrt(alpha_bar_t): turn it back.
`signal_and_noise_scales` gives both roots, shaped to broadcast.
"""

from torch import Tensor

from diffusion_ladder.diffusion.schedules import signal_and_noise_scales


def x0_and_epsilon(
    prediction_type: str, model_output: Tensor, x_t: Tensor, alpha_bar_t: Tensor | float
) -> tuple[Tensor, Tensor]:
    """x_0 and epsilon, (B, ...) each; model_output and x_t (B, ...), alpha_bar_t a number or (B,) float64."""
    ...
