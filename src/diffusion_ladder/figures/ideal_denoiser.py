"""The ideal denoiser in pictures: what it knows, expects and draws, and the Gaussian, where all is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.gaussian_chain import Chains
from diffusion_ladder.figures import canvas, encoding, memorisation, palette
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.points import encode_sheet, prediction_sheet
from diffusion_ladder.figures.samples import Panel, scatter_row
from diffusion_ladder.figures.strips import encode_strip, reverse_strip
from diffusion_ladder.figures.ways import Way

MOMENTS, FOLLOWED = 10, 3  # of the reverse process, and images whose way is shown
FEW_STEPS = 20  # of a chain whose every step is marked
CHAIN_COLOURS = (palette.VERMILLION, palette.ORANGE, palette.BLUE)  # from the fewest steps to the most


@dataclass(frozen=True)
class Ideal:
    """What the ideal denoiser knows and draws, beside held-out data; all in data units.

    Attributes:
        known, samples, held_out: (N, ...), (S, ...) and (M, ...).
        states, predicted: (F, K, ...) the way of the first samples from noise, and the clean ones predicted from them.
        timesteps: (F,) int64, from 0, falling.
        final: (K, ...) the same samples when finished.
    """

    known: Tensor
    samples: Tensor
    held_out: Tensor
    states: Tensor
    predicted: Tensor
    timesteps: Tensor
    final: Tensor
    normalisation: Normalisation

    @property
    def way(self) -> Way:
        """The way of the first samples from noise, at a few moments; points are standardised."""
        states, predicted = (torch.cat([part, self.final[None]]) for part in (self.states, self.predicted))
        if not self.normalisation.bytes:
            states, predicted = (normalise(part, self.normalisation) for part in (states, predicted))
        return Way("ideal denoiser", [*(self.timesteps + 1).tolist(), 0], states, predicted).thinned(MOMENTS)


def points_exhibits(ideal: Ideal) -> Iterator[Exhibit]:
    """samples.png and predicted.png of points."""
    count = len(ideal.known)
    sets = {
        f"the {count} points it knows": ideal.known,
        "its samples": ideal.samples,
        "held-out data": ideal.held_out,
    }
    panels = [Panel(title, normalise(points[:count], ideal.normalisation), None) for title, points in sets.items()]
    yield Exhibit(
        "samples.png",
        "Perfect samples, and nothing new",
        f"Left, the {count} training points that the denoiser knows; in the middle, as many of its samples; right, "
        "held-out points. The samples lie on the curves, as good ones do. Yet the gaps between them are those of the "
        "training points: each sample is one of these points once more.",
        f"Three scatter plots of {count} points each: the samples repeat the gaps of the training points.",
        encode_sheet(scatter_row(panels)),
    )
    way = ideal.way
    yield Exhibit(
        "predicted.png",
        "What the ideal denoiser expects",
        "Above, noisy points; below, the mean of all training points, weighted by how likely each of them became that "
        "noisy point. In pure noise all weights are alike, and the mean is the middle; as the noise falls, one point "
        "takes all the weight.",
        f"Two rows of {len(way.timesteps)} scatter plots: noisy points at falling t, and below each the predictions.",
        encode_sheet(prediction_sheet(way)),
    )


def image_exhibits(ideal: Ideal) -> Iterator[Exhibit]:
    """predicted.png of images."""
    every = max(1, ideal.way.states.shape[1] // FOLLOWED)
    way = ideal.way.of(range(0, every * FOLLOWED, every))
    figure, _ = reverse_strip(way, [""] * way.states.shape[1])
    yield Exhibit(
        "predicted.png",
        "What the ideal denoiser expects",
        "Each pair of rows shows a noisy image above the mean of all training images of its class, weighted by how "
        "likely each of them became that noisy image. The mean is blurred while many fit, and one of them in the end.",
        f"{FOLLOWED} pairs of rows of {len(way.timesteps)} images: noise above predictions that turn from a blurred "
        "average into one digit.",
        encode_strip(figure, way.predicted.flatten(0, 1)),
    )


def gaussian_figure(chains: Chains) -> Figure:
    """Mean and standard deviation of x_t over t: the closed form, and each chain at the timesteps that it visits."""
    figure = canvas.blank(1200, 370)
    for index, (name, title) in enumerate({"mean": "mean", "std": "standard deviation"}.items()):
        axes = canvas.place_axes(figure, 76 + index * 480, 34, 400, 272)
        axes.plot(chains.marginals.timesteps, getattr(chains.marginals, name), color=palette.RULE, lw=8)
        for colour, chain in zip(CHAIN_COLOURS, chains.chains.values(), strict=False):
            few = "o" if len(chain.timesteps) <= FEW_STEPS else ""
            axes.plot(chain.timesteps, getattr(chain, name), color=colour, marker=few, ms=6, lw=2)
        axes.set(title=f"{title} of $x_t$", xlabel="timestep t", xlim=(int(chains.marginals.timesteps[-1]), 0))
    names = ["closed form", *(f"{steps} steps" for steps in chains.chains)]
    axes.legend(axes.lines, names, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    return figure


def gaussian_exhibits(chains: Chains) -> Iterator[Exhibit]:
    """gaussian.png."""
    ends = ", ".join(f"{chain.std[-1].item():.3f} after {steps}" for steps, chain in chains.chains.items())
    mean, std = chains.marginals.mean[0].item(), chains.marginals.std[0].item()
    yield Exhibit(
        "gaussian.png",
        "Where the closed form and the chain meet",
        f"Data of one number, normal with mean {mean:g} and standard deviation {std:g}: the forward process is known "
        "in closed form (grey), and with the ideal denoiser each step of DDPM is a straight line, so that mean and "
        "deviation of the chain follow a recursion (from left to right, from noise to data). With every timestep the "
        f"two meet. With few the samples spread too little ({ends} steps): the noise of a step is right for a single "
        "known x_0, and leaves out how uncertain x_0 still is.",
        "Two plots over falling t: mean and standard deviation of the forward process in closed form, and of the "
        "chains; the fewer steps a chain has, the further its standard deviation ends below that of the data.",
        encoding.encode_png(palette.with_palette(canvas.rasterise(gaussian_figure(chains)), palette.CHART_PALETTE)),
    )


def exhibits(ideal: Ideal, findings: Findings) -> Iterator[Exhibit]:
    """What it expects and draws, and how near that is to what it knows; findings: of `evaluate_memorisation`."""
    yield from image_exhibits(ideal) if ideal.normalisation.bytes else points_exhibits(ideal)
    yield from memorisation.exhibits(findings)
