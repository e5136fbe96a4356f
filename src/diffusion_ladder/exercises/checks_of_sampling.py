"""Checks of the reverse process: what a prediction means, a step of DDPM and of DDIM, guidance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.exercises.checks_of_noise import Answer, float64
from diffusion_ladder.exercises.checks_of_training import KnownNetwork, known_rung
from diffusion_ladder.exercises.faults import Fault, described, differ, expect
from diffusion_ladder.params.sampling import Sampling

NOW, BEFORE = float64([0.36])[0], float64([0.64])[0]  # alpha_bar at t and at t-1: roots 0.6, 0.8 and 0.8, 0.6
CLEAN = float64([1.0])[0]  # alpha_bar of the data themselves, where the last step arrives


def sample(number: int) -> Tensor:
    """A fixed sample (2, 3), another one for each number."""
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(number))


def check_x0_and_epsilon(x0_and_epsilon: Answer) -> None:
    """A perfect prediction of each type returns what was mixed."""
    x0, epsilon = sample(1), sample(2)
    x_t = 0.6 * x0 + 0.8 * epsilon
    velocity = 0.6 * epsilon - 0.8 * x0
    wrong_x0: dict[str, dict[str, Tensor]] = {
        "epsilon": {
            "for epsilon, x_0 lacks the division by sqrt(alpha_bar_t)": 0.6 * x0,
            "for epsilon, the noise is taken off unscaled: its scale is sqrt(1 - alpha_bar_t)": (x_t - epsilon) / 0.6,
            "for epsilon, the roots are missing: the scales are sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t)": (
                x_t - 0.64 * epsilon
            )
            / 0.36,
            "for epsilon, x_0 and epsilon come back in the other order": epsilon,
        },
        "sample": {"for sample, the answer is x_0 itself; x_0 and epsilon come back in the other order": epsilon},
        "v_prediction": {
            "right for epsilon and sample; for v_prediction the sign is wrong: x_0 = signal x_t - noise v": 0.6 * x_t
            + 0.8 * velocity,
            "right for epsilon and sample; v is read as if it were epsilon": (x_t - 0.8 * velocity) / 0.6,
            "right for epsilon and sample; v is read as if it were x_0": velocity,
            "right for epsilon and sample; v_prediction exchanges sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t)": (
                0.8 * x_t - 0.6 * velocity
            ),
        },
    }
    wrong_epsilon: dict[str, dict[str, Tensor]] = {
        "epsilon": {},
        "sample": {
            "for sample, epsilon lacks the division by sqrt(1 - alpha_bar_t)": 0.8 * epsilon,
            "for sample, epsilon is x_t - x_0: the signal's scale sqrt(alpha_bar_t) is missing": (x_t - x0) / 0.8,
        },
        "v_prediction": {
            "for v_prediction x_0 is right, and the sign in epsilon wrong: epsilon = noise x_t + signal v": 0.8 * x_t
            - 0.6 * velocity,
            "for v_prediction x_0 is right, and epsilon is the prediction as it came": velocity,
        },
    }
    for kind, output in (("epsilon", epsilon), ("sample", x0), ("v_prediction", velocity)):
        found = pair(x0_and_epsilon(kind, output, x_t, 0.36), kind)
        expect(found[0], x0, f"{kind}: x_0", wrong_x0[kind])
        expect(found[1], epsilon, f"{kind}: x_0 is right; epsilon", wrong_epsilon[kind])
    each = float64([0.36, 0.64])
    x_t = torch.stack([0.6 * x0[0] + 0.8 * epsilon[0], 0.8 * x0[1] + 0.6 * epsilon[1]])
    found = pair(x0_and_epsilon("epsilon", epsilon, x_t, each), "epsilon")
    expect(found[0], x0, "right for one alpha_bar_t; with one for each sample")


def pair(found: Any, kind: str) -> tuple[Any, Any]:
    """An answer's two parts. Raises a Fault where it has no two."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise Fault(f"{kind}: {described(found)} came back where the pair (x_0, epsilon) is wanted")
    return found[0], found[1]


