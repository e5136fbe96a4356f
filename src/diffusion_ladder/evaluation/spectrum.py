"""How finely images are grained: their power by spatial frequency, which no classifier of their content looks at.

Real images of one kind have a spectrum of their own, which falls steeply; networks that draw images leave too much or
too little of it at the highest frequencies (Durall et al. 2020, arXiv 2003.01826), and those that draw squares of two
pixels at once leave a checkerboard, whose power is all at the frequencies of period two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_ladder.evaluation.bounds import EqualSets, mean_and_deviation, rounded
from diffusion_ladder.evaluation.findings import Rows

HIGH = 0.375  # cycles a pixel: three quarters of the highest frequency along an axis, a period of 8/3 pixels
TINY = 1e-12  # squared grey levels: less power than that of one pixel that is off by one
NORMAL_MEDIAN = 0.6744897501960817  # of the absolute value of a standard normal number


def power_spectrum(images: Tensor) -> Tensor:
    """The mean power at each frequency, (H, W) float64 in squared grey levels, in the order of `torch.fft.fft2`.

    Images have their means taken away, a channel at a time, so that the power at frequency nought is 0. The scale is
    that of Parseval's theorem: the mean over all frequencies is the pixels' mean variance within an image; white noise
    of variance v has v everywhere.

    Args:
        images: (N, C, H, W) in grey levels.
    """
    total, pixels = torch.zeros(images.shape[-2:], dtype=torch.float64), images.shape[-2:].numel()
    for batch in images.split(256):  # of a whole data set, complex numbers would be large
        values = batch.double()
        centred = values - values.mean(dim=(-2, -1), keepdim=True)
        total += torch.fft.fft2(centred).abs().square().sum(dim=(0, 1)) / pixels
    return total / images.shape[:2].numel()


def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The absolute frequencies down, (H, 1), and across, (1, W), in cycles a pixel: at most a half."""
    down, across = (torch.fft.fftfreq(side, dtype=torch.float64).abs() for side in (height, width))
    return down[:, None], across[None, :]


def radial_frequency(height: int, width: int) -> Tensor:
    """The length of each frequency's vector (H, W), in cycles a pixel: at most the root of a half."""
    return torch.hypot(*frequencies(height, width))


def radial_average(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """The power by the length of the frequency alone.

    Args:
        spectrum: (H, W), as `power_spectrum` gives it.

    Returns:
        the frequencies k / max(H, W) for k = 1, 2, ... in cycles a pixel, (K,), and the mean power (K,) of all
        frequencies that lie nearest to each. The last ones are reached along the diagonal alone.
    """
    side, length = max(spectrum.shape), radial_frequency(*spectrum.shape)
    ring = (length * side).round().long().flatten()
    sums = torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(0, ring, spectrum.flatten())
    means = sums / ring.bincount()
    return torch.arange(1, len(means), dtype=torch.float64) / side, means[1:]


def high_frequency_share(spectrum: Tensor) -> float:
    """The share of the power (H, W) at frequencies of HIGH or more; 0 where there is no power at all."""
    return float(spectrum[radial_frequency(*spectrum.shape) >= HIGH].sum() / spectrum.sum().clamp(min=TINY))


def two_pixel_share(spectrum: Tensor) -> float:
    """The share of the power (H, W) at the three frequencies of period two: of stripes across, down and checkers.

    Where a side is odd there is no such period, and the longest frequencies along it take its place.
    """
    down, across = (values.amax() == values for values in frequencies(*spectrum.shape))
    level, upright = (values == 0 for values in frequencies(*spectrum.shape))
    return float(spectrum[(down & across) | (down & upright) | (level & across)].sum() / spectrum.sum().clamp(min=TINY))


def spectrum_ratios(some: Tensor, held_out: Tensor) -> dict[str, float]:
    """Both shares of some images, as multiples of those of held-out images; (N, C, H, W) and (M, C, H, W)."""
    first, second = power_spectrum(some), power_spectrum(held_out)
    shares = {"high_frequency_ratio": high_frequency_share, "two_pixel_ratio": two_pixel_share}
    return {name: share(first) / share(second) for name, share in shares.items()}


def noise_level(images: Tensor) -> Tensor:
    """The standard deviation of the fine noise on each image (N, C, H, W), in grey levels: (N,) float64.

    The median of the finest diagonal wavelet coefficients' absolute values, over that of a standard normal number
    (Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", section 4.2). Here they are Haar's, at
    every place. Edges are too few to move the median, so that flat drawings have 0.
    """
    pixels = images.double()
    diagonal = pixels.diff(dim=-1).diff(dim=-2) / 2  # (N, C, H - 1, W - 1)
    return diagonal.abs().flatten(1).median(dim=1).values / NORMAL_MEDIAN


def spectrum_rows(sets: Sequence[EqualSets]) -> Rows:
    """The radial spectra, a row for each frequency: of samples with their deviation over the seeds, and of data.

    Args:
        sets: of images, for each sampling seed.
    """
    found = {
        role: [radial_average(power_spectrum(getattr(of_seed, role))) for of_seed in sets]
        for role in ("samples", "floor", "held_out")
    }
    rows: Rows = []
    for k, frequency in enumerate(found["samples"][0][0].tolist()):
        row: dict[str, float | str] = {"frequency": rounded(frequency)}
        for role, name in (("samples", "samples"), ("floor", "train"), ("held_out", "held_out")):
            mean, deviation = mean_and_deviation([float(power[k]) for _, power in found[role]])
            row |= {name: rounded(mean), f"{name}_std": rounded(deviation)}
        rows.append(row)
    return rows
