"""Checks of what is trained: the time's embedding, the loss of algorithm 1, the average of the weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.exercises.checks_of_noise import Answer, float64
from diffusion_ladder.exercises.faults import Fault, agree, described, expect
from diffusion_ladder.params.network import MLPNetwork
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import LossWeight
from diffusion_ladder.rungs import Rung, build_scheduler
from diffusion_ladder.training.ema import ExponentialMovingAverage
from diffusion_ladder.training.loop import Batch

T, BETA_START, BETA_END = 1000, 1e-4, 0.01
SCHEDULE = {"name": "linear", "T": T, "beta_start": BETA_START, "beta_end": BETA_END}


class KnownNetwork(nn.Module):
    """0.3 x_t + t / 1000 + the label: an answer from which one can tell what the network was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.3))
        self.evaluations = 0

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, ...) and (B,) timesteps [, (B,) labels] to (B, ...)."""
        self.evaluations += 1
        offset = timestep / 1000 + (0 if class_labels is None else class_labels)
        return self.gain * sample + offset.reshape(-1, *[1] * (sample.ndim - 1))


def known_rung(prediction_type: str = "epsilon", num_classes: int = 0, null_label: int | None = None) -> Rung:
    """A model of points in the plane with the network above."""
    return Rung(
        model="exercise",
        dataset="exercise",
        network=KnownNetwork(),
        settings=MLPNetwork(name="mlp", hidden_size=2, hidden_layers=1, time_embedding_size=2),
        schedule=Schedule.model_validate(SCHEDULE | {"prediction_type": prediction_type}),
        sample_shape=(2,),
        num_classes=num_classes,
        null_label=null_label,
        normalisation=Normalisation((0.0,), (1.0,), bytes=False),
    )


def check_sinusoidal_embedding(sinusoidal_embedding: Answer) -> None:
    """Section 3.5 of arXiv 1706.03762, number by number."""
    times, half = [0, 1, 7, 999], 4

    def rows(exponent: Any, order: str = "cosines first") -> Tensor:
        """The embeddings where frequency i is 10000^exponent(i), computed with plain numbers."""
        table = []
        for time in times:
            cosines = [math.cos(time * 10_000.0 ** exponent(i)) for i in range(half)]
            sines = [math.sin(time * 10_000.0 ** exponent(i)) for i in range(half)]
            pairs = [value for pair in zip(cosines, sines, strict=True) for value in pair]
            table.append({"cosines first": cosines + sines, "sines first": sines + cosines, "pairs": pairs}[order])
        return torch.tensor(table)

    expect(
        sinusoidal_embedding(torch.tensor(times), 2 * half),
        rows(lambda i: -i / half),
        f"timesteps {times}, size {2 * half}",
        {
            "right but for the order: the cosines come first, then the sines": rows(
                lambda i: -i / half, order="sines first"
            ),
            "cosines and sines alternate; all cosines come first, then all sines": rows(
                lambda i: -i / half, order="pairs"
            ),
            "the exponent is divided by size/2 - 1; here it is -i / (size/2)": rows(lambda i: -i / (half - 1)),
            "the exponent is divided by the whole size; here it is -i / (size/2)": rows(lambda i: -i / (2 * half)),
            "the frequencies rise, from 1 to 10000; the minus sign in the exponent is missing": rows(
                lambda i: i / half
            ),
            "the frequencies fall too fast: 10000^(-2i / (size/2)); without the 2": rows(lambda i: -2 * i / half),
        },
        tolerance=1e-4,
    )
    expect(
        sinusoidal_embedding(torch.tensor([2.5, 3.0]), 2, 1.0),
        torch.tensor([[math.cos(t), math.sin(t)] for t in (2.5, 3.0)]),
        "right for integers; at the fractions of timesteps that Heun visits",
        {
            "right for integers; fractions of timesteps, which Heun visits, are rounded down": torch.tensor(
                [[math.cos(t), math.sin(t)] for t in (2, 3)]
            )
        },
    )


def check_losses_of(losses_of: Answer) -> None:
    """Algorithm 1 with a network whose answer is known: epsilon, v, classes, weights."""
    random = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 2, generator=random), torch.randn(3, 2, generator=random)
    timesteps, labels = torch.tensor([0, 400, 999]), torch.tensor([1, 0, 1])
    betas = [BETA_START + t / (T - 1) * (BETA_END - BETA_START) for t in range(T)]
    alpha_bar = float64([math.prod(1 - beta for beta in betas[: t + 1]) for t in timesteps.tolist()])
    signal, scale = alpha_bar.sqrt().float()[:, None], (1 - alpha_bar).sqrt().float()[:, None]
    x_t = signal * x0 + scale * noise
    time, label = timesteps[:, None] / 1000, labels[:, None]
    error = 0.3 * x_t + time - noise  # of a network that predicts epsilon

    def losses(prediction_type: str, labels: Tensor | None = None, weighting: LossWeight | None = None) -> Any:
        rung = known_rung(prediction_type, num_classes=0 if labels is None else 2)
        scheduler = build_scheduler("ddpm", rung.schedule)
        return losses_of(rung, scheduler, Batch(x0, timesteps, noise, labels), weighting, torch.float32)

    expect(
        losses("epsilon"),
        error.square().mean(1),
        "a batch of 3 points, the network predicts epsilon",
        {
            "the average is over the whole batch: one loss for each example is wanted, (B,)": error.square().mean(),
            "all values are added up: average over an example's own, one loss each, (B,)": error.square().sum(),
            "the squared errors of an example are added up; average them": error.square().sum(1),
            "the squared errors are not averaged over an example's values: (B, ...) to (B,)": error.square(),
            "these are absolute errors; squared ones are wanted": error.abs().mean(1),
            "the target is x_0; this network predicts the noise": (0.3 * x_t + time - x0).square().mean(1),
            "the target is x_t; this network predicts the noise in it": (0.3 * x_t + time - x_t).square().mean(1),
            "the network is shown the clean x_0; it must see x_t": (0.3 * x0 + time - noise).square().mean(1),
            "the network is shown the noise alone; it must see x_t": (0.3 * noise + time - noise).square().mean(1),
            "the network is not told the time: it sees t = 0 for all": (0.3 * x_t - noise).square().mean(1),
        },
    )
    velocity = signal * noise - scale * x0
    expect(
        losses("v_prediction"),
        (0.3 * x_t + time - velocity).square().mean(1),
        "right for epsilon; with v_prediction",
        {
            "right for epsilon; with v_prediction the target is still the noise": error.square().mean(1),
            "right for epsilon; the sign of v is wrong: v = sqrt(alpha_bar) epsilon - sqrt(1 - alpha_bar) x_0": (
                0.3 * x_t + time + velocity
            )
            .square()
            .mean(1),
        },
    )
    expect(
        losses("epsilon", labels),
        (error + label).square().mean(1),
        "right without classes; with labels 1, 0, 1",
        {"right without classes; the network is not given the labels": error.square().mean(1)},
    )
    weight = (5 / (alpha_bar / (1 - alpha_bar))).clamp(max=1).float()  # min(SNR, 5) / SNR
    expect(
        losses("epsilon", weighting=LossWeight(name="min_snr", gamma=5.0)),
        weight * error.square().mean(1),
        "right without weights; with those of min-SNR, gamma 5",
        {"right without weights; the weights are left out (`weight_of` gives them)": error.square().mean(1)},
    )


def check_update(update: Answer) -> None:
    """One step, then ten: an average from 0 toward 1 is 1 - decay^n after n steps."""
    network = nn.Linear(2, 1)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    average = ExponentialMovingAverage(network, 0.9)
    first = average.average[0]
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    returned = update(average, network, 0.9)
    if returned is not None:
        raise Fault(f"{described(returned)} came back; the average is changed in place, and nothing is returned")
    if not all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in network.parameters()):
        raise Fault("the network's own parameters are changed; only the average may move")
    if agree(first, torch.zeros_like(first)) and average.average[0] is first:
        raise Fault("the average never moves: the new values are not written into self.average")
    if len(average.average) != 2:
        raise Fault(f"self.average has {len(average.average)} tensors now, of 2 parameters: keep one for each")
    for value, shape in zip(average.average, [(1, 2), (1,)], strict=True):
        expect(
            value,
            torch.full(shape, 0.1),
            "an average of 0, parameters of 1, decay 0.9",
            {
                "the decay is at the wrong place: it keeps its share of the average, 1 - decay is the parameters'": (
                    torch.full(shape, 0.9)
                ),
                "the parameters are added to the average whole: they count 1 - decay": torch.full(shape, 1.0),
                "some parameters are left out of the average": torch.zeros(shape),
            },
        )
        if value.requires_grad:
            raise Fault("the average keeps the graph of every step (requires_grad): update it under torch.no_grad()")
    for _ in range(9):
        update(average, network, 0.9)
    expect(average.average[0], torch.full((1, 2), 1 - 0.9**10), "right after one step; after ten")
    update(average, network, 0.5)
    expect(
        average.average[0], torch.full((1, 2), 1 - 0.5 * 0.9**10), "right at decay 0.9; the eleventh step at decay 0.5"
    )
