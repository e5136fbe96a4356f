"""The learnt score beside the exact one, for points: as fields over the plane, and their difference over t.

The score is the gradient of log q(x_t), -epsilon / sqrt(1 - alpha_bar_t): a prediction of epsilon is one of the score,
with the same relative error. Exact is the score of the training points, each with its noise. It is the best answer to
the training loss, and knows the points by heart: with next to no noise it leads to the nearest of them, which a network
that generalises does not do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_ladder.diffusion.exact import data_set_log_density, data_set_x0, prediction_of
from diffusion_ladder.diffusion.schedules import NoiseSchedule
from diffusion_ladder.evaluation.bounds import entry, mean_and_deviation
from diffusion_ladder.evaluation.findings import Rows

Epsilon = Callable[[Tensor, int], Tensor]  # (B, D) noisy points and their timestep to the epsilon in them, (B, D)


@dataclass(frozen=True)
class ScoreFields:
    """Epsilon on a G x G grid of the plane at F timesteps.

    Attributes:
        timesteps: (F,) int64, from 0.
        places: (G,) of both coordinates, in standard deviations of the data.
        exact, learnt: (F, G, G, 2), the second coordinate first.
        log_density: (F, G, G) of x_t.
    """

    timesteps: Tensor
    places: Tensor
    exact: Tensor
    learnt: Tensor
    log_density: Tensor


@dataclass(frozen=True)
class ScoreErrors:
    """Relative errors of epsilon at E timesteps, each over the noisy points of S seeds.

    Attributes:
        timesteps: (E,) int64, from 0.
        learnt: (E, S) of the network.
        held_out: (E, S) of the exact score of held-out points, the floor: how far two sets of points from one source
            disagree.
        zero: (E, S) of always answering nought, the ceiling, near which an untrained network begins. It is one.
    """

    timesteps: Tensor
    learnt: Tensor
    held_out: Tensor
    zero: Tensor

    def numbers(self, name: str, row: int) -> dict[str, float]:
        """The errors at one of the timesteps by flat key: NAME, NAME_std, NAME_floor and so on."""
        found: dict[str, float] = {}
        for suffix, values in {"": self.learnt, "_floor": self.held_out, "_ceiling": self.zero}.items():
            found |= entry(name + suffix, *mean_and_deviation(values[row].tolist()))
        return found

    def table(self) -> Rows:
        """A row for each timestep, counted from 1."""
        rows = enumerate((self.timesteps + 1).tolist())
        return [{"t": t, **self.numbers("score_error", row)} for row, t in rows]


def exact_epsilon(data: Tensor, schedule: NoiseSchedule) -> Epsilon:
    """The best prediction of epsilon for the points (N, D), normalised."""

    def epsilon(x_t: Tensor, t: int) -> Tensor:
        alpha_bar = schedule.alpha_bar[t].item()
        return prediction_of("epsilon", data_set_x0(x_t, alpha_bar, data), x_t, alpha_bar)

    return epsilon


def score_fields(
    learnt: Epsilon, data: Tensor, schedule: NoiseSchedule, timesteps: Sequence[int], reach: float, grid: int
) -> ScoreFields:
    """Both fields over the square [-reach, reach]^2; data: (N, 2), normalised."""
    places = torch.linspace(-reach, reach, grid)
    second, first = torch.meshgrid(places, places, indexing="ij")
    x = torch.stack([first, second], dim=-1).reshape(-1, 2)  # (G G, 2)
    exact = exact_epsilon(data, schedule)
    densities = [data_set_log_density(x, schedule.alpha_bar[t].item(), data) for t in timesteps]
    shape = (len(timesteps), grid, grid)
    return ScoreFields(
        timesteps=torch.tensor(timesteps),
        places=places,
        exact=torch.stack([exact(x, t) for t in timesteps]).reshape(*shape, 2),
        learnt=torch.stack([learnt(x, t) for t in timesteps]).reshape(*shape, 2),
        log_density=torch.stack(densities).reshape(shape),
    )


def score_errors(
    learnt: Epsilon,
    data: Tensor,
    held_out: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    count: int,
    draws: Sequence[torch.Generator],
    progress: Callable[[], object],
) -> ScoreErrors:
    """The errors at each timestep, over `count` noisy training points of each seed, as often as q(x_t) has them.

    Args:
        draws: the seeds' generators, two or more.
    """
    exact, others = exact_epsilon(data, schedule), (learnt, exact_epsilon(held_out, schedule), always_zero)
    errors = torch.empty(len(timesteps), len(draws), len(others))
    for row, t in enumerate(timesteps):
        for column, of_seed in enumerate(draws):
            x_0 = data[torch.randint(len(data), (count,), generator=of_seed)]  # (B, 2)
            x_t = schedule.add_noise(x_0, torch.randn(x_0.shape, generator=of_seed), torch.tensor(t))
            best = exact(x_t, t)
            errors[row, column] = torch.tensor([relative_error(other(x_t, t), best) for other in others])
        progress()
    return ScoreErrors(torch.tensor(timesteps), *errors.unbind(dim=2))


def always_zero(x_t: Tensor, t: int) -> Tensor:
    """No score at all."""
    return torch.zeros_like(x_t)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Root of the mean square of the difference over that of what is expected; (B, D) each."""
    return ((found - expected).square().sum() / expected.square().sum()).sqrt().item()


def spread_timesteps(T: int, count: int) -> list[int]:
    """At most `count` timesteps in [0, T), from the first to the last, the denser the less noise there is."""
    t = torch.logspace(0, torch.tensor(float(T)).log10().item(), count, dtype=torch.float64)
    return sorted({min(T, round(value)) - 1 for value in t.tolist()})
