"""Draw from a trained rung: a grid, and every picture alone.

python -m diffusion_ladder.sample faces --class female --count 16 --seed 3
python -m diffusion_ladder.sample mnist_scratch --sampler ddim --steps 20 --guidance-scale 2
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from diffusion_ladder.command_line import (
    DRAWN,
    Asked,
    add_sampler,
    file_names,
    picture_of,
    prepare,
    run,
    sampler_options,
)
from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.figures.canvas import house_style, rasterise
from diffusion_ladder.figures.encoding import encode_png
from diffusion_ladder.figures.samples import Panel, grid, scatter_row
from diffusion_ladder.foundation.artifacts import write_bytes, write_table


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.sample", description=__doc__.splitlines()[0])
    parser.add_argument("rung", help="a key of rungs in params.yaml")
    parser.add_argument("--class", dest="classes", action="append", metavar="NAME", help="may be repeated; else all")
    parser.add_argument("--count", type=int, default=8, help="pictures of each class (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="sampling seed (default: 0); data/samples begins with it")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {DRAWN}/RUNG)")
    add_sampler(parser)
    options = parser.parse_args(arguments)
    if options.count < 1 or options.seed < 0:
        parser.error("--count must be at least 1, and --seed at least 0")
    return options


def drawn(asked: Asked, labels: list[int], count: int, seed: int) -> Tensor:
    """(classes, count, ...) samples; sample i starts from the same noise in every class, as in data/samples."""
    groups = max(1, len(labels))
    of_classes = torch.tensor(labels).repeat_interleave(count) if labels else None
    places = torch.arange(count).repeat(groups)
    roots = {"seed": seed, "root_seed": asked.parameters.seed}
    with asked.progress(groups * count) as bar:
        samples = asked.model.draw(
            asked.settings, of_classes, places, **roots, precision=asked.compute.precision, progress=bar.update
        )
    return samples.unflatten(0, (groups, count))


def write_images(images: Tensor, names: list[str], stems: list[str], folder: Path) -> None:
    """grid.png, and a file for each of (classes, count, C, H, W) uint8 images, which begins with its class's stem."""
    for stem, group in zip(stems, images, strict=True):
        for number, image in enumerate(group):
            write_bytes(folder / f"{stem}{number:03}.png", encode_png(picture_of(image)))
    with house_style():
        write_bytes(folder / "grid.png", encode_png(rasterise(grid(images, names)[0])))


def write_points(points: Tensor, names: list[str], normalisation: Normalisation, folder: Path) -> None:
    """grid.png, where all (classes, count, 2) points in data units are drawn, and points.tsv, which lists them."""
    labels = torch.arange(len(names)).repeat_interleave(points.shape[1]) if any(names) else None
    panel = Panel("Samples", normalise(points.flatten(0, 1), normalisation), labels)
    with house_style():
        write_bytes(folder / "grid.png", encode_png(rasterise(scatter_row([panel]))))
    named = zip(names, points.tolist(), strict=True)
    rows = [{"x": x, "y": y} | ({"class": name} if name else {}) for name, group in named for x, y in group]
    write_table(folder / "points.tsv", rows)


def main() -> None:
    """Draw what the command line asks for."""
    options = parsed()
    asked = prepare(options.rung, sampler_options(options))
    model = asked.model
    labels = [model.label_of(name) for name in dict.fromkeys(options.classes or model.class_names)]
    names = [model.class_names[label] for label in labels] or [""]
    folder = options.out or DRAWN / options.rung
    samples = drawn(asked, labels, options.count, options.seed)
    if model.rung.normalisation.bytes:
        every_stem = file_names(model.class_names)
        write_images(samples, names, [f"{every_stem[label]}-" for label in labels] or [""], folder)
    else:
        write_points(samples, names, model.rung.normalisation, folder)
    print(f"{options.rung}: {samples.shape[:2].numel()} samples by {asked.settings.sampler}, in {folder}/grid.png")


if __name__ == "__main__":
    run(main)
