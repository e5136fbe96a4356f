"""A training on random examples: as fast as the real one, before there are data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.device import Compute
from diffusion_ladder.params.consistency import DIGIT_SIZE, class_count
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.rungs import Rung, build_network, build_scheduler
from diffusion_ladder.training.loop import Task

EXAMPLES = 1024  # what they show doesn't matter to the speed


@dataclass(frozen=True)
class Rehearsal:
    """A rung of params.yaml with examples: random ones of its data's shape and classes, or given ones.

    Attributes:
        examples: (N, C, H, W) uint8, or (N, 2) float32 for points.
        labels: (N,) int64.
    """

    name: str
    model: RungParameters
    examples: Tensor
    labels: Tensor

    @classmethod
    def of(cls, parameters: Parameters, name: str) -> "Rehearsal":
        """That of a rung."""
        model = parameters.rungs[name]
        dataset = parameters.datasets[model.dataset]
        random = torch.Generator().manual_seed(0)
        if dataset.kind == "points":
            examples = torch.randn(EXAMPLES, 2, generator=random)
        else:
            side = getattr(dataset.preprocess, "image_size", DIGIT_SIZE)
            shape = (EXAMPLES, getattr(dataset.preprocess, "channels", 1), side, side)
            examples = torch.randint(256, shape, generator=random, dtype=torch.uint8)
        return cls(name, model, examples, torch.arange(EXAMPLES) % class_count(dataset))

    @property
    def classes(self) -> int:
        """Those that condition the rung; 0 for none."""
        return int(self.labels.max()) + 1 if self.model.conditional else 0

    @property
    def class_rows(self) -> int | None:
        """Rows of its class embedding, of which the last is the null label; None without classes."""
        return self.classes + 1 if self.classes else None

    def rung(self, device: torch.device) -> Rung:
        """The rung with fresh weights."""
        images = self.examples.ndim == 4
        shape = tuple(self.examples.shape[1:])
        return Rung(
            model=self.name,
            dataset=self.model.dataset,
            network=build_network(self.model.network, shape, self.class_rows, 0, self.name).to(device),
            settings=self.model.network,
            schedule=self.model.schedule,
            sample_shape=shape,
            num_classes=self.classes,
            null_label=self.classes or None,
            normalisation=IMAGES if images else Normalisation((0.0, 0.0), (1.0, 1.0), bytes=False),
        )

    def task(self, compute: Compute, mode: str = "never") -> Task:
        """What the training loop is given, as its stage sets it up; `mode` is that of torch.compile, or never."""
        rung = self.rung(compute.device)
        if mode != "never":
            rung.network.compile(mode=mode)
        data, labels = self.examples.to(compute.device), self.labels.to(compute.device)
        scheduler = build_scheduler(self.model.schedulers.training, self.model.schedule)
        return Task(rung, scheduler, data, labels, self.model.training, 0, compute.precision)
