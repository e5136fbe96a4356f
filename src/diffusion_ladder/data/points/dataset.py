"""The 2D toys of Part 1: scikit-learn's circles and moons."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.data.split import Splits, is_held_out
from diffusion_ladder.foundation.artifacts import read_json, read_tensors, write_tensors
from diffusion_ladder.params.datasets import CirclesSource, PointsPreprocess, PointsSource
from diffusion_ladder.randomness import numpy_generator

FILE_NAME = "points.safetensors"
TITLES = {"make_circles": "Two concentric circles", "make_moons": "Two interleaving half circles"}
CLASS_NAMES = {"make_circles": ("outer", "inner"), "make_moons": ("upper", "lower")}
SOURCES = {"make_circles": CirclesSource, "make_moons": PointsSource}
PREPROCESS = PointsPreprocess
SCIKIT_LEARN = "https://scikit-learn.org/stable/modules/generated/sklearn.datasets"


def fetch(source: str, settings: PointsSource, seed: int, folder: Path) -> dict[str, Any]:
    """Draw points with scikit-learn's function `source` and write them to `folder`.

    Args:
        source: make_circles or make_moons.

    Returns:
        the raw card; its `parameters` hold what the noise-free curve depends on.
    """
    import sklearn.datasets

    draw = {"make_circles": sklearn.datasets.make_circles, "make_moons": sklearn.datasets.make_moons}[source]
    random_state = int(numpy_generator(seed, "fetch", source).integers(2**32))
    parameters = settings.model_dump()
    options = {name: value for name, value in parameters.items() if name != "count"}
    points, labels = draw(n_samples=settings.count, random_state=random_state, **options)  # (N, 2), (N,)
    path = folder / FILE_NAME
    tensors = {"points": torch.from_numpy(points), "labels": torch.from_numpy(labels).long()}
    write_tensors(path, tensors, {"source": source})
    return raw_card(
        folder,
        [path],
        source=source,
        title=TITLES[source],
        rows=len(points),
        synthetic=True,
        origin=f"{SCIKIT_LEARN}.{source}.html",
        creator="scikit-learn developers",
        licence="BSD-3-Clause",
        licence_url="https://github.com/scikit-learn/scikit-learn/blob/main/COPYING",
        licence_note="The licence is that of the function that drew the points.",
        class_names=CLASS_NAMES[source],
        parameters=parameters,
    )


def kept_rows(raw: Path, interim: Path, settings: PointsPreprocess) -> AbstractContextManager[Path]:
    """The folder of the rows that are kept: all that were drawn."""
    return nullcontext(raw)


def preprocess(folder: Path, settings: PointsPreprocess) -> Splits:
    """Split the points; they stay in data units, and the training split's mean and deviation become the normalisation.

    Returns:
        train and test as float32 (N, 2); the deviation is the population's (divided by N).
    """
    raw = read_tensors(folder / FILE_NAME)
    points, labels = raw["points"].float(), raw["labels"]  # (N, 2), (N,)
    held_out = is_held_out(points, settings.test_fraction)
    train = points[~held_out]
    std, mean = torch.std_mean(train.double(), dim=0, correction=0)
    return Splits(
        train=train,
        test=points[held_out],
        train_labels=labels[~held_out],
        test_labels=labels[held_out],
        class_names=read_json(folder / "card.json")["class_names"],
        normalisation=Normalisation(tuple(mean.tolist()), tuple(std.tolist()), bytes=False),
    )
