"""Walk between two noises or two classes of a rung of images: a strip, or an animation that goes there and back.

python -m diffusion_ladder.interpolate faces --class female --seeds 0 1
python -m diffusion_ladder.interpolate faces --class female --class male --out drawn/faces/walk.webp
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffusion_ladder.command_line import DRAWN, Asked, add_sampler, picture_of, prepare, run, sampler_options
from diffusion_ladder.data.normalise import unnormalise
from diffusion_ladder.figures.canvas import house_style, rasterise
from diffusion_ladder.figures.encoding import encode_animation, encode_png
from diffusion_ladder.figures.mosaic import mosaic, scale_of
from diffusion_ladder.foundation.artifacts import write_bytes
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.samplers import MODULES
from diffusion_ladder.sampling.between import finished, mixed, slerp
from diffusion_ladder.sampling.guidance import Predict, guided
from diffusion_ladder.sampling.loop import device_of, noise_of

DETERMINISTIC = {"sampler": "ddim", "eta": 0.0, "spacing": "trailing"}  # unless something else is asked for
FRAME, PAUSE = 120, 700  # milliseconds of a frame of the animation, and of its two ends
SIDE = 256  # of the animation, about, in pixels


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.interpolate", description=__doc__.splitlines()[0])
    parser.add_argument("rung", help="a key of rungs in params.yaml")
    parser.add_argument("--class", dest="classes", action="append", default=[], metavar="NAME", help="once, or twice")
    parser.add_argument(
        "--seeds", type=int, nargs=2, metavar="SEED", help="sampling seeds (default: 0 1; 0 0 for two classes)"
    )
    parser.add_argument("--frames", type=int, default=9, help="pictures, both ends included (default: 9)")
    parser.add_argument("--out", type=Path, help=f"file.png or file.webp (default: {DRAWN}/RUNG/between.png)")
    add_sampler(parser)
    options = parser.parse_args(arguments)
    if options.frames < 2 or len(options.classes) > 2 or min(options.seeds or [0]) < 0:
        parser.error("--frames must be at least 2, --seeds at least 0, and there can be two classes at most")
    if options.out and options.out.suffix not in (".png", ".webp"):
        parser.error("--out must end in .png or .webp")
    options.seeds = options.seeds or ([0, 0] if len(options.classes) == 2 else [0, 1])
    return options


def prediction(asked: Asked, classes: list[str], share: Tensor) -> Predict:
    """The prediction to follow: of one class, or for each sample so far between two, as (F,) shares in [0, 1] say.

    Raises:
        UserError: there is no such class, or one is needed.
    """
    model = asked.model
    if model.class_names and not classes:
        raise UserError(f"{model.rung.model} must be told a class: --class {' or '.join(model.class_names)}")
    labels: list[Tensor | None] = [
        torch.full((len(share),), model.label_of(name), device=device_of(model.rung)) for name in classes
    ]
    first, *last = [guided(model.rung, each, asked.settings, asked.compute.precision) for each in labels or [None]]
    return mixed(first, last[0], share) if last else first


def between(asked: Asked, classes: list[str], seeds: list[int], frames: int) -> Tensor:
    """(F, C, H, W) uint8 pictures, evenly spaced from the first to the last noise and class.

    Raises:
        UserError: the rung draws no pictures, or the sampler adds noise.
    """
    rung, settings = asked.model.rung, asked.settings
    if not rung.normalisation.bytes:
        raise UserError(f"{rung.model} draws points: walks are drawn of rungs of images")
    if MODULES[settings.sampler].adds_noise(settings.eta):
        raise UserError(
            f"{settings.sampler} adds noise, so that nothing leads from a picture to the next: "
            "take ddim with --eta 0, dpm_solver or heun"
        )
    first, last = (noise_of(rung, torch.tensor([0]), torch.tensor([s]), asked.parameters.seed)[0][0] for s in seeds)
    share = torch.linspace(0, 1, frames, device=first.device)
    predict = prediction(asked, classes, share)
    with asked.progress(frames) as bar:
        x_0 = finished(rung, settings, predict, slerp(first, last, share), progress=bar.update)
    return unnormalise(x_0, rung.normalisation).cpu()


def there_and_back(images: Tensor) -> bytes:
    """A WebP animation of (F, C, H, W) pictures, enlarged by a whole number, that rests at its two ends."""
    scale = max(1, SIDE // images.shape[-1])
    large = [
        picture_of(image).resize((image.shape[2] * scale, image.shape[1] * scale), Image.Resampling.NEAREST)
        for image in images
    ]
    frames = [*large, *large[-2:0:-1]]
    rests = (0, len(images) - 1)
    return encode_animation(frames, [PAUSE if index in rests else FRAME for index in range(len(frames))])


def main() -> None:
    """Draw the walk that the command line asks for."""
    options = parsed()
    asked = prepare(options.rung, DETERMINISTIC | sampler_options(options))
    images = between(asked, options.classes, options.seeds, options.frames)
    out = options.out or DRAWN / options.rung / "between.png"
    if out.suffix == ".webp":
        write_bytes(out, there_and_back(images))
    else:
        with house_style():
            write_bytes(out, encode_png(rasterise(mosaic(images[None], scale_of(images[None])))))
    print(f"{options.rung}: {len(images)} pictures by {asked.settings.sampler}, in {out}")


if __name__ == "__main__":
    run(main)