def check_ddpm_step(ddpm_step: Answer) -> None:
    """Eq. 7 from plain numbers at t > 0, and at the last step, which adds no noise."""
    x_t, x0, z, sigma = sample(1), sample(2), sample(3), 0.3
    alpha = 0.36 / 0.64
    beta = 1 - alpha
    of_x0, of_x_t = 0.8 * beta / 0.64, alpha**0.5 * 0.36 / 0.64
    mean = of_x0 * x0 + of_x_t * x_t
    expect(
        ddpm_step(x_t, x0, NOW, BEFORE, sigma, z),
        mean + sigma * z,
        "t > 0: alpha_bar 0.36 at t and 0.64 at t-1, sigma 0.3",
        {
            "right up to the noise: sigma z is not added": mean,
            "right up to the noise: z is added unscaled, sigma is its standard deviation": mean + z,
            "right up to the noise: sigma is squared; it is the standard deviation already": mean + sigma**2 * z,
            "right up to the noise: the root of sigma is taken; it is the standard deviation already": mean
            + sigma**0.5 * z,
            "right up to the noise: it is subtracted": mean - sigma * z,
            "the two coefficients are exchanged: beta_t goes with x_0": of_x_t * x0 + of_x0 * x_t + sigma * z,
            "x_0's coefficient takes sqrt(alpha_bar) at t; it is that at t-1": 0.6 * beta / 0.64 * x0
            + of_x_t * x_t
            + sigma * z,
            "x_t's coefficient takes alpha, where its root belongs": of_x0 * x0 + alpha * 0.36 / 0.64 * x_t + sigma * z,
            "beta is 1 - alpha_bar_t; it is that of one step, 1 - alpha_bar_t / alpha_bar_{t-1}": 0.8 * x0
            + of_x_t * x_t
            + sigma * z,
            "the division by 1 - alpha_bar_t is missing": 0.64 * (of_x0 * x0 + of_x_t * x_t) + sigma * z,
            "this is x_t of the forward process at t-1, with z as its noise: the mean of eq. 7 is wanted": 0.8 * x0
            + 0.6 * z,
        },
    )
    once, again = (ddpm_step(x_t, x0, NOW, CLEAN) for _ in range(2))
    if differ(once, again):
        raise Fault("right for t > 0; at t = 0 you still add noise")
    expect(
        once,
        x0,
        "right for t > 0; at t = 0, where alpha_bar_{t-1} is 1",
        {"right for t > 0; at t = 0 the sample stays as it is: the last step arrives at x_0": x_t},
    )


def check_ddim_step(ddim_step: Answer) -> None:
    """Eq. 12 from plain numbers: without noise, with it, and at the last step."""
    x0, epsilon, z = sample(1), sample(2), sample(3)
    expect(
        ddim_step(x0, epsilon, NOW, BEFORE),
        0.8 * x0 + 0.6 * epsilon,
        "eta = 0: alpha_bar 0.36 at t and 0.64 at t-1",
        {
            "this is x_t, where the step began: take alpha_bar of the timestep before": 0.6 * x0 + 0.8 * epsilon,
            "the roots are missing: sqrt(alpha_bar_{t-1}) and sqrt(1 - alpha_bar_{t-1})": 0.64 * x0 + 0.36 * epsilon,
            "the direction to x_t is missing: sqrt(1 - alpha_bar_{t-1}) epsilon": 0.8 * x0,
            "the direction is scaled for t, not for t-1": 0.8 * x0 + 0.8 * epsilon,
            "x_0 is scaled for t, not for t-1": 0.6 * x0 + 0.6 * epsilon,
            "x_0 is not scaled: sqrt(alpha_bar_{t-1}) belongs to it": x0 + 0.6 * epsilon,
            "the direction's root is missing: it is sqrt(1 - alpha_bar_{t-1})": 0.8 * x0 + 0.36 * epsilon,
        }
        | {
            "right for eta = 1; at eta = 0 nothing is left for the noise, and all for the direction": 0.8 * x0
            + direction(1.0) * epsilon
        },
    )
    expect(
        ddim_step(x0, epsilon, NOW, CLEAN),
        x0,
        "right for t > 0; the last step arrives at x_0, not",
        {"right for t > 0; the last step keeps noise: there sqrt(1 - alpha_bar_{t-1}) is 0": x0 + 0.8 * epsilon},
    )
    for eta in (1.0, 0.5):
        expect(
            ddim_step(x0, epsilon, NOW, BEFORE, eta, z),
            0.8 * x0 + direction(eta) * epsilon + eta * spread() * z,
            f"right for eta = 0; at eta = {eta}",
            wrong_noise(eta, x0, epsilon, z),
        )


def spread() -> float:
    """sigma at eta = 1, eq. 16, between the two timesteps of the checks."""
    return float(((1 - 0.64) / (1 - 0.36) * (1 - 0.36 / 0.64)) ** 0.5)


def direction(eta: float) -> float:
    """What is left for epsilon: sqrt(1 - alpha_bar_{t-1} - sigma^2)."""
    return float((1 - 0.64 - (eta * spread()) ** 2) ** 0.5)


