"""What the networks share: the embedding of the timestep, and of squares of pixels as channels."""

import functools
import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(timesteps: Tensor, size: int, max_period: float = 10_000.0) -> Tensor:
    """Embed timesteps as cosines and sines of geometrically spaced frequencies.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, as DDPM uses it: frequency i is
    max_period^(-i / (size/2)), for i = 0 .. size/2 - 1.

    Args:
        timesteps: (B,) integers or floats in [0, T).
        size: length of the embedding, even.
        max_period: the longest wavelength is 2 pi times this many timesteps.

    Returns:
        (B, size) float32 in [-1, 1]: the cosines first, then the sines.
    """
    if size % 2:
        raise ValueError(f"the embedding size must be even, not {size}")
    exponents = torch.arange(size // 2, dtype=torch.float32, device=timesteps.device) / (size // 2)
    frequencies = torch.exp(-math.log(max_period) * exponents)  # (size/2,)
    angles = timesteps.float()[:, None] * frequencies[None, :]  # (B, size/2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, size)


class TimeEmbedding(nn.Module):
    """The sinusoidal embedding followed by a two-layer perceptron (DDPM, appendix B)."""

    def __init__(self, sinusoid_size: int, size: int) -> None:
        super().__init__()
        self.sinusoid_size = sinusoid_size
        self.linear_1 = nn.Linear(sinusoid_size, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) timesteps to a (B, size) conditioning vector."""
        sinusoids = sinusoidal_embedding(timesteps, self.sinusoid_size)
        return self.linear_2(nn.functional.silu(self.linear_1(sinusoids)))


def condition(time: Tensor, class_embedding: nn.Embedding | None, class_labels: Tensor | None) -> Tensor:
    """What a network is told besides the noisy sample: (B, time_size) of the time, plus that of the class if any.

    Raises:
        ValueError: labels (B,) are missing for a network with a class embedding, or given to one without.
    """
    if (class_embedding is None) != (class_labels is None):
        raise ValueError("class labels are needed exactly where the network has a class embedding")
    return time if class_embedding is None else time + class_embedding(class_labels)


def fold(images: Tensor, patch_size: int, haar: bool = False) -> Tensor:
    """Fold squares of pixels into channels: (B, C, H, W) to (B, C p^2, H/p, W/p) (pixel-unshuffle, arXiv 1609.05158).

    With `haar` the p^2 channels of a square are its Haar coefficients in place of its pixels, its mean times p first.
    The transform is orthonormal: white noise stays white, and where an image is flat all but the first are zero.

    Raises:
        ValueError: the height or the width is no multiple of `patch_size`.
    """
    if images.shape[2] % patch_size or images.shape[3] % patch_size:
        height, width = images.shape[2:]
        raise ValueError(f"images of {height}x{width} can't be cut into squares of {patch_size}x{patch_size}")
    folded = nn.functional.pixel_unshuffle(images, patch_size) if patch_size > 1 else images
    return mixed(folded, square_haar_matrix(patch_size)) if haar else folded


def unfold(folded: Tensor, patch_size: int, haar: bool = False) -> Tensor:
    """Undo `fold`: (B, C p^2, H/p, W/p) to (B, C, H, W)."""
    pixels = mixed(folded, square_haar_matrix(patch_size).T) if haar else folded
    return nn.functional.pixel_shuffle(pixels, patch_size) if patch_size > 1 else pixels


def mixed(folded: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the p^2 channels of each square by a matrix (p^2, p^2): (B, C p^2, H, W) to the same shape."""
    blocks = folded.shape[1] // len(matrix)
    kernel = torch.block_diag(*[matrix] * blocks)[:, :, None, None]  # (C p^2, C p^2, 1, 1): a 1x1 convolution
    return nn.functional.conv2d(folded, kernel.to(folded.device, folded.dtype))


@functools.cache
def square_haar_matrix(side: int) -> Tensor:
    """The orthonormal Haar transform of squares of side 2, 4, 8 ..., row by row: (side^2, side^2) float32."""
    rows = haar_matrix(side)
    return torch.kron(rows, rows).float()


def haar_matrix(size: int) -> Tensor:
    """The orthonormal Haar transform of vectors of length 1, 2, 4 ...: (size, size) float64, coarse rows first.

    Haar 1910, as a recursion: sums of neighbours are transformed further, their differences are the finest details.
    """
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    coarse = torch.kron(haar_matrix(size // 2), torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    details = torch.kron(torch.eye(size // 2, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    return torch.cat([coarse, details]) / math.sqrt(2)
