"""What the figures of a rung are drawn from, and a finished picture with what is said of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.figures.palette import CLASS_COLOURS
from diffusion_ladder.params.samplers import MODULES, is_library


@dataclass(frozen=True)
class RungArtifacts:
    """What the figures of one rung are drawn from. Images are uint8 NCHW, points float32 (N, 2) in data units."""

    rung: dict[str, Any]  # models/MODEL/rung.json
    normalisation: Normalisation
    class_names: list[str]
    data: dict[str, Tensor]  # data/processed: train, test, train_labels, test_labels
    samples: Tensor
    sampler: dict[str, Any]  # metadata of the samples: how they were drawn
    comparison: Tensor
    comparison_sampler: dict[str, Any]
    trajectories: dict[str, Tensor]  # sampling.states, .predicted, .timesteps, .final
    training_log: dict[str, list[float]]  # column to values
    previews: dict[str, Tensor]  # samples (P, N, ...) drawn during training, and after which steps (P,)

    synthetic: bool = False  # whether the data card says that the data are

    @property
    def is_points(self) -> bool:
        """Whether samples are points of the plane, instead of images."""
        return not self.normalisation.bytes

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the samples are conditioned on; none for an unconditional rung."""
        return self.class_names[: int(self.rung["num_classes"])]

    def labels_of(self, count: int) -> Tensor | None:
        """The classes (N,) of `count` samples: equal shares, one class after the other; None if none was requested."""
        return torch.arange(count) * len(self.classes) // count if self.classes else None

    @property
    def class_key(self) -> str:
        """Which colour points of which class have, as a sentence after others; empty for an unconditional rung."""
        named = [f"{colour} is {name}" for colour, name in zip(CLASS_COLOURS, self.classes, strict=False)]
        return f" By class, {' and '.join(named)}." if named else ""


@dataclass(frozen=True)
class Exhibit:
    """A finished picture: its file, and what the report says about it."""

    file: str
    title: str
    caption: str  # what to see
    alt: str  # what the picture shows, for those who don't see it
    content: bytes
    film: bytes | None = None  # what the page's player shows of it (film.py)

    def entry(self) -> dict[str, str]:
        """The picture's entry in captions.json."""
        entry = {"file": self.file, "title": self.title, "caption": self.caption, "alt": self.alt}
        return entry if self.film is None else entry | {"film": self.film_file}

    @property
    def film_file(self) -> str:
        """The file of the film."""
        return f"{self.file.rpartition('.')[0]}.film.json"

    def files(self) -> dict[str, bytes]:
        """The picture's files by their names."""
        return {self.file: self.content} if self.film is None else {self.file: self.content, self.film_file: self.film}


def sampler_title(facts: dict[str, Any]) -> str:
    """How samples were drawn, for a title: from the metadata of their file."""
    maker = "diffusers " if is_library(facts["sampler"]) else ""
    guidance = "" if facts["guidance_scale"] == 1 else f", guidance {facts['guidance_scale']:g}"
    return f"{maker}{MODULES[facts['sampler']].title}, {facts['nfe']} evaluations{guidance}"
