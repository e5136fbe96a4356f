"""What an image file says beside its pixels: not needed to show them, so that no fault in it makes them unusable."""

import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
# By the PNG specification (third edition, 5.6), what pixels and their order need; of a chunk whose name begins with a
# small letter, an error may be passed over.
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
PNG_TRANSPARENCY = {0: 2, 2: 6}  # bytes of tRNS by colour type: of grey, and of RGB
PNG_PALETTE = 3  # that colour type
PNG_ORIENTATION = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # a chunk, and keywords of texts
MOST_TEXT = 1 << 20  # unpacked bytes of a text that Pillow reads
# JPEG segments with neither pixels nor their colour model: APP1 to APP13, APP15 and comments.
JPEG_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}
SHORTEST_JPEG_SEGMENTS = {0xE0: 14, 0xEE: 12}  # bytes of JFIF's and Adobe's; shorter ones say nothing
JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
JPEG_SCAN = 0xDA
# Start-of-frame markers: baseline, extended and progressive coding, by Huffman or arithmetic codes; and all others.
JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
ORIENTATION = 0x0112  # tag of EXIF


def without_metadata(data: bytes) -> bytes:
    """A PNG or JPEG file with no more than what its pixels, their colours and their orientation need; others as is.

    Of an animation, that is its first picture.
    """
    if data.startswith(PNG):
        chunks = [chunk for chunk in png_chunks(data) if is_needed(chunk)]
        return PNG + b"".join(chunk for chunk in chunks if chunk[4:8] != b"tRNS" or transparency_fits(chunk, chunks))
    if data.startswith(b"\xff\xd8"):
        return b"".join(jpeg_parts(data))
    return data


def png_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG file: length, name, content and checksum of each, the last perhaps cut short."""
    place = len(PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place:end]
        place = end


def transparency_fits(chunk: bytes, chunks: Sequence[bytes]) -> bool:
    """Whether a chunk tRNS is as long as the colour type of its file asks."""
    colour_type, length = chunks[0][17:18], len(chunk) - 12
    if colour_type == bytes([PNG_PALETTE]):
        colours = sum((len(each) - 12) // 3 for each in chunks if each[4:8] == b"PLTE")
        return 0 < length <= colours
    return bool(colour_type) and length == PNG_TRANSPARENCY.get(colour_type[0])


def is_needed(chunk: bytes) -> bool:
    """Whether a chunk is needed to show the picture; one that needn't be there must be intact."""
    name, content = chunk[4:8], chunk[8:-4]
    if name in PNG_PIXELS and name[:1].isupper():
        return True
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    if name in (b"tEXt", b"zTXt", b"iTXt"):
        return content.startswith(PNG_ORIENTATION) and has_moderate_text(name, content)
    return name in (*PNG_PIXELS, *PNG_ORIENTATION)


def has_moderate_text(name: bytes, content: bytes) -> bool:
    """Whether a text unpacks to no more than Pillow reads."""
    keyword_end = content.find(b"\0") + 1
    packed_from = {b"zTXt": keyword_end + 1, b"iTXt": content.find(b"\0", content.find(b"\0", keyword_end + 2) + 1) + 1}
    if name == b"tEXt" or (name == b"iTXt" and content[keyword_end : keyword_end + 1] == b"\0"):
        return len(content) <= MOST_TEXT
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(content[packed_from[name] :], MOST_TEXT)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def jpeg_parts(data: bytes) -> Iterator[bytes]:
    """A JPEG file's parts in order, without the segments of metadata; what comes after the header is one part."""
    yield data[:2]
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != JPEG_SCAN:
        marker = data[place + 1]
        padded = marker == 0xFF or marker in JPEG_WITHOUT_LENGTH
        end = (
            place + (1 if marker == 0xFF else 2) + (0 if padded else int.from_bytes(data[place + 2 : place + 4], "big"))
        )
        if marker not in JPEG_METADATA and end - place - 4 >= SHORTEST_JPEG_SEGMENTS.get(marker, 0):
            yield data[place:end]
        place = end
    yield data[place:]


def jpeg_exif(data: bytes) -> bytes:
    """The EXIF block of a JPEG file, empty if it has none."""
    place = data.find(b"Exif\0\0")
    if place < 4 or data[place - 4 : place - 2] != b"\xff\xe1":
        return b""
    return data[place : place - 2 + int.from_bytes(data[place - 2 : place], "big")]


def unknown_coding(data: bytes) -> str | None:
    """Why an intact JPEG file can't be read here; None if nothing is known against it."""
    frames = JPEG_FRAMES + JPEG_OTHER_FRAMES
    parts = jpeg_parts(data) if data.startswith(b"\xff\xd8") else iter(())
    frame = next((part for part in parts if len(part) > 4 and part[0] == 0xFF and part[1] in frames), None)
    if frame is None:
        return None
    if frame[1] in JPEG_OTHER_FRAMES:
        return "JPEG of a rare coding (lossless or hierarchical), which can't be read here"
    return None if frame[4] == 8 else f"JPEG with {frame[4]} bits for a colour, which can't be read here"


def upright(image: "Image.Image", exif: bytes = b"") -> "Image.Image":
    """Turn a picture as its EXIF or XMP says; what can't be read there says nothing.

    Args:
        exif: instead of what the image was opened with.
    """
    from PIL import Image

    turns = Image.Transpose
    methods = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    try:
        if exif:
            entries = Image.Exif()
            entries.load(exif)
        else:
            entries = image.getexif()
        method = methods.get(entries.get(ORIENTATION, 1))
    except Exception:  # the parser of EXIF raises whatever it stumbles over
        return image
    return image if method is None else image.transpose(method)
