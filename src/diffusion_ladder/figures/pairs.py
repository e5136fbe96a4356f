"""Samples of several rungs of the same data beside each other: rungs that learnt the same start from the same noise."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from diffusion_ladder.figures import canvas, encoding
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.samples import grid


def pairs_exhibit(dataset: str, samples: Mapping[str, Tensor], count: int) -> Exhibit:
    """same_noise_DATASET.png: the first samples of every rung, those of the same noise above each other.

    Args:
        dataset: what all of the rungs have learnt.
        samples: a rung's title to its (N, C, H, W) uint8 images, sample n of each from the same noise.
        count: samples of each that are shown, as far as there are so many.
    """
    few = min(count, *map(len, samples.values()))
    rows = torch.stack([images[:few] for images in samples.values()])  # (rungs, few, C, H, W)
    figure, _ = grid(rows, list(samples), together=len(samples))
    titles = [f"“{title}”" for title in samples]
    order = f"{', '.join(titles[:-1])} above {titles[-1]}"
    return Exhibit(
        f"same_noise_{dataset}.png",
        "The same noise, other networks",
        f"The first {few} samples of each, none left out: {order}. Images above each other start from the same noise,"
        " and the same noise is added on the way. Where they look alike, two networks that never saw each other have"
        " learnt the same way from noise to data; where they don't, they have settled what the data leave open in other"
        " ways.",
        f"Grid of {len(samples) * few} generated images in groups, {order}.",
        encoding.encode_png(canvas.rasterise(figure)),
    )


def exhibits(sets: Mapping[str, Mapping[str, Tensor]], count: int) -> Iterator[Exhibit]:
    """A figure for each data set that several rungs of images have learnt."""
    for dataset, samples in sets.items():
        shapes = {tuple(images.shape[1:]) for images in samples.values()}
        if len(samples) > 1 and len(shapes) == 1 and all(images.ndim == 4 for images in samples.values()):
            yield pairs_exhibit(dataset, samples, count)
