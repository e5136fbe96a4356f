"""Features that know nothing of labels, for distances that don't rest on one trained network.

- Random convolutions: a small network whose weights are drawn and never trained. Such features tell sets of images
  apart where those trained on another task are blind (Naeem et al. 2020, arXiv 2002.09797, section 3.2). Here they are
  means and deviations over all places, of filters at full resolution and at half of it: of texture, not of content.
- Principal components of the pixels: of content, that is which colour is where, and not of texture.

Both are fitted to training images: the one is whitened by their covariance, as otherwise a difference in what hardly
varies among data would be lost beside what varies most; the other has the axes along which they vary most.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

CHANNELS = 8  # of either convolution
COMPONENTS = 16  # principal components
FITTED_TO = 2000  # training images at most
LEAST_VARIANCE = 1e-10  # of a direction, as a share of the largest: below it there is nothing but rounding

Extractor = Callable[[Tensor], Tensor]  # images (N, C, H, W) uint8 to features (N, D) float64


def random_convolutions(channels: int, draws: Generator) -> Extractor:
    """Means and deviations over all places, (N, 4 CHANNELS), of two layers of random filters.

    Filters of 3 x 3 at full resolution, then at every second place, each with a rectifier. The weights are drawn after
    He et al. 2015 (arXiv 1502.01852), eq. 10.

    Args:
        channels: C of the images.
    """
    shapes = ((CHANNELS, channels, 3, 3), (CHANNELS, CHANNELS, 3, 3))
    first, second = (torch.randn(shape, generator=draws) * math.sqrt(2 / math.prod(shape[1:])) for shape in shapes)

    def moments(images: Tensor) -> Tensor:
        low = functional.conv2d(images.float() / 127.5 - 1, first, padding=1).relu()
        high = functional.conv2d(low, second, stride=2, padding=1).relu()
        found = [torch.std_mean(values.double(), dim=(-2, -1), correction=0) for values in (low, high)]
        return torch.cat([part for pair in found for part in pair], dim=1)

    return lambda images: torch.cat([moments(batch) for batch in images.split(64)])


def whitened(extractor: Extractor, train: Tensor) -> Extractor:
    """The same features turned and scaled so that those of training images (N, C, H, W) have covariance 1.

    Directions in which training images don't vary at all are left out.
    """
    features = extractor(train[:FITTED_TO])
    mean = features.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(features.T))
    kept = variances > LEAST_VARIANCE * variances[-1]
    scaled = directions[:, kept] / variances[kept].sqrt()  # (D, kept)
    return lambda images: (extractor(images) - mean) @ scaled


def principal_components(train: Tensor) -> Extractor:
    """Coordinates of pixels in [0, 1] along the axes on which training images (N, C, H, W) vary most: (N, COMPONENTS).

    The axes are eigenvectors of the covariance, found by way of the images' scalar products: there are fewer images
    than pixels.
    """
    pixels = as_rows(train[:FITTED_TO])
    mean = pixels.mean(dim=0)
    centred = pixels - mean  # (N, D)
    squares, left = torch.linalg.eigh(centred @ centred.T)
    axes = centred.T @ left[:, -COMPONENTS:] / squares[-COMPONENTS:].sqrt()  # (D, COMPONENTS)
    return lambda images: (as_rows(images) - mean) @ axes


def as_rows(images: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 as rows of pixels in [0, 1], (N, C H W) float64."""
    return images.flatten(1).double() / 255
