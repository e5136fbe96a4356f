"""The one pair of functions between data as stored and data as the networks see it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.foundation.errors import UserError


@dataclass(frozen=True)
class Normalisation:
    """x_normalised = (x - mean) / std, per coordinate of a point or per channel of an image.

    Attributes:
        mean, std: one value, or one per coordinate or channel; of images, for pixels divided by 255.
        bytes: whether the data as stored are uint8 images (N, C, H, W) in [0, 255]; otherwise float points (N, D).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bytes: bool

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std) or not all(0 < value < float("inf") for value in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must have equal lengths, and std must be positive")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Normalisation":
        """From what `data/processed/D.safetensors` and `rung.json` say under `kind` and `normalisation`."""
        values = metadata["normalisation"]
        return cls(tuple(values["mean"]), tuple(values["std"]), bytes=metadata["kind"] != "points")

    def as_metadata(self) -> dict[str, list[float]]:
        """The value to store under `normalisation`."""
        return {"mean": list(self.mean), "std": list(self.std)}


@functools.cache  # a copy to a GPU at every step would make the host wait for it
def coefficients(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as float32, shaped to broadcast over (..., C, H, W) images or (..., D) points."""
    shape = (-1, 1, 1) if normalisation.bytes else (-1,)
    mean, std = torch.tensor([normalisation.mean, normalisation.std], dtype=torch.float64).float().to(device)
    return mean.reshape(shape), std.reshape(shape)


IMAGES = Normalisation(mean=(0.5,), std=(0.5,), bytes=True)  # pixels in [0, 255] to [-1, 1]


def normalise(x: Tensor, normalisation: Normalisation) -> Tensor:
    """Data as stored to float32 as the networks see it: images in [-1, 1], points with mean 0 and deviation 1.

    Args:
        x: uint8 (..., C, H, W) images, or float (..., D) points in data units.

    Raises:
        TypeError: images that are not uint8: dividing them by 255 would be wrong for floats in [0, 1].
    """
    if normalisation.bytes != (x.dtype == torch.uint8):
        raise TypeError(f"expected {'uint8 images' if normalisation.bytes else 'float points'}, found {x.dtype}")
    mean, std = coefficients(normalisation, x.device)
    scaled = x.float() / 255 if normalisation.bytes else x.float()
    return (scaled - mean) / std


def unnormalise(x: Tensor, normalisation: Normalisation) -> Tensor:
    """The inverse of `normalise`: uint8 images, rounded and clamped to [0, 255], or float32 points in data units.

    Args:
        x: float (..., C, H, W) images, whose values may leave [-1, 1], or float (..., D) points.

    Raises:
        UserError: x has a NaN, which no pixel value could stand for.
    """
    if x.isnan().any():
        nan = int(x.isnan().sum())
        raise UserError(f"{nan} of {x.numel()} values are NaN: the samples diverged; lower training.learning_rate")
    mean, std = coefficients(normalisation, x.device)
    values = x.float() * std + mean
    if normalisation.bytes:
        return (values * 255).round().clamp(0, 255).to(torch.uint8)  # without the clamp, 256 would wrap to 0
    return values


def mean_square(data: Tensor, normalisation: Normalisation) -> float:
    """Mean square of all normalised values of a data set as stored, a part at a time."""
    total = sum(normalise(part, normalisation).double().square().sum().item() for part in data.split(1000))
    return total / data.numel()
