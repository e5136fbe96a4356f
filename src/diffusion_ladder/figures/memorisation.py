"""New or copied? Samples beside what lies nearest to them in the data, and how near that is."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.figures import canvas, encoding, mosaic, palette
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.mosaic import MosaicLayout

LABEL_GAP = 26  # pixels below each tile, for the number that belongs to it
ROWS = {"samples": "sample", "training": "nearest in training", "held_out": "nearest held out"}


class LabelledLayout(MosaicLayout):
    """A mosaic with room for a line of text below each row."""

    GROUP_GAP = LABEL_GAP


def lineup_figure(tiles: Tensor, labels: list[list[str]]) -> Figure:
    """Samples above their nearest neighbours, each tile with a label below it.

    Args:
        tiles: (3, K, channels, h, w) uint8: samples, nearest training images, nearest held-out images.
        labels: K texts for each row.
    """
    scale = mosaic.scale_of(tiles)
    _, columns, _, height, width = tiles.shape
    left = MosaicLayout.MARGIN + max(map(canvas.text_width, ROWS.values())) + 12
    layout = LabelledLayout(3, columns, height * scale, width * scale, 1, left, MosaicLayout.MARGIN)
    figure = canvas.blank(layout.size[0], layout.size[1] + LABEL_GAP)
    pixels = mosaic.mosaic_pixels(tiles, scale, layout)
    figure.figimage(pixels, yo=LABEL_GAP, origin="upper")
    small: dict[str, Any] = {"ha": "center", "va": "top", "size": canvas.SMALL_TEXT_SIZE, "color": palette.GREY_INK}
    for row, title in enumerate(ROWS.values()):
        middle = layout.corner(row, 0)[1] + layout.tile_height / 2
        canvas.place_text(figure, left - 8, middle, title, ha="right", va="center", color=palette.GREY_INK)
        for column, label in enumerate(labels[row]):
            x, y = layout.corner(row, column)
            canvas.place_text(figure, x + layout.tile_width / 2, y + layout.tile_height + 4, label, **small)
    return figure


def lineup_exhibit(findings: Findings) -> Exhibit:
    """neighbours.png: the images that look most like copies."""
    found = {name: findings.tensors[f"neighbours.{name}"] for name in (*ROWS, "training_distances")}
    first, second = found["training_distances"].unbind(1)
    ratios = torch.where(first == 0, 0.0, first / second)
    elsewhere = findings.tensors["neighbours.held_out_distances"]
    labels = [
        [f"ratio {ratio:.2f}" for ratio in ratios.tolist()],
        [f"{distance:.1f}" for distance in first.tolist()],
        [f"{distance:.1f}" for distance in elsewhere.tolist()],
    ]
    count, total = len(first), len(findings.tensors["neighbours.distances"])
    return Exhibit(
        "neighbours.png",
        "The samples that look most like copies",
        f"The worst {count} of {total} samples, not typical ones: those that are nearest to one training image, "
        "compared with the next. The ratio of these two distances is near one for something new, and near nought for "
        "a copy. Below each: the nearest image that it was trained on, and the nearest that no training has seen, with "
        f"their distances in pixel space ({findings.numbers['memorisation_space']}). There are fewer held-out images "
        "to choose from, so that the nearest of them is a little farther.",
        f"{count} generated images in a row, above each one's nearest training image and nearest held-out image; the "
        f"ratios of distances go from {ratios[0]:.2f} to {ratios[-1]:.2f}.",
        encoding.encode_png(canvas.rasterise(lineup_figure(torch.stack([found[name] for name in ROWS]), labels))),
    )


def share_below(distances: Tensor) -> tuple[list[float], list[float]]:
    """The empirical distribution of distances (N,): where it rises, and to which share."""
    ordered = distances.sort().values
    return ordered.tolist(), ((torch.arange(len(ordered)) + 1) / len(ordered)).tolist()


def distances_figure(samples: Tensor, held_out: Tensor, space: str) -> Figure:
    """Which share of samples, and of held-out data, has a training example within a distance.

    Args:
        samples, held_out: (N,) and (M,) distances to the nearest training example.
        space: in which they are measured.
    """
    figure = canvas.blank(960, 360)
    axes = canvas.place_axes(figure, 76, 34, 690, 262)
    for values, colour, name in ((samples, palette.VERMILLION, "samples"), (held_out, palette.BLUE, "held-out data")):
        axes.step(*share_below(values), where="post", color=colour, label=name)
    axes.set(title="share that has a training example within a distance", xlabel=space, ylim=(0, 1.02))
    axes.set_xlim(0, float(torch.cat([samples, held_out]).quantile(0.99)) or 1)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return figure


def distances_exhibit(findings: Findings) -> Exhibit:
    """neighbours_distances.png: how near samples and held-out data are to the training data."""
    samples = findings.tensors["neighbours.distances"][:, 0]
    held_out = findings.tensors["neighbours.distances_of_held_out"][:, 0]
    figure = distances_figure(samples, held_out, findings.numbers["memorisation_space"])
    return Exhibit(
        "neighbours_distances.png",
        "How near are the training data?",
        f"For {len(samples)} samples and {len(held_out)} held-out examples: how many have a training example within a "
        "distance. Samples that are new lie about where held-out data do. A curve of the samples that rises sooner is "
        "a sign of copying; one that rises later, of samples unlike the data.",
        f"Two rising curves over the distance to the nearest training example. Half of the samples are within "
        f"{float(samples.median()):.3g}, half of the held-out data within {float(held_out.median()):.3g}.",
        encoding.encode_png(canvas.rasterise(figure)),
    )


def exhibits(findings: Findings) -> Iterator[Exhibit]:
    """The neighbours of samples, where they were looked for: of images as pictures, of all as distances."""
    if "neighbours.samples" not in findings.tensors:
        return
    if findings.tensors["neighbours.samples"].dtype == torch.uint8:
        yield lineup_exhibit(findings)
    yield distances_exhibit(findings)
