"""From the bytes of an image file, which may be anything, to square pixels. Needs no torch, and may run in threads."""

import functools
import io
import re
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy

from diffusion_ladder.data.portraits.image_metadata import jpeg_exif, unknown_coding, upright, without_metadata
from diffusion_ladder.foundation.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # fewer parsers, fewer surprises
SIGNATURES = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|RIFF....WEBP|GIF8", re.DOTALL)  # what their files begin with
OTHER_FORMAT = f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
Crop = Literal["top", "centre"]


class UndecodableImageError(UserError):
    """The bytes are no image of FORMATS, or not a whole one, or one of absurd size: says which in a few words."""


@functools.cache
def pillow() -> Any:
    """Pillow's module Image, imported where it is needed, without its warnings and its own limit of pixels."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # about odd metadata, a line for each image
    Image.MAX_IMAGE_PIXELS = None
    return Image


def decode_image(data: bytes | None, max_pixels: int | None = None, smallest: bool = False) -> "Image.Image":
    """Decode an image file completely, turn it upright and make it RGB.

    Transparent parts show white. Of an animation, this is the first frame. Metadata, whatever is wrong with them, don't
    keep an image from being shown.

    Args:
        max_pixels: larger images are refused by what their header claims, before they are decoded.
        smallest: decode a JPEG file at an eighth of its size: all of its data are read, for a fifth of the time.

    Raises:
        UndecodableImageError: missing, empty, truncated, damaged, of another format than FORMATS, or too large.
    """
    if data is None:
        raise UndecodableImageError("no image")
    if not data:
        raise UndecodableImageError("empty image")
    try:
        return decode_as_is(data, max_pixels, smallest)
    except UndecodableImageError as error:
        reason = str(error)
        if (bare := without_metadata(data)) == data:
            raise UndecodableImageError(unknown_coding(data) or reason) from None
    try:
        return decode_as_is(bare, max_pixels, smallest, jpeg_exif(data))
    except UndecodableImageError as error:
        reason = reason if str(error) == OTHER_FORMAT else str(error)  # what is left of a damaged file may be anything
        raise UndecodableImageError(unknown_coding(bare) or reason) from None


def decode_as_is(data: bytes, max_pixels: int | None, smallest: bool, exif: bytes = b"") -> "Image.Image":
    """`decode_image`, for which Pillow must like the metadata too.

    Args:
        exif: instead of what is in the file.
    """
    image = open_image(data)
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise UndecodableImageError(f"more than {max_pixels} pixels")
    try:
        if smallest:
            image.draft(image.mode, (1, 1))
        image.load()
        return to_rgb(upright(image, exif))
    except MemoryError:
        raise UndecodableImageError(
            f"{image.width} x {image.height} pixels, for which memory does not suffice"
        ) from None
    except Exception as error:  # Pillow's parsers raise whatever they stumble over: OSError, SyntaxError, struct.error
        cut = "truncated" in str(error).lower()
        raise UndecodableImageError("truncated image" if cut else "damaged image") from None


def open_image(data: bytes) -> "Image.Image":
    """Read an image file's header.

    Raises:
        UndecodableImageError: of another format, or damaged.
    """
    try:
        return pillow().open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # the parsers of headers, as above
        known = SIGNATURES.match(data)
        raise UndecodableImageError("damaged image" if known else OTHER_FORMAT) from None


def to_rgb(image: "Image.Image") -> "Image.Image":
    """Any mode to RGB: alpha over white, 16-bit grey scaled to 8 bits (Pillow's own conversion would clip it)."""
    Image = pillow()
    if image.mode.startswith("I"):
        grey = numpy.asarray(image).astype(numpy.float64) / 257  # 65535 / 255
        image = Image.fromarray(grey.round().clip(0, 255).astype(numpy.uint8))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque)
    return image.convert("RGB")


def square_box(width: int, height: int, crop: Crop) -> tuple[int, int, int, int]:
    """The largest square of a picture as (left, upper, right, lower).

    Across, it is centred. Down, `top` keeps the upper end of a tall picture, where a portrait has its face.
    """
    side = min(width, height)
    left = (width - side) // 2
    upper = 0 if crop == "top" else (height - side) // 2
    return left, upper, left + side, upper + side


def to_square(image: "Image.Image", size: int, crop: Crop) -> "Image.Image":
    """Crop to a square and resize to `size`, antialiased; never squashed, and untouched where it fits already."""
    square = image.crop(square_box(image.width, image.height, crop))
    if square.width == size:
        return square
    return square.resize((size, size), pillow().Resampling.LANCZOS)


def to_pixels(image: "Image.Image", channels: int) -> numpy.ndarray:
    """An RGB picture as uint8 (channels, H, W): 3 for colour, 1 for its brightness."""
    if channels == 1:
        return numpy.asarray(image.convert("L"))[None]
    return numpy.ascontiguousarray(numpy.asarray(image).transpose(2, 0, 1))
