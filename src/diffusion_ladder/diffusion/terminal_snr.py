"""What is left of the data at the last timestep, where sampling starts from pure noise: Lin et al., arXiv 2305.08891.

No torch here: the check of the parameters and the report say the same as the training, without waiting for it.
"""

import math

NO_SIGNAL = (
    "epsilon-prediction is undefined at zero terminal SNR: there x_t is pure noise, so epsilon = x_t tells nothing"
    " about x_0 (arXiv 2305.08891, section 3.2); choose v_prediction or sample, or a schedule that isn't rescaled"
)


SMALL_SNR = 1e-4  # of what is left of x_0 at the last timestep: one that can't be seen


def terminal_snr_notice(terminal_snr: float) -> str | None:
    """What to know, and to do, about an SNR at the last timestep above SMALL_SNR; None for one within it."""
    if terminal_snr <= SMALL_SNR:
        return None
    signal = math.sqrt(terminal_snr / (1 + terminal_snr))
    return (
        f"the last timestep keeps {signal:.2g} of x_0 (terminal SNR {terminal_snr:.2g}, above "
        f"{SMALL_SNR:.2g}), while sampling starts from pure noise; the remedy is `rescale_betas_zero_snr: true` with "
        "`prediction_type: v_prediction` and `spacing: trailing` (arXiv 2305.08891)"
    )
