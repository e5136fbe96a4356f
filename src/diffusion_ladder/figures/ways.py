"""The states that figures of the process show: of the forward process, and on the way from noise to samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.diffusion.schedules import add_noise
from diffusion_ladder.figures import exhibit
from diffusion_ladder.figures.exhibit import RungArtifacts

FIRST_FRAME, LAST_FRAME = 700, 2000  # milliseconds that an animation rests on its ends


def forward_timesteps(T: int, every: int) -> list[int]:
    """The timesteps every, 2 every, ... of the forward process, and always its end T."""
    return sorted({*range(every, T + 1, every), T})


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices of a sequence of length `count`, evenly spread, with both ends."""
    return sorted(set(torch.linspace(0, count - 1, min(count, limit)).round().long().tolist()))


def forward_states(x_0: Tensor, epsilon: Tensor, alpha_bar: Tensor, timesteps: Sequence[int]) -> Tensor:
    """The forward process with one noise vector for all t, so that every path is continuous.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon (arXiv 2006.11239, equation 4).

    Args:
        x_0: (N, ...) normalised data.
        epsilon: (N, ...) standard normal noise.
        alpha_bar: (T,) float64.
        timesteps: F numbers in [1, T].

    Returns:
        (F, N, ...) like x_0.
    """
    return torch.stack([add_noise(x_0, epsilon, alpha_bar[t - 1].item()) for t in timesteps])


@dataclass(frozen=True)
class Way:
    """The reverse process of one sampler: F moments, the last of them t = 0, where the samples are finished.

    Attributes:
        sampler: how it went, for a title.
        timesteps: F of them, falling to 0.
        states, predicted: (F, K, ...) noisy samples, and the clean ones that the network predicts from them; uint8
            images, or standardised points.
        labels: (K,) requested classes of points; None where none was, and for images.
    """

    sampler: str
    timesteps: list[int]
    states: Tensor
    predicted: Tensor
    labels: Tensor | None = None

    def thinned(self, frames: int) -> "Way":
        """The same at fewer moments."""
        chosen = spread(len(self.timesteps), frames)
        timesteps = [self.timesteps[index] for index in chosen]
        return replace(self, timesteps=timesteps, states=self.states[chosen], predicted=self.predicted[chosen])

    def of(self, samples: Sequence[int] | Tensor) -> "Way":
        """The same for some of the K samples."""
        return replace(self, states=self.states[:, samples], predicted=self.predicted[:, samples])


def first_of_each_class(labels: Tensor, count: int) -> list[int]:
    """Indices of `count` examples: the first of each class in turn, then the second of each, and so on."""
    by_class = [(labels == label).nonzero().flatten().tolist() for label in sorted(set(labels.tolist()))]
    deepest = max(map(len, by_class))
    turns = [indices[depth] for depth in range(deepest) for indices in by_class if depth < len(indices)]
    return turns[:count]


def reverse_way(artifacts: RungArtifacts, use: str, moments: int) -> Way:
    """What was kept of the way of the samples ("sampling") or of the comparison's ("comparison"), and its end."""
    facts = {"sampling": artifacts.sampler, "comparison": artifacts.comparison_sampler}[use]
    kept = {name: artifacts.trajectories[f"{use}.{name}"] for name in ("timesteps", "states", "predicted", "final")}
    chosen = spread(len(kept["timesteps"]), moments)
    states, predicted = (torch.cat([kept[name][chosen], kept["final"][None]]) for name in ("states", "predicted"))
    way = Way(exhibit.sampler_title(facts), [*(kept["timesteps"][chosen] + 1).tolist(), 0], states, predicted)
    if not artifacts.is_points:
        return way
    states, predicted = (normalise(points, artifacts.normalisation) for points in (states, predicted))
    way, labels = replace(way, states=states, predicted=predicted), artifacts.labels_of(states.shape[1])
    if labels is None:
        return way
    order = first_of_each_class(labels, len(labels))  # so that the first few are of all classes
    return replace(way.of(order), labels=labels[order])


def longest(ways: Sequence[Way]) -> Way:
    """The way that was kept at the most moments, the first of them if several were."""
    return max(ways, key=lambda way: len(way.timesteps))


def durations(frames: int, frames_per_second: int) -> list[int]:
    """Milliseconds of each frame of an animation, which rests on its first and on its last."""
    return [FIRST_FRAME, *[round(1000 / frames_per_second)] * (frames - 2), LAST_FRAME][:frames]
