"""Checks of the forward process: the schedules, and the noise that is added. Right is what the closed forms say."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.exercises.faults import Fault, differ, expect, unchanged

Answer = Callable[..., Any]  # a function to be checked: the project's own, or a reader's

COSINE_OFFSET = 0.008


def float64(values: list[float]) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def check_make_beta(make_beta: Answer) -> None:
    """linear and scaled_linear, by arithmetic on plain numbers."""
    T, start, end = 5, 0.02, 0.18
    share = [t / (T - 1) for t in range(T)]
    expect(
        make_beta("linear", T, start, end),
        float64([start + s * (end - start) for s in share]),
        f"linear, T = {T}, from {start} to {end}",
        {
            "linear: the last beta is not beta_end; T values have T - 1 gaps between them": float64(
                [start + t / T * (end - start) for t in range(T)]
            ),
            "linear: the first beta is not beta_start; t counts from 0": float64(
                [start + (t + 1) / T * (end - start) for t in range(T)]
            ),
            "linear: these are the alphas; beta = 1 - alpha is wanted": float64(
                [1 - start - s * (end - start) for s in share]
            ),
            "linear: these are the alpha_bars, their running product; the betas themselves are wanted": float64(
                [math.prod(1 - start - s * (end - start) for s in share[: t + 1]) for t in range(T)]
            ),
            "linear: these betas are linear in sqrt(beta), as those of scaled_linear": float64(
                [(start**0.5 + s * (end**0.5 - start**0.5)) ** 2 for s in share]
            ),
        },
    )
    roots = [start**0.5 + s * (end**0.5 - start**0.5) for s in share]
    expect(
        make_beta("scaled_linear", T, start, end),
        float64([root**2 for root in roots]),
        "right for linear; scaled_linear",
        {
            "right for linear; scaled_linear is linear in sqrt(beta), not in beta": float64(
                [start + s * (end - start) for s in share]
            ),
            "right for linear; for scaled_linear the square is missing after the line in sqrt(beta)": float64(roots),
            "right for linear; for scaled_linear you square beta_start and beta_end, where their roots belong": float64(
                [(start**2 + s * (end**2 - start**2)) ** 0.5 for s in share]
            ),
        },
    )
    published = make_beta("scaled_linear", 1000, 0.00085, 0.012)
    signal = torch.cumprod(1 - published, 0)[-1].sqrt()  # what is left of x_0 at the end, 0.0683 as published
    expect(signal, float64([0.0683])[0], "right for T = 5; sqrt(alpha_bar) at the end of T = 1000", tolerance=1e-3)


def check_beta_of_alpha_bar(beta_of_alpha_bar: Answer) -> None:
    """An exponential, whose betas are all alike; then the cosine, whose last beta needs the cap."""
    T, rate = 8, 3.0
    alpha_bar = [math.exp(-rate * t / T) for t in range(T + 1)]
    expect(
        beta_of_alpha_bar(lambda u: math.exp(-rate * u), T),
        float64([1 - math.exp(-rate / T)] * T),
        "alpha_bar(u) = exp(-3 u), whose betas are all 1 - exp(-3 / T)",
        {
            "these are the alphas, alpha_bar of a step over that of the step before: beta is 1 minus it": float64(
                [math.exp(-rate / T)] * T
            ),
            "the ratio is upside down: alpha_bar after the step goes over alpha_bar before it": float64(
                [1 - math.exp(rate / T)] * T
            ),
            "the differences of alpha_bar are no betas: divide by alpha_bar before the step": float64(
                [alpha_bar[t] - alpha_bar[t + 1] for t in range(T)]
            ),
            "T + 1 values of alpha_bar give T betas; you have one too many": float64(
                [0.0] + [1 - math.exp(-rate / T)] * T
            ),
            "u runs from 0 to 1 in T steps; you divide by T - 1": float64([1 - math.exp(-rate / (T - 1))] * T),
        },
    )
    T = 1000
    f = [math.cos((t / T + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2 for t in range(T + 1)]
    uncapped = [1 - f[t + 1] / f[t] for t in range(T)]
    expect(
        beta_of_alpha_bar(lambda u: math.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2, T),
        float64([min(beta, 0.999) for beta in uncapped]),
        "right for an exponential; the cosine schedule",
        {
            "right, but for the cap: the cosine ends at 0, so that its last beta is 1 and nothing of x_0 is left;"
            " keep beta at 0.999 or below": float64(uncapped)
        },
    )


def check_add_noise(add_noise: Answer) -> None:
    """One alpha_bar for all, one for each sample, images with as many samples as columns."""
    random = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(4, 2, generator=random), torch.randn(4, 2, generator=random)
    a = 0.36  # sqrt(a) = 0.6 and sqrt(1 - a) = 0.8
    check_repetition(add_noise, x0.clone(), noise.clone())
    expect(
        add_noise(x0, noise, a),
        0.6 * x0 + 0.8 * noise,
        "alpha_bar_t = 0.36 for the whole batch",
        {
            "the roots are missing: alpha_bar and 1 - alpha_bar are variances, their roots scale the sample": a * x0
            + (1 - a) * noise,
            "the noise is scaled by 1 - sqrt(alpha_bar_t); it must be sqrt(1 - alpha_bar_t)": 0.6 * x0 + 0.4 * noise,
            "right but for the noise's root: sqrt(1 - alpha_bar_t) is its scale": 0.6 * x0 + 0.64 * noise,
            "right but for the signal's root: sqrt(alpha_bar_t) is its scale": 0.36 * x0 + 0.8 * noise,
            "signal and noise are exchanged: sqrt(alpha_bar_t) belongs to x_0": 0.8 * x0 + 0.6 * noise,
            "x_0 is not scaled down: then x_t grows with t, where its variance should stay at 1": x0 + 0.8 * noise,
            "the noise is subtracted: add it": 0.6 * x0 - 0.8 * noise,
        },
    )
    each = float64([1.0, 0.36, 0.64, 0.0])
    signal, scale = torch.tensor([1.0, 0.6, 0.8, 0.0]), torch.tensor([0.0, 0.8, 0.6, 1.0])
    along_the_width = "right for points; of images, alpha_bar_t acts along the width: give it the shape (B, 1, 1, 1)"
    for shape in ((4, 2), (4, 1, 4, 4)):  # in the second, (B,) would broadcast along the width without a complaint
        x0, noise = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
        first = [-1] + [1] * (len(shape) - 1)
        expect(
            add_noise(x0, noise, each),
            signal.reshape(first) * x0 + scale.reshape(first) * noise,
            f"right for one alpha_bar_t; with one for each of 4 samples {shape}",
            {along_the_width: signal * x0 + scale * noise} if shape[-1] == len(each) else {},
        )


def check_repetition(add_noise: Answer, x0: Tensor, noise: Tensor) -> None:
    """The same arguments give the same result, and stay what they are."""
    before = x0.clone(), noise.clone()
    once = add_noise(x0, noise, 0.5)
    unchanged(x0, before[0], "x0")
    unchanged(noise, before[1], "noise")
    if differ(once, add_noise(x0, noise, 0.5)):
        raise Fault("the same arguments give another x_t each time: take the argument `noise`, and draw none")
