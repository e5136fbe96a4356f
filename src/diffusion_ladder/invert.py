"""Turn a picture into the noise that a rung draws it from, and back: DDIM inversion.

python -m diffusion_ladder.invert drawn/faces/female-000.png --rung faces --class female
python -m diffusion_ladder.invert drawn/faces/female-000.png --rung faces --class female --to-class male
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.command_line import DRAWN, Asked, prepare, run, steps_of
from diffusion_ladder.data.normalise import normalise, unnormalise
from diffusion_ladder.data.portraits.decoding import UndecodableImageError, decode_image, to_pixels, to_square
from diffusion_ladder.figures.canvas import house_style, rasterise
from diffusion_ladder.figures.encoding import encode_png
from diffusion_ladder.figures.mosaic import mosaic, scale_of
from diffusion_ladder.foundation.artifacts import write_bytes, write_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.sampling.between import finished, inverted
from diffusion_ladder.sampling.guidance import conditional
from diffusion_ladder.sampling.loop import device_of, sampler_for

# The sampler whose way can be walked back: without noise, clipping or guidance, which would bend it.
REVERSIBLE = {
    **{"sampler": "ddim", "eta": 0.0, "spacing": "trailing"},
    **{"clip_sample": False, "thresholding": None, "guidance_scale": 1.0},
}


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.invert", description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="a picture; it is cropped and scaled to the size of the rung's")
    parser.add_argument("--rung", required=True, help="a key of rungs in params.yaml")
    parser.add_argument("--class", dest="label", metavar="NAME", help="the class that it shows (default: none)")
    parser.add_argument("--to-class", metavar="NAME", help="draw the noise as this class as well")
    parser.add_argument("--steps", type=steps_of, default=50, help="of DDIM: a number, or all (default: 50)")
    parser.add_argument(
        "--iterations", type=int, default=5, help="for each step; 1 is the common inversion (default: 5)"
    )
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {DRAWN}/RUNG/inverted)")
    options = parser.parse_args(arguments)
    if options.iterations < 1:
        parser.error("--iterations must be at least 1")
    return options


def pixels_of(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A picture as (1, C, H, W) uint8, its largest square scaled to the shape (C, H, W).

    Raises:
        UserError: it can't be read, or the shape is none of pictures.
    """
    if len(shape) != 3:
        raise UserError("a picture can be inverted with a rung of images only")
    try:
        picture = decode_image(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except UndecodableImageError as error:
        raise UserError(f"{path} can't be read: {error}") from None
    return torch.from_numpy(to_pixels(to_square(picture, shape[-1], "centre"), shape[0]).copy())[None]


def label_tensor(asked: Asked, name: str | None) -> Tensor | None:
    """The label (1,) of a class by name, or of none; None for an unconditional rung.

    Raises:
        UserError: there is no such class, or the rung was not trained without one.
    """
    model = asked.model
    label = model.rung.null_label if name is None else model.label_of(name)
    if label is None and model.class_names:
        raise UserError(f"{model.rung.model} must be told a class: --class {' or '.join(model.class_names)}")
    return None if label is None else torch.tensor([label], device=device_of(model.rung))


def there_and_back(asked: Asked, pixels: Tensor, labels: list[Tensor | None], iterations: int) -> tuple[Tensor, Tensor]:
    """The noise (1, C, H, W) of a picture that shows the first label, and (L, C, H, W) what each label makes of it."""
    rung, settings = asked.model.rung, asked.settings
    predicts = [conditional(rung, label, torch.float32) for label in labels]
    scheduler, _ = sampler_for(settings.sampler, rung, settings, settings.steps)
    x_0 = normalise(pixels, rung.normalisation).to(device_of(rung))
    with asked.progress(1 + len(labels)) as bar:
        x_T = inverted(rung, scheduler, predicts[0], x_0, iterations, bar.update)
        drawn = [finished(rung, settings, predict, x_T, progress=bar.update) for predict in predicts]
    return x_T.cpu(), unnormalise(torch.cat(drawn), rung.normalisation).cpu()


def report(picture: Tensor, noise: Tensor, back: Tensor) -> str:
    """How far the way back leads from the picture, and how near the noise is to a standard normal one, in words."""
    off = (picture.float() - back.float()).abs()
    return (
        f"back from the noise: {off.square().mean().sqrt():.2f} grey levels off (root mean square), {off.max():.0f} at"
        f" most\nthe noise: mean {noise.mean():.3f}, standard deviation {noise.std():.3f} (standard normal: 0 and 1)"
    )


def main() -> None:
    """Invert the picture that the command line names."""
    options = parsed()
    asked = prepare(options.rung, REVERSIBLE | {"steps": options.steps})
    rung = asked.model.rung
    pixels = pixels_of(options.picture, rung.sample_shape)
    names = [options.label, *([options.to_class] if options.to_class else [])]
    noise, drawn = there_and_back(asked, pixels, [label_tensor(asked, name) for name in names], options.iterations)
    folder = options.out or DRAWN / options.rung / "inverted"
    strip = torch.cat([pixels, unnormalise(noise, rung.normalisation), drawn])[None]  # (1, 3 or 4, C, H, W)
    titles = ["picture", "its noise", "back", *([f"as {options.to_class}"] if options.to_class else [])]
    with house_style():
        write_bytes(folder / "strip.png", encode_png(rasterise(mosaic(strip, scale_of(strip), column_titles=titles))))
    facts: dict[str, Any] = {"model": rung.model, "steps": options.steps, "iterations": options.iterations}
    write_tensors(folder / "noise.safetensors", {"noise": noise}, facts)
    print(report(pixels, noise, drawn[:1]))
    print(f"{folder}/strip.png, {folder}/noise.safetensors")


if __name__ == "__main__":
    run(main)
