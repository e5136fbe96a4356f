"""Pictures as bytes of files: PNG and animations, without metadata."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from diffusion_ladder.figures.palette import colours_of, ramp, with_palette

GREYS, COLOURS = 32, 160  # of pictures of samples


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata; an RGB image of up to 256 colours goes into a palette, which changes no pixel."""
    if image.mode == "RGB" and (colours := colours_of(image, 256)) is not None:
        image = with_palette(image, colours)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def in_few_colours(image: Image.Image) -> Image.Image:
    """An RGB image in 160 colours, chosen to be as near as can be, where it has more than 256."""
    if colours_of(image, 256) is not None:
        return image
    return image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).convert("RGB")


def encode_samples(image: Image.Image) -> bytes:
    """PNG bytes of pictures of samples, in as many colours as the eye needs: 32 greys, or 160 colours."""
    colours = colours_of(image, 256)
    if colours is not None and all(red == green == blue for red, green, blue in colours):
        return encode_png(with_palette(image, [(255, 255, 255), *ramp("white", "black", GREYS - 1)]))
    return encode_png(in_few_colours(image))


def encode_animation(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """A lossless WebP animation that loops for ever; it is small where the frames have few colours.

    Args:
        frames: images of one size.
        durations: how long each frame stays, in milliseconds.
    """
    buffer = io.BytesIO()
    first, *rest = [frame.convert("RGB") for frame in frames]
    lossless: dict[str, Any] = {"lossless": True, "quality": 100, "method": 4, "minimize_size": True}
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=list(durations), loop=0, **lossless)
    return buffer.getvalue()
