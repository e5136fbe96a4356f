"""Noise schedules: how much of the signal is left at each of the T timesteps of the forward process.

Notation of Ho et al. (DDPM, arXiv 2006.11239), counted from 0 as in code: beta_t is the variance added at step t,
alpha_t = 1 - beta_t, and alpha_bar_t, the product of alpha_0 ... alpha_t, is the share of signal variance left.
Everything is float64; whoever multiplies a sample by a coefficient casts it once, to the sample's own dtype.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

COSINE_OFFSET = 0.008  # Nichol and Dhariwal, s in eq. 17: keeps the first betas from vanishing
LARGEST_BETA = 0.999  # ibid., section 3.2: avoids a singularity at t = T
SIGMOID_REACH = 6.0  # the sigmoid schedule runs over [-6, 6], where the function is all but saturated


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I), t = 0 ... T-1: DDPM eq. 4."""

    # all (T,) float64
    beta: Tensor  # variance added by step t
    alpha: Tensor  # 1 - beta
    alpha_bar: Tensor  # product of the alphas up to t
    snr: Tensor  # signal-to-noise ratio alpha_bar / (1 - alpha_bar)
    sigma: Tensor  # standard deviation of the noise beside an unscaled x_0, 1 / sqrt(snr): infinite at SNR 0

    @property
    def T(self) -> int:  # noqa: N802 (the papers' name)
        """Number of timesteps; they run from 0 to T - 1, both included."""
        return len(self.beta)

    @property
    def terminal_signal(self) -> float:
        """sqrt(alpha_bar) of the last timestep: the share of x_0 still visible in what should be pure noise."""
        return math.sqrt(self.alpha_bar[-1].item())

    @property
    def terminal_snr(self) -> float:
        """The SNR of the last timestep, which a sampler that starts from pure noise takes for 0."""
        return self.snr[-1].item()

    def facts(self) -> dict[str, float | None]:
        """The process in a few numbers, None for the logarithm of an SNR of 0. Steps are counted from 1 to T."""
        first, last = self.snr[0].item(), self.terminal_snr
        noisy = (self.snr < 1).nonzero().flatten().tolist()
        return {
            "first_beta": self.beta[0].item(),
            "last_beta": self.beta[-1].item(),
            "terminal_alpha_bar": self.alpha_bar[-1].item(),
            "terminal_signal": self.terminal_signal,
            "first_log_snr": math.log(first),
            "terminal_log_snr": math.log(last) if last > 0 else None,
            "noise_outweighs_from": noisy[0] + 1 if noisy else None,
        }

    def alpha_bar_at(self, t: Tensor) -> Tensor:
        """alpha_bar at integer timesteps t of any shape: float64, on t's device (the CPU for MPS, which lacks it)."""
        device = torch.device("cpu") if t.device.type == "mps" else t.device
        return alpha_bar_on(self, device)[t.to(device)]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of each sample; x0 and noise (B, ...), t () or (B,) integers in [0, T). See `add_noise`."""
        return add_noise(x0, noise, self.alpha_bar_at(t))


@functools.lru_cache(maxsize=8)  # a copy to a GPU at every step would make the host wait for it
def alpha_bar_on(schedule: NoiseSchedule, device: torch.device) -> Tensor:
    """alpha_bar (T,) float64 on a device."""
    return schedule.alpha_bar.to(device)


def make_schedule(
    name: str, T: int, beta_start: float, beta_end: float, rescale_betas_zero_snr: bool = False
) -> NoiseSchedule:
    """The schedule of that name, checked: a beta outside (0, 1) is no variance of a diffusion.

    name: linear | scaled_linear | squaredcos_cap_v2 | sigmoid | laplace. beta_start, beta_end: the first and the last
    beta (squaredcos_cap_v2 and laplace have their own). rescale_betas_zero_snr: end in pure noise, at beta = 1.
    Raises ValueError for such a beta or T < 1, NotImplementedError for another name.
    """
    if T < 1:
        raise ValueError(f"T is {T}: a schedule needs at least one timestep")
    beta = make_beta(name, T, beta_start, beta_end)
    if beta.min() <= 0 or beta.max() >= 1:
        raise ValueError(
            f"schedule {name} from beta_start {beta_start} to beta_end {beta_end} leaves (0, 1), where betas belong"
        )
    return schedule_from_betas(beta, rescale_betas_zero_snr)


def schedule_from_betas(beta: Tensor, rescale_betas_zero_snr: bool = False) -> NoiseSchedule:
    """The schedule with these betas (T,), taken as they are; optionally rescaled to zero terminal SNR."""
    beta = beta.to(torch.float64)
    alpha_bar = torch.cumprod(1 - beta, dim=0)  # (T,)
    if rescale_betas_zero_snr:
        return schedule_from_alpha_bar(rescale_to_zero_terminal_snr(alpha_bar))
    return schedule_of(beta, alpha_bar)


def schedule_from_alpha_bar(alpha_bar: Tensor) -> NoiseSchedule:
    """The schedule whose alpha_bar (T,) is given: alpha_t = alpha_bar_t / alpha_bar_{t-1}."""
    alpha_bar = alpha_bar.to(torch.float64)
    return schedule_of(beta_between(alpha_bar), alpha_bar)


def beta_between(alpha_bar: Tensor) -> Tensor:
    """The betas (T,) of which alpha_bar (T,) is the running product: 1 - alpha_bar_t / alpha_bar_{t-1}."""
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


def schedule_of(beta: Tensor, alpha_bar: Tensor) -> NoiseSchedule:
    """The schedule of matching betas and alpha_bars, both (T,) float64."""
    snr = alpha_bar / (1 - alpha_bar)
    return NoiseSchedule(beta=beta, alpha=1 - beta, alpha_bar=alpha_bar, snr=snr, sigma=snr.rsqrt())


def make_beta(name: str, T: int, beta_start: float, beta_end: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """The T betas of a schedule by name, unchecked."""
    match name:
        case "linear":  # DDPM, section 4
            return torch.linspace(beta_start, beta_end, T, dtype=dtype)
        case "scaled_linear":  # latent diffusion (arXiv 2112.10752): linear in sqrt(beta)
            return torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=dtype) ** 2
        case "squaredcos_cap_v2":
            return beta_of_alpha_bar(cosine_alpha_bar, T).to(dtype)
        case "laplace":
            return beta_of_alpha_bar(laplace_alpha_bar, T).to(dtype)
        case "sigmoid":  # GeoDiff (arXiv 2203.02923)
            rising = torch.linspace(-SIGMOID_REACH, SIGMOID_REACH, T, dtype=dtype).sigmoid()
            return beta_start + (beta_end - beta_start) * rising
        case _:
            known = "linear, scaled_linear, squaredcos_cap_v2, sigmoid or laplace"
            raise NotImplementedError(f"beta_schedule {name} is not implemented: choose {known}")


def beta_of_alpha_bar(alpha_bar_of: Callable[[float], float], T: int) -> Tensor:
    """Betas of a continuous alpha_bar(u), u in [0, 1]: 1 - alpha_bar((t+1)/T) / alpha_bar(t/T), at most 0.999."""
    alpha_bar = [alpha_bar_of(t / T) for t in range(T + 1)]
    beta = [min(1 - after / before, LARGEST_BETA) for before, after in pairwise(alpha_bar)]
    return torch.tensor(beta, dtype=torch.float64)


def cosine_alpha_bar(u: float) -> float:
    """Nichol and Dhariwal (arXiv 2102.09672), eq. 17, without its constant factor 1 / f(0), which cancels in beta."""
    return math.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2


def laplace_alpha_bar(u: float) -> float:
    """Log-SNRs at the quantiles of a Laplace distribution (arXiv 2407.03297), with the constants of diffusers.

    alpha_bar is the sigmoid of the log-SNR; diffusers takes the root of that, the scale of the signal, for alpha_bar.
    """
    log_snr = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)
    return 1 / (1 + math.exp(-log_snr))


def rescale_to_zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """alpha_bar (T,) with its root shifted and scaled, so that the last is 0 and the first stays.

    Algorithm 1 of arXiv 2305.08891. Raises ValueError for fewer than two timesteps.
    """
    signal = alpha_bar.sqrt()  # (T,)
    if len(signal) < 2:
        raise ValueError("zero terminal SNR needs at least two timesteps: the first keeps its SNR, the last gets none")
    first, last = signal[0], signal[-1]
    return ((signal - last) * (first / (first - last))) ** 2


def signal_and_noise_scales(alpha_bar_t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t): computed in float64, cast once to x's dtype, shaped to broadcast.

    alpha_bar_t: a number or (), for a batch that shares its timestep, or (B,) float64 beside x (B, ...).
    """
    if not isinstance(alpha_bar_t, Tensor):
        return math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)
    if alpha_bar_t.ndim == 0:  # plain numbers suit every device and dtype
        return alpha_bar_t.sqrt().item(), (1 - alpha_bar_t).sqrt().item()
    alpha_bar_t = alpha_bar_t.reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, ..., 1)
    signal, noise = alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt()
    return signal.to(x.dtype).to(x.device), noise.to(x.dtype).to(x.device)


def add_noise(x0: Tensor, noise: Tensor, alpha_bar_t: Tensor | float) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon, DDPM eq. 4, in x_0's dtype.

    x0, noise: (B, ...) floating; alpha_bar_t: a number, () or (B,). Raises ValueError for integer samples.
    """
    if not x0.is_floating_point():
        raise ValueError(f"noise can't be added to {x0.dtype} samples: normalise them to floating point first")
    signal_scale, noise_scale = signal_and_noise_scales(alpha_bar_t, x0)
    return signal_scale * x0 + noise_scale * noise