def wrong_noise(eta: float, x0: Tensor, epsilon: Tensor, z: Tensor) -> Mapping[str, Tensor]:
    """What the step of DDIM gives with typical mistakes in its noise."""
    sigma, kept = eta * spread(), direction(eta)
    return {
        "right for eta = 0; for eta > 0 the direction must give way to the noise:"
        " sqrt(1 - alpha_bar_{t-1} - sigma^2)": 0.8 * x0 + 0.6 * epsilon + sigma * z,
        "right for eta = 0; for eta > 0 the direction shrinks, but sigma z is not added": 0.8 * x0 + kept * epsilon,
        "right for eta = 0; eta and the noise are ignored": 0.8 * x0 + 0.6 * epsilon,
        "right for eta = 0; the noise is scaled by sigma^2, the variance: sigma is its scale": 0.8 * x0
        + kept * epsilon
        + sigma**2 * z,
        "right for eta = 0; the noise is unscaled: sigma is its scale": 0.8 * x0 + kept * epsilon + z,
        "right for eta = 0 and 1; between them eta is ignored": 0.8 * x0 + direction(1.0) * epsilon + spread() * z,
        "right for eta = 0 and 1; between them eta scales the variance: sigma is eta times its root": 0.8 * x0
        + direction(eta**0.5) * epsilon
        + eta**0.5 * spread() * z,
    }


SAMPLING = Sampling(
    sampler="ddpm",
    steps=10,
    spacing="trailing",
    variance_type="fixed_small",
    seeds=2,
    count=4,
    batch_size=4,
    comparison_steps=10,
    comparison_count=4,
    trajectory_count=1,
    trajectory_frames=2,
)


def check_guided(guided: Answer) -> None:
    """Eq. 6 with a network that answers 0.3 x + t / 1000 + label: scales, interval, evaluations, no labels at all."""
    x, labels = sample(1)[:, :2], torch.tensor([0, 1])
    base = 0.3 * x
    rung = known_rung(num_classes=2, null_label=2)
    null, given = base + 2, base + labels[:, None]

    def predict(timestep: int = 0, rung: Any = rung, labels: Any = labels, **settings: Any) -> Any:
        predict = guided(rung, labels, SAMPLING.model_copy(update=settings), torch.float32)
        if not callable(predict):
            raise Fault(f"{described(predict)} came back where a function predict(samples, timestep) is wanted")
        return predict(x, torch.tensor(timestep))

    with torch.no_grad():
        expect(
            predict(guidance_scale=3.0),
            null + 3.0 * (given - null),
            "scale 3",
            {
                "the scale counts from 0 (w + 1 in the paper's eq. 6); here 1 is the conditional model": given
                + 3.0 * (given - null),
                "the two predictions are exchanged: from the unconditional one to the conditional": given
                + 3.0 * (null - given),
                "this is the conditional prediction alone: it is not guided": given,
                "this is the unconditional prediction alone": null,
                "the difference is missing its start: null + scale (conditional - null)": 3.0 * (given - null),
                "both predictions are added: null + scale (conditional - null)": null + 3.0 * given,
                "label 0 stands for no label, but it is a class: take rung.null_label": base + 3.0 * (given - base),
            },
        )
        expect(predict(guidance_scale=1.0), given, "right at scale 3; at scale 1, the conditional model")
        expect(predict(guidance_scale=0.0), null, "right at scales 3 and 1; at scale 0, the unconditional model")
        check_interval(predict, x, given, null)
        count_evaluations(predict, rung.network)
        unguided = replace(rung, null_label=None)
        expect(
            predict(rung=unguided, guidance_scale=3.0),
            given,
            "right with a null label; without one (null_label None) the conditional model is all there is",
        )
        expect(predict(labels=None, guidance_scale=3.0), base, "right with labels; without any (labels None)")


def check_interval(predict: Answer, x: Tensor, given: Tensor, null: Tensor) -> None:
    """Guidance acts from 0.2 T up to, but not at, 0.7 T; the network adds t / 1000."""
    for timestep in (0, 199, 200, 699, 700, 999):
        inside = 200 <= timestep < 700
        outcome = {True: null + 3.0 * (given - null), False: given}
        expect(
            predict(timestep, guidance_scale=3.0, guidance_interval=[0.2, 0.7]),
            outcome[inside] + timestep / 1000,
            f"right without an interval; in [0.2, 0.7) of T at t = {timestep}",
            {
                f"right without an interval; with [0.2, 0.7) t = {timestep} is {'' if inside else 'not '}guided"
                " (`is_guided` knows)": outcome[not inside] + timestep / 1000
            },
        )


def count_evaluations(predict: Answer, network: Any) -> None:
    """Outside the interval and at scale 1, one evaluation of the network is enough. Raises a Fault for two."""
    assert isinstance(network, KnownNetwork)
    for words, settings in (
        ("at scale 1", {"guidance_scale": 1.0}),
        ("outside the interval", {"guidance_scale": 3.0, "guidance_interval": [0.5, 1.0]}),
    ):
        before = network.evaluations
        predict(**settings)
        if network.evaluations - before > 1:
            raise Fault(f"the values are right; {words} the network is evaluated twice, where once is enough")
