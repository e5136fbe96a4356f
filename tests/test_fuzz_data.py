"""Whatever bytes come from elsewhere, there are valid arrays or one line that says what is wrong; never a traceback.

DIFFUSION_LADDER_FUZZ=100000 tries that many examples of each, instead of a few.
"""

import gzip
import io
import os
import zipfile
from collections.abc import Callable

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion_ladder.data.digits.archive import extract_members
from diffusion_ladder.data.digits.idx import read_idx
from diffusion_ladder.data.portraits.decoding import UndecodableImageError, decode_image
from diffusion_ladder.data.portraits.local_portraits import adopt
from diffusion_ladder.data.portraits.portrait_table import filter_portraits
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import LabelFilter

fuzz = settings(
    max_examples=int(os.environ.get("DIFFUSION_LADDER_FUZZ", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def encoded(kind, seed=0):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=numpy.uint8)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    options = {} if kind == "GIF" else {"exif": exif, "icc_profile": bytes(40)}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}


@st.composite
def damaged(draw, originals):
    """One of some files with a few bytes changed, parts cut out or doubled, or cut short."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        length = draw(st.sampled_from([1, 1, 2, 4, 8, 50]))
        how = draw(st.sampled_from(["set", "extreme", "cut", "double", "end"]))
        if how == "set":
            data[place : place + length] = draw(st.binary(min_size=1, max_size=length))
        elif how == "extreme":
            data[place : place + length] = draw(st.sampled_from([b"\xff", b"\0", b"\x7f"])) * length
        elif how == "cut":
            del data[place : place + length]
        elif how == "double":
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


def one_line(error):
    text = str(error)
    assert text.isprintable(), text
    assert text.encode("utf-8")


@fuzz
@given(damaged(list(IMAGES.values())) | st.binary(max_size=200))
def test_images(data):
    try:
        small = decode_image(data, 10_000, smallest=True)
    except UndecodableImageError as error:
        one_line(error)
    else:
        whole = decode_image(data, 10_000)  # what the filter lets pass, preprocess can decode
        assert small.mode == whole.mode == "RGB"
        assert 0 < whole.width * whole.height <= 10_000


def idx(array, code=8):
    header = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype({8: "u1", 12: ">i4"}[code]).tobytes()


IDX = [idx(numpy.arange(2 * 28 * 28).reshape(2, 28, 28) % 251), idx(numpy.arange(3)), idx(numpy.ones((2, 8)), 12)]


@fuzz
@given(
    damaged(IDX + [gzip.compress(data, mtime=0) for data in IDX]), st.booleans(), st.sampled_from([(28, 28), (), (8,)])
)
def test_idx_files(tmp_path, data, packed, shape):
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(data)
    try:
        values = read_idx(path, shape)
    except UserError as error:
        one_line(error)
    else:
        assert values.dtype in (torch.uint8, torch.int32)
        assert values.shape[1:] == shape
        assert len(values) > 0


def archive(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("gzip/a.gz", bytes(range(250)))
        file.writestr("gzip/\xe9.txt", b"x")
    return buffer.getvalue()


ARCHIVES = [
    archive(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]


@fuzz
@given(damaged(ARCHIVES))
def test_archives(tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    try:
        extract_members(tmp_path / "x.zip", ["a.gz"], tmp_path / "out")
    except UserError as error:
        one_line(error)
    else:
        assert (tmp_path / "out/a.gz").is_file()


def parquet(table, **options):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


FACES = pyarrow.table(
    {
        "image": [{"bytes": data, "path": f"{kind}.x"} for kind, data in IMAGES.items()],
        "gender": [1, 2, 2, None],
    }
)
NAMED = pyarrow.table({"image": list(IMAGES.values()), "gender": ["1", "2", "x", None]})
PARQUET = [parquet(FACES, compression="NONE"), parquet(FACES, use_dictionary=False), parquet(NAMED, compression="NONE")]
PARQUET += [parquet(NAMED, compression="ZSTD", data_page_version="2.0"), parquet(NAMED, store_schema=False)]
WANTED = LabelFilter(label_column="gender", labels={1: 0, 2: 1}, max_pixels=10_000, max_unusable_share=1.0)


def expect_a_table_or_a_line(work: Callable[[], object], folder):
    try:
        work()
    except UserError as error:
        one_line(error)
        return
    table = pyarrow.parquet.read_table(folder / "filtered/portraits.parquet").to_pydict()
    assert set(table["label"]) == {0, 1}
    assert all(decode_image(data).mode == "RGB" for data in table["image"])


@fuzz
@given(damaged(PARQUET))
def test_parquet_files(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)

    def work():
        adopt([tmp_path / "x.parquet"], tmp_path / "raw", source="parquet", title="x", origin="x")
        filter_portraits([tmp_path / "raw/portraits.parquet"], WANTED, tmp_path / "filtered")

    expect_a_table_or_a_line(work, tmp_path)


LABELS = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 2]), min_size=4, max_size=4),
    st.lists(st.none() | st.floats() | st.sampled_from([1.0, 2.0]), min_size=4, max_size=4),
    st.lists(st.none() | st.text(max_size=5) | st.sampled_from(["1", "2"]), min_size=4, max_size=4),
    st.lists(st.none() | st.booleans(), min_size=4, max_size=4),
    st.lists(st.none() | st.binary(max_size=3), min_size=4, max_size=4),
    st.lists(st.none() | st.decimals(allow_nan=False, places=2, min_value=-9, max_value=9), min_size=4, max_size=4),
    st.lists(st.none() | st.datetimes() | st.dates(), min_size=4, max_size=4),
    st.lists(st.lists(st.integers(1, 2), max_size=2), min_size=4, max_size=4),
)
CELLS = st.none() | st.sampled_from(list(IMAGES.values())) | st.binary(max_size=9)


@fuzz
@given(LABELS, st.lists(CELLS, min_size=4, max_size=4), st.booleans(), st.booleans(), st.integers(1, 5))
def test_columns(tmp_path, labels, images, nested, coded, rows):
    try:
        column = pyarrow.array(labels)
        column = column.dictionary_encode() if coded else column
    except (pyarrow.ArrowException, TypeError, ValueError):  # mixed values, lone surrogates
        return
    cells = [None if data is None else {"bytes": data} for data in images] if nested else images
    image = pyarrow.array(cells, pyarrow.struct({"bytes": pyarrow.binary()}) if nested else pyarrow.binary())
    try:
        table = pyarrow.table({"image": image, "gender": column})
        pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=rows)
    except pyarrow.ArrowException:  # a type that parquet lacks
        return
    work = lambda: filter_portraits([tmp_path / "x.parquet"], WANTED, tmp_path / "filtered")  # noqa: E731
    expect_a_table_or_a_line(work, tmp_path)


@pytest.mark.parametrize("name", ["\0ytes", "a\nb", "\x1b[31m"])
@pytest.mark.parametrize("column", ["image", "gender"])
def test_the_name_of_a_field_that_cannot_be_shown(tmp_path, column, name):
    """Found by the parquet files above: a damaged schema, whose types stand in the complaint."""
    columns = {"image": FACES["image"], "gender": FACES["gender"], column: pyarrow.array([{name: 1}] * 4)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=f"the column {column} must hold") as refused:
        filter_portraits([tmp_path / "x.parquet"], WANTED, tmp_path / "filtered")
    one_line(refused.value)
