"""Somebody else's recipe for digits, as peers.py trains and samples it: by the clock, and at its best.

A recipe is a module with NAME, SAMPLER, EVALUATIONS, SETTINGS (those that its authors use, and others worth a try) and
`build`. Which of the settings, and in which precision and memory format a step is fastest, is found out before.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import plain_diffusers
import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import IMAGES, normalise

SEED = 0  # of PyTorch's global generator, from which the peers draw
TIMED_STEPS = 3
HELD_OUT_IMAGES, HELD_OUT_TIMES = 250, 4  # that a loss is averaged over, and so many times under other noise
CPU = torch.device("cpu")


@dataclass
class Peer:
    """A training under way.

    Attributes:
        loss: of (B, 1, 28, 28) images in [-1, 1] and (B,) labels, by the weights in training: a scalar.
        averaged_loss: the same by the weights that samples are drawn with.
        parameters: that are trained.
        optimiser: of them.
        batch_size: images in a step.
        draw: so many samples, (N, 1, 28, 28) uint8, in so many evaluations of the network.
        gradient_clip: largest norm of the gradient; None where it isn't clipped.
        after_step: what is done after each, such as averaging the weights.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    averaged_loss: Callable[[Tensor, Tensor], Tensor]
    parameters: list[nn.Parameter]
    optimiser: torch.optim.Optimizer
    batch_size: int
    draw: Callable[[int, int], Tensor]
    gradient_clip: float | None = None
    after_step: Callable[[], object] = lambda: None


@dataclass
class Training:
    """A peer with its batches, and what it has done so far."""

    peer: Peer
    batches: Iterator[tuple[Tensor, Tensor]]
    steps: int = 0
    seconds: float = field(default=0.0)

    def step(self) -> None:
        """One step of its optimiser."""
        images, labels = next(self.batches)
        loss = self.peer.loss(images, labels)
        self.peer.optimiser.zero_grad()
        loss.backward()
        if self.peer.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.peer.parameters, self.peer.gradient_clip)
        self.peer.optimiser.step()
        self.peer.after_step()
        loss.item()  # for the log, as all of them read it

    def until(self, seconds: float) -> None:
        """Go on until it has been trained for so many seconds."""
        start, before = time.perf_counter(), self.seconds
        while self.seconds < seconds:
            self.step()
            self.steps += 1
            self.seconds = before + time.perf_counter() - start


@dataclass(frozen=True)
class Digits:
    """What all are trained on, and what their losses are compared on: uint8 images and their labels."""

    train: Tensor  # (N, 1, 28, 28)
    train_labels: Tensor  # (N,)
    held_out: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True)
class Mode:
    """What makes some networks faster on some processors: nothing of the recipe."""

    bf16: bool
    channels_last: bool

    def laid_out(self, network: nn.Module) -> nn.Module:
        """The network with its weights in the mode's memory format, which its activations follow."""
        return network.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def __str__(self) -> str:
        return ("bf16" if self.bf16 else "float32") + (", channels last" if self.channels_last else "")


MODES = [Mode(bf16, channels_last) for bf16 in (False, True) for channels_last in (False, True)]


def begin(recipe: ModuleType, settings: dict[str, Any], mode: Mode, digits: Digits) -> Training:
    """A training that has not begun; the same every time."""
    torch.manual_seed(SEED)
    peer = recipe.build(settings, mode)
    images = normalise(digits.train, IMAGES)
    batch_size = min(peer.batch_size, len(images))
    return Training(peer, plain_diffusers.batches(images, digits.train_labels, batch_size, CPU))


def seconds_per_step(training: Training) -> float:
    """The median of a few steps."""
    training.step()
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        training.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@torch.no_grad()
def held_out_loss(peer: Peer, digits: Digits) -> float:
    """The recipe's own loss on images that it isn't trained on, under the same noise for all of its settings."""
    torch.manual_seed(SEED)
    images, labels = normalise(digits.held_out[:HELD_OUT_IMAGES], IMAGES), digits.held_out_labels[:HELD_OUT_IMAGES]
    return statistics.mean(peer.averaged_loss(images, labels).item() for _ in range(HELD_OUT_TIMES))


def fastest(recipe: ModuleType, digits: Digits) -> tuple[Mode, dict[str, float]]:
    """The mode in which a step takes least, and the milliseconds in each, with the recipe's first setting."""
    seconds = {mode: seconds_per_step(begin(recipe, recipe.SETTINGS[0], mode, digits)) for mode in MODES}
    return min(MODES, key=lambda mode: seconds[mode]), {str(mode): 1e3 * taken for mode, taken in seconds.items()}


def trials(recipe: ModuleType, mode: Mode, digits: Digits, seconds: float) -> list[dict[str, Any]]:
    """Every setting, trained for some seconds: with its loss on held-out images."""
    found = []
    for settings in recipe.SETTINGS:
        training = begin(recipe, settings, mode, digits)
        training.until(seconds)
        loss = held_out_loss(training.peer, digits)
        found.append({"settings": settings, "steps": training.steps, "held_out_loss": loss})
    return found
