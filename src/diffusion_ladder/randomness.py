"""One random generator per purpose, all derived from the root seed."""

import hashlib

import numpy
import torch


def seed_of(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: the SHA-256 of the root seed and the purpose's parts."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, such as `generator(seed, "sample", "faces", "noise", index)`.

    Generators of different purposes are independent; the same purpose always gives the same stream. All randomness is
    drawn on the CPU, so that it doesn't depend on the device.
    """
    return torch.Generator().manual_seed(seed_of(seed, *purpose))


def numpy_generator(seed: int, *purpose: str | int) -> numpy.random.Generator:
    """The same as `generator`, for NumPy."""
    return numpy.random.default_rng(seed_of(seed, *purpose))
