"""From the bytes of an image file, which may be anything, to a square RGB picture."""

import io
import warnings
from typing import TYPE_CHECKING, Literal

import numpy

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")  # fewer parsers, fewer surprises
MAX_PIXELS = 40_000_000  # a small file can claim to hold billions


class UndecodableImageError(Exception):
    """The bytes are no image of a known format, or not a whole one, or one of absurd size."""


def decode_image(data: bytes | None) -> "Image.Image":
    """Decode an image file completely, turn it upright and make it RGB.

    Transparent parts show white. Of an animation, this is the first frame.

    Raises:
        UndecodableImageError: missing, empty, truncated, of another format than FORMATS, or larger than MAX_PIXELS.
    """
    from PIL import Image, ImageOps

    if not data:
        raise UndecodableImageError("no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise UndecodableImageError(f"{image.width} x {image.height} pixels")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except UndecodableImageError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they stumble over: OSError, SyntaxError, struct.error
        raise UndecodableImageError(f"{type(error).__name__}: {error}") from None


def to_rgb(image: "Image.Image") -> "Image.Image":
    """Any mode to RGB: alpha over white, 16-bit grey scaled to 8 bits (Pillow's own conversion would clip it)."""
    from PIL import Image

    if image.mode.startswith("I"):
        grey = numpy.asarray(image).astype(numpy.float64) / 257  # 65535 / 255
        image = Image.fromarray(grey.round().clip(0, 255).astype(numpy.uint8))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque)
    return image.convert("RGB")


def square_box(width: int, height: int, crop: Literal["top", "centre"]) -> tuple[int, int, int, int]:
    """The largest square of a picture as (left, upper, right, lower).

    Across, it is centred. Down, `top` keeps the upper end of a tall picture, where a portrait has its face.
    """
    side = min(width, height)
    left = (width - side) // 2
    upper = 0 if crop == "top" else (height - side) // 2
    return left, upper, left + side, upper + side


def to_square(image: "Image.Image", size: int, crop: Literal["top", "centre"]) -> "Image.Image":
    """Crop to a square and resize to `size`, antialiased; never squashed, and untouched where it fits already."""
    from PIL import Image

    square = image.crop(square_box(image.width, image.height, crop))
    if square.width == size:
        return square
    return square.resize((size, size), Image.Resampling.LANCZOS)


def to_tensor(image: "Image.Image") -> "Tensor":
    """An RGB picture as uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
