"""Diffusion models from points of the plane to conditional faces, one rung at a time.

`load` gives a trained model: `diffusion_ladder.load("models/mnist_scratch").sample(["3", "7"])`.
"""

import importlib
from typing import Any

from diffusion_ladder.foundation.surroundings import start_clean

start_clean()


def __getattr__(name: str) -> Any:
    if name == "load":  # by name and only now: it imports torch
        return importlib.import_module("diffusion_ladder.model").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
