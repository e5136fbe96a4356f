"""What the network predicts, and what its error weighs.

Given x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon, any one of x_0, epsilon and
v = sqrt(alpha_bar_t) epsilon - sqrt(1 - alpha_bar_t) x_0 determines the other two.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_ladder.diffusion.schedules import signal_and_noise_scales
from diffusion_ladder.diffusion.terminal_snr import NO_SIGNAL

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
NO_NOISE = "epsilon can't be told from x_0 where alpha_bar is 1: there is no noise in x_t"


class CleanAndNoise(NamedTuple):
    """The two parts of x_t, as the network sees them."""

    x0: Tensor  # (B, ...)
    epsilon: Tensor  # (B, ...)


def training_target(prediction_type: str, x0: Tensor, noise: Tensor, alpha_bar_t: Tensor | float) -> Tensor:
    """What the network should answer at x_t; x0 and noise (B, ...), alpha_bar_t a number, () or (B,).

    Raises ValueError for an unknown type. Epsilon where alpha_bar_t is 0 is left to `refuse_undefined_target`, since
    looking at numbers on a GPU would make the host wait for it at every step.
    """
    match prediction_type:
        case "epsilon":
            return noise
        case "sample":
            return x0
        case "v_prediction":
            return velocity(x0, noise, alpha_bar_t)
        case _:
            raise unknown_prediction_type(prediction_type)


def refuse_undefined_target(prediction_type: str, alpha_bar: Tensor) -> None:
    """Raise ValueError, with the reason, for training epsilon on a schedule (T,) where an alpha_bar is 0."""
    if prediction_type == "epsilon":
        refuse_value(alpha_bar, 0, NO_SIGNAL)


def target_mean_square(prediction_type: str, alpha_bar: Tensor, data_mean_square: float) -> Tensor:
    """E |target|^2 per value at alpha_bar (T,): the squared error of a network that always answers zero.

    data_mean_square: E x_0^2 of the normalised data; epsilon has mean square 1, and is independent of x_0.
    """
    match prediction_type:
        case "epsilon":
            return torch.ones_like(alpha_bar)
        case "sample":
            return torch.full_like(alpha_bar, data_mean_square)
        case "v_prediction":
            return alpha_bar + (1 - alpha_bar) * data_mean_square
        case _:
            raise unknown_prediction_type(prediction_type)


def velocity(x0: Tensor, noise: Tensor, alpha_bar_t: Tensor | float) -> Tensor:
    """v = sqrt(alpha_bar_t) epsilon - sqrt(1 - alpha_bar_t) x_0 (Salimans and Ho, arXiv 2202.00512, section 4)."""
    signal_scale, noise_scale = signal_and_noise_scales(alpha_bar_t, x0)
    return signal_scale * noise - noise_scale * x0


def x0_and_epsilon(
    prediction_type: str, model_output: Tensor, x_t: Tensor, alpha_bar_t: Tensor | float
) -> CleanAndNoise:
    """Read a prediction of any type as (x_0, epsilon); model_output and x_t (B, ...), alpha_bar_t a number, () or (B,).

    The inverse of `training_target`. Raises ValueError for an unknown type, for epsilon where alpha_bar_t is 0, and
    for sample where it is 1.
    """
    if prediction_type == "epsilon":
        refuse_value(alpha_bar_t, 0, NO_SIGNAL)
    if prediction_type == "sample":
        refuse_value(alpha_bar_t, 1, NO_NOISE)
    return parts_of(prediction_type, model_output, x_t, *signal_and_noise_scales(alpha_bar_t, x_t))


def parts_of(
    prediction_type: str, model_output: Tensor, x_t: Tensor, signal_scale: Tensor | float, noise_scale: Tensor | float
) -> CleanAndNoise:
    """(x_0, epsilon) of x_t = signal_scale x_0 + noise_scale epsilon; for v the squares of the scales add up to 1."""
    match prediction_type:
        case "epsilon":  # DDPM eq. 15
            return CleanAndNoise((x_t - noise_scale * model_output) / signal_scale, model_output)
        case "sample":
            return CleanAndNoise(model_output, (x_t - signal_scale * model_output) / noise_scale)
        case "v_prediction":  # (x_t, v) is (x_0, epsilon) turned by an angle, so turn it back
            return CleanAndNoise(
                signal_scale * x_t - noise_scale * model_output, noise_scale * x_t + signal_scale * model_output
            )
        case _:
            raise unknown_prediction_type(prediction_type)


def refuse_value(alpha_bar_t: Tensor | float, forbidden: float, reason: str) -> None:
    """Raise ValueError(reason) if any alpha_bar_t is the forbidden value."""
    if bool((torch.as_tensor(alpha_bar_t) == forbidden).any()):
        raise ValueError(reason)


def unknown_prediction_type(prediction_type: str) -> ValueError:
    """The error for a prediction type that isn't one."""
    return ValueError(f"prediction_type {prediction_type} must be one of epsilon, sample or v_prediction")


def loss_weight(name: str, prediction_type: str, snr: Tensor, gamma: float) -> Tensor:
    """Weight of the squared error of a prediction, per sample; snr (B,) in [0, inf], the result is finite there.

    uniform: 1 whatever is predicted. min_snr: SNR clamped at gamma (arXiv 2303.09556; 5 there) on x_0's error. p2:
    (1 + SNR)^-gamma on epsilon's error (arXiv 2204.00227; 1 there). The last two give the same loss whatever is
    predicted; both give v_prediction the weight 0 at SNR 0. Raises ValueError for another name or prediction type.
    """
    match name:
        case "uniform":
            return torch.ones_like(snr)
        case "min_snr":
            return min_snr_weight(prediction_type, snr, gamma)
        case "p2":
            return p2_weight(prediction_type, snr, gamma)
        case _:
            raise ValueError(f"loss weighting {name} must be one of uniform, min_snr or p2")


def min_snr_weight(prediction_type: str, snr: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) on x_0's error, and its equivalents (Hang et al., arXiv 2303.09556)."""
    match prediction_type:
        case "sample":
            return snr.clamp(max=gamma)
        case "epsilon":  # min(SNR, gamma) / SNR, without 0 / 0
            return (gamma / snr).clamp(max=1)
        case "v_prediction":  # min(SNR, gamma) / (SNR + 1), without inf / inf
            return (gamma / snr).clamp(max=1) * alpha_bar_of_snr(snr)
        case _:
            raise unknown_prediction_type(prediction_type)


def p2_weight(prediction_type: str, snr: Tensor, gamma: float, k: float = 1.0) -> Tensor:
    """1 / (k + SNR)^gamma on epsilon's error, and its equivalents: P2 (Choi et al., arXiv 2204.00227)."""
    on_epsilon = (k + snr) ** -gamma
    match prediction_type:
        case "epsilon":
            return on_epsilon
        case "sample":  # times SNR: errors of epsilon and x_0 differ by that factor; SNR / (k + SNR) without inf / inf
            return (k + snr) ** (1 - gamma) / (1 + k / snr)
        case "v_prediction":  # times SNR / (SNR + 1)
            return on_epsilon * alpha_bar_of_snr(snr)
        case _:
            raise unknown_prediction_type(prediction_type)


def alpha_bar_of_snr(snr: Tensor) -> Tensor:
    """SNR / (1 + SNR), from 0 at SNR 0 to 1 at infinite SNR."""
    return 1 / (1 + 1 / snr)
