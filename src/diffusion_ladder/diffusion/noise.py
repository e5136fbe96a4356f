"""Gaussian noise from explicit generators."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

Generators = Generator | Sequence[Generator]


def draw_noise(
    shape: Sequence[int], generator: Generators | None, device: torch.device | str, dtype: torch.dtype
) -> Tensor:
    """Standard normal noise of that shape, the same numbers as diffusers' `randn_tensor` for the same generators.

    A sequence holds one generator per sample of the batch, so that a sample's noise doesn't depend on its batch; a
    sequence of one counts as that generator. A CPU generator draws on the CPU, whatever the device.
    Raises ValueError when a sequence's length isn't the batch's, or when a generator can't serve the device.
    """
    device = torch.device(device)
    if not isinstance(generator, Sequence):
        return draw(shape, generator, device, dtype).to(device)
    if len(generator) == 1:
        return draw(shape, generator[0], device, dtype).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for a batch of {shape[0]} samples: give one, or one per sample")
    one = (1, *shape[1:])
    return torch.cat([draw(one, each, device, dtype) for each in generator]).to(device)  # one copy to a GPU, not B


def draw(shape: Sequence[int], generator: Generator | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Standard normal noise for a device from one generator (None: torch's global one), where the generator lives."""
    source = device if generator is None else generator.device
    if source.type not in (device.type, "cpu"):
        raise ValueError(f"a generator on {source} can't draw noise for {device}: use one on the CPU or there")
    return torch.randn(tuple(shape), generator=generator, device=source, dtype=dtype)
