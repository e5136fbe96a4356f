"""A training on random examples: as fast as the real one, before there are data."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.device import Compute
from diffusion_ladder.params.consistency import DIGIT_SIZE
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.rungs import Rung, build_network, build_scheduler
from diffusion_ladder.training.loop import Step, Task, train

EXAMPLES = 1024  # what they show doesn't matter to the speed


@dataclass(frozen=True)
class Rehearsal:
    """A rung of params.yaml with random examples of its data's shape, in two classes.

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
        return cls(name, model, examples, torch.arange(EXAMPLES) % 2)

    def rung(self, device: torch.device) -> Rung:
        """The rung with fresh weights."""
        images, conditional = self.examples.ndim == 4, self.model.conditional
        shape = tuple(self.examples.shape[1:])
        return Rung(
            model=self.name,
            dataset=self.model.dataset,
            network=build_network(self.model.network, shape, 3 if conditional else None, 0, self.name).to(device),
            settings=self.model.network,
            schedule=self.model.schedule,
            sample_shape=shape,
            num_classes=2 if conditional else 0,
            null_label=2 if conditional else None,
            normalisation=IMAGES if images else Normalisation((0.0, 0.0), (1.0, 1.0), bytes=False),
        )

    def steps(self, compute: Compute, mode: str = "never") -> Iterator[Step]:
        """The training, step by step; `mode` is that of torch.compile, or never."""
        rung = self.rung(compute.device)
        if mode != "never":
            rung.network.compile(mode=mode)
        data, labels = self.examples.to(compute.device), self.labels.to(compute.device)
        scheduler = build_scheduler(self.model.schedulers.training, self.model.schedule)
        return train(Task(rung, scheduler, data, labels, self.model.training, 0, compute.precision))
