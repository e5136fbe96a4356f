"""Metadata are no damage: what can be shown to a person is kept, and each reason for dropping is the true one."""

import io
import struct
import zlib

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from diffusion_ladder.data.portraits.decoding import UndecodableImageError, decode_image
from diffusion_ladder.data.portraits.image_metadata import without_metadata

PIXELS = numpy.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=numpy.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(image=PICTURE, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


PNG, JPEG = encoded(), encoded(kind="JPEG", quality=95)


def chunk(name, content, crc=None):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc or zlib.crc32(name + content))


def with_chunks(*chunks, late=False, png=PNG):
    """A PNG with chunks behind its header, or between pixels and end."""
    place = png.index(b"IEND") - 4 if late else 33
    return png[:place] + b"".join(chunks) + png[place:]


def with_segments(*segments, jpeg=JPEG):
    parts = (b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments)
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def exif(*entries, order=">"):
    """An EXIF block of entries (tag, type, count, four bytes)."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    body = b"".join(struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(4)


TURNED = (0x0112, 3, 1, b"\0\6\0\0")  # orientation 6: to be turned clockwise
LONG_TEXT = zlib.compress(bytes(1_100_000))
XMP = b'<x tiff:Orientation="6"/>'
KEPT_PNG = {
    "compressed text": with_chunks(chunk(b"zTXt", b"Comment\0\0" + LONG_TEXT)),
    "compressed text behind the pixels": with_chunks(chunk(b"zTXt", b"Comment\0\0" + LONG_TEXT), late=True),
    "compressed international text": with_chunks(chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG_TEXT)),
    "many texts": with_chunks(*[chunk(b"tEXt", b"Comment\0" + bytes(1_000_000))] * 66),
    "text of another compression": with_chunks(chunk(b"zTXt", b"Comment\0\7" + LONG_TEXT)),
    "colour profile": with_chunks(chunk(b"iCCP", b"p\0\0" + LONG_TEXT)),
    "colour profile of another compression": with_chunks(chunk(b"iCCP", b"p\0\1" + LONG_TEXT)),
    "cut colour profile": with_chunks(chunk(b"iCCP", b"p")),
    "short resolution": with_chunks(chunk(b"pHYs", b"\0\0")),
    "short gamma": with_chunks(chunk(b"gAMA", b"\0")),
    "wrong checksum of a text": with_chunks(chunk(b"tEXt", b"a\0b", crc=7)),
    "wrong checksum of EXIF": with_chunks(chunk(b"eXIf", exif()[6:], crc=7)),
    "transparency of a wrong length": with_chunks(chunk(b"tRNS", b"\0\1\0\1")),
    "an animation's control, cut": with_chunks(chunk(b"acTL", b"\0\0")),
    "a frame's control, cut": with_chunks(chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", b"\0\0")),
    "a frame that can't be": with_chunks(
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 900, 900, 5, 5, 1, 1, 9, 9)),
    ),
    "a cut frame behind the first": with_chunks(
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 4, 6, 0, 0, 1, 1, 0, 0)),
        chunk(b"fdAT", struct.pack(">I", 2) + b"x"),
        late=True,
        png=with_chunks(
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 4, 6, 0, 0, 1, 1, 0, 0)),
        ),
    ),
    "text cut short at the end": with_chunks(late=True)[:-12] + chunk(b"tEXt", b"Comment\0" + bytes(99))[:50],
}
KEPT_JPEG = {
    "EXIF of a wrong type": with_segments((0xE1, exif((0x8769, 2, 1, b"x\0\0\0")))),
    "EXIF that is none": with_segments((0xE1, b"Exif\0\0nonsense")),
    "empty EXIF": with_segments((0xE1, b"Exif\0\0")),
    "an orientation that is text": with_segments((0xE1, exif((0x0112, 2, 2, b"6\0\0\0")))),
    "Adobe's block, cut": with_segments((0xED, b"Photoshop 3.0\x008BIM\4\4")),
    "an index of pictures that is none": with_segments((0xE2, b"MPF\0nonsense")),
    "a colour profile in pieces that are missing": with_segments((0xE2, b"ICC_PROFILE\0\2\3x")),
    "a colour profile without a number": with_segments((0xE2, b"ICC_PROFILE\0")),
    "an empty JFIF": with_segments((0xE0, b"JFIF")),
    "an empty block of Adobe's": with_segments((0xEE, b"Adobe")),
}


@pytest.mark.parametrize("name", KEPT_PNG)
def test_metadata_of_a_png_don_t_make_it_damaged(name):
    assert numpy.array_equal(numpy.asarray(decode_image(KEPT_PNG[name], 100, smallest=True)), PIXELS)
    assert numpy.array_equal(numpy.asarray(decode_image(KEPT_PNG[name])), PIXELS)


@pytest.mark.parametrize("name", KEPT_JPEG)
def test_metadata_of_a_jpeg_don_t_make_it_damaged(name):
    assert decode_image(KEPT_JPEG[name], 100, smallest=True).mode == "RGB"
    assert decode_image(KEPT_JPEG[name]).tobytes() == Image.open(io.BytesIO(JPEG)).tobytes()


WRONG_TYPE = (0x8769, 2, 1, b"x\0\0\0")  # where the offset of more entries should be
BAD_TEXT = chunk(b"zTXt", b"Comment\0\0" + LONG_TEXT)
TURNED_FILES = {
    "JPEG with a field of a wrong type": with_segments((0xE1, exif(TURNED, WRONG_TYPE))),
    "JPEG with text where a number belongs": with_segments((0xE1, exif((0x0100, 2, 4, b"abc\0"), TURNED))),
    "JPEG with a fraction without a denominator": with_segments((0xE1, exif(TURNED, (0x011A, 5, 1, bytes(4))))),
    "JPEG of little-endian EXIF": with_segments((0xE1, exif((0x0112, 3, 1, b"\6\0\0\0"), WRONG_TYPE, order="<"))),
    "JPEG with Adobe's block, cut": with_segments((0xED, b"Photoshop 3.0\x008BIM\4\4"), (0xE1, exif(TURNED))),
    "PNG with a long text": with_chunks(BAD_TEXT, chunk(b"eXIf", exif(TURNED)[6:])),
    "PNG with a long text and XMP": with_chunks(BAD_TEXT, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "PNG with a long text and compressed XMP": with_chunks(
        BAD_TEXT, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    ),
    "WebP with a field of a wrong type": encoded(kind="WEBP", lossless=True, exif=exif(TURNED, WRONG_TYPE)),
}


@pytest.mark.parametrize("name", TURNED_FILES)
def test_an_orientation_that_can_be_read_is_heeded(name):
    kind = name.split()[0]
    straight = PICTURE if kind != "JPEG" else Image.open(io.BytesIO(JPEG))
    turned = decode_image(TURNED_FILES[name])
    assert turned.size == (6, 4)
    assert turned.tobytes() == straight.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_the_limit_of_pixels_is_the_parameter_s_alone():
    png = encoded(Image.new("1", (9500, 9500)))
    assert decode_image(png, 200_000_000, smallest=True).size == (9500, 9500)
    gif = bytearray(encoded(kind="GIF"))
    gif[6:10] = struct.pack("<HH", 20_000, 20_000)
    wide = with_chunks(png=PNG[:16] + struct.pack(">II", 1_000_000, 1_000) + PNG[24:])
    for data, pixels in ((png, 90_250_000), (bytes(gif), 400_000_000)):
        with pytest.raises(UndecodableImageError, match=f"^more than {pixels - 1} pixels$"):
            decode_image(data, pixels - 1)
    with pytest.raises(UndecodableImageError, match=r"^damaged image$"):  # the header's checksum is wrong
        decode_image(wide, 100)


def test_reasons_are_the_true_ones():
    twelve_bits = JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
    lossless = JPEG.replace(b"\xff\xc0", b"\xff\xc3")
    cases = {
        PNG[:-30]: "truncated image",
        with_chunks(BAD_TEXT)[:-30]: "truncated image",
        JPEG[:-20]: "truncated image",
        with_chunks(BAD_TEXT, png=PNG.replace(b"IDAT", b"IDAX")): "damaged image",
        twelve_bits: "JPEG with 12 bits for a colour, which can't be read here",
        lossless: r"JPEG of a rare coding \(lossless or hierarchical\), which can't be read here",
        with_segments((0xE1, exif(TURNED)), jpeg=twelve_bits): "JPEG with 12 bits",
        JPEG[:2] + b"\xff\xe1\xff\xff" + JPEG[2:]: "(damaged|truncated) image$",  # a block longer than the file
    }
    for data, reason in cases.items():
        with pytest.raises(UndecodableImageError, match=f"^{reason}"):
            decode_image(data, 10_000)


def test_a_bomb_of_text_is_not_unpacked():
    bomb = zlib.compress(bytes(1 << 26), 1)
    for name, content in ((b"zTXt", b"Raw profile type exif\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0")):
        data = with_chunks(chunk(name, content + bomb), chunk(b"iCCP", b"p\0\0" + bomb))
        assert numpy.array_equal(numpy.asarray(decode_image(data, 100)), PIXELS)
        assert without_metadata(data) == PNG


@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG"]))
def test_taking_metadata_out_changes_no_pixel(seed, kind):
    random = numpy.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, random.integers(1, 20, 2), dtype=numpy.uint8))
    image = image.convert(
        random.choice(["L", "RGB", "CMYK"] if kind == "JPEG" else ["1", "L", "LA", "P", "RGB", "RGBA"])
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 50, zip=True)
    options = {"pnginfo": info} if kind == "PNG" else {"comment": b"x", "progressive": bool(seed % 2)}
    data = encoded(image, kind, icc_profile=bytes(99), **options)
    bare = without_metadata(data)
    assert len(bare) < len(data)
    assert without_metadata(bare) == bare
    assert decode_image(bare).tobytes() == decode_image(data).tobytes()
