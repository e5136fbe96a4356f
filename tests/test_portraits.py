"""Portraits: drawn reproducibly, fetched with verification, and filtered by gender."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import errors
from PIL import Image

from diffusion_ladder.data import drawn_portraits, portraits
from diffusion_ladder.data.portrait_table import UNDECODABLE, filter_portraits
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import DicebearSource, HubSource, ParquetSource, load_parameters

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = load_parameters(ROOT / "params.yaml").datasets["faces"].sources.dicebear
FEW = SETTINGS.model_copy(update={"count": 12})
LABELS = {1: 0, 2: 1}
TMDB_COLUMNS = {
    "adult": "bool",
    "also_known_as": "string",
    "biography": "string",
    "birthday": "string",
    "deathday": "string",
    "gender": "int64",
    "homepage": "string",
    "id": "int64",
    "imdb_id": "string",
    "known_for_department": "string",
    "name": "string",
    "place_of_birth": "string",
    "popularity": "double",
    "profile_path": "string",
    "image": "struct<bytes: binary, path: string>",
}


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    card = portraits.fetch("dicebear", FEW, 0, folder)
    return folder / "portraits.parquet", card


def test_drawn_portraits_have_the_columns_of_the_tmdb_set(drawn):
    path, card = drawn
    table = pyarrow.parquet.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == TMDB_COLUMNS
    assert table.schema.names == list(TMDB_COLUMNS)
    assert len(table) == card["rows"] == 12
    assert table.column("name").to_pylist() == [f"Portrait {i:05d}" for i in range(1, 13)]
    assert set(table.column("gender").to_pylist()) <= {0, 1, 2, 3}


def test_the_library_datasets_would_show_the_column_as_images(drawn):
    features = json.loads(pyarrow.parquet.read_schema(drawn[0]).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["gender"] == {"dtype": "int64", "_type": "Value"}


def test_drawn_images_are_opaque_rgb_png(drawn):
    for row in pyarrow.parquet.read_table(drawn[0]).column("image").to_pylist():
        image = Image.open(io.BytesIO(row["bytes"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
        assert image.getpixel((0, 0)) == (0xC9, 0xDF, 0xF2)  # backgroundColor
        assert len(set(image.get_flattened_data())) > 50


def test_the_card_states_the_style_s_own_licence(drawn, tmp_path):
    _, card = drawn
    assert (card["licence"], card["creator"]) == ("CC BY 4.0", "Johan Melin")
    assert card["origin"] == "https://www.figma.com/community/file/1589627891082866389"
    assert "ToonHead" in card["licence_note"]
    assert card["synthetic"] is True
    assert drawn_portraits.style_facts("lorelei")["licence"] == "CC0 1.0"


def test_two_fresh_processes_write_the_same_bytes(drawn, tmp_path):
    code = (
        "import sys; from pathlib import Path; from diffusion_ladder.data import portraits;"
        "from diffusion_ladder.params import load_parameters;"
        f"settings = load_parameters({str(ROOT / 'params.yaml')!r}).datasets['faces'].sources.dicebear;"
        "portraits.fetch('dicebear', settings.model_copy(update={'count': 12}), 0, Path(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / hash_seed)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stderr=subprocess.DEVNULL,
        )
        for hash_seed in ("1", "2")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    expected = drawn[0].read_bytes()
    assert all((tmp_path / seed / "portraits.parquet").read_bytes() == expected for seed in ("1", "2"))


def test_a_pool_of_processes_draws_the_same_pictures(monkeypatch):
    plan = drawn_portraits.plan_portraits(FEW, 0)
    alone = list(drawn_portraits.draw_portraits(plan))
    monkeypatch.setattr(drawn_portraits, "POOL_FROM", 1)
    assert list(drawn_portraits.draw_portraits(plan)) == alone


def test_a_larger_count_adds_portraits_and_changes_none():
    fewer = drawn_portraits.plan_portraits(FEW, 5)
    more = drawn_portraits.plan_portraits(FEW.model_copy(update={"count": 20}), 5)
    assert more[:12] == fewer
    assert drawn_portraits.plan_portraits(FEW, 6) != fewer


def test_genders_follow_their_weights_and_choose_the_options():
    weights = {0: 1.0, 1: 4.0, 2: 4.0, 3: 1.0}
    settings = SETTINGS.model_copy(update={"count": 1000, "gender_weights": weights})
    plan = drawn_portraits.plan_portraits(settings, 0)
    counts = numpy.bincount([portrait.gender for portrait in plan])
    numpy.testing.assert_allclose(counts, [100, 400, 400, 100], atol=50)  # three deviations and more
    beards = {code: {p.options["beardProbability"] for p in plan if p.gender == code} for code in range(4)}
    female, male = (getattr(SETTINGS.options, name)["beardProbability"] for name in ("female", "male"))
    assert beards == {0: {female, male}, 1: {female}, 2: {male}, 3: {female, male}}


def test_the_two_genders_can_be_told_apart_by_looking():
    plan = drawn_portraits.plan_portraits(SETTINGS.model_copy(update={"count": 160}), 1)
    plan = [portrait for portrait in plan if portrait.gender in LABELS]
    pictures = [Image.open(io.BytesIO(drawn_portraits.draw(portrait))).reduce(4) for portrait in plan]
    x = numpy.array([numpy.asarray(picture, dtype=float).ravel() for picture in pictures])
    y = numpy.array([portrait.gender for portrait in plan])
    learnt = numpy.arange(len(y)) % 2 == 0
    centres = {code: x[learnt & (y == code)].mean(axis=0) for code in LABELS}
    nearest = [min(LABELS, key=lambda code: numpy.linalg.norm(row - centres[code])) for row in x[~learnt]]
    assert (nearest == y[~learnt]).mean() > 0.8  # a blurred picture and the nearest mean suffice


@pytest.mark.parametrize(
    ("style", "section", "options", "message"),
    [
        ("toon-hed", "common", {}, "sources.dicebear.style: dicebear-styles has no 'toon-hed'; similar: toon-head"),
        (
            "toon-head",
            "male",
            {"bearVariant": "chin"},
            "options.male.bearVariant: the style toon-head has no such option",
        ),
        (
            "toon-head",
            "male",
            {"beardVariant": {"goatee": 1}},
            "options.male.beardVariant: .* has no goatee; it has chin",
        ),
        ("toon-head", "female", {"scale": 11}, "options.female: DiceBear refuses .*scale"),
        ("toon-head", "common", {"seed": "x"}, "options.common.seed: the style toon-head has no such option"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, style, section, options, message):
    values = SETTINGS.model_dump() | {"style": style}
    values["options"][section] = options
    with pytest.raises(UserError, match=message) as error:
        portraits.fetch("dicebear", DicebearSource.model_validate(values), 0, tmp_path)
    one_line(error)
    assert not list(tmp_path.iterdir())


def hub_settings(path, **changes):
    data = path.read_bytes()
    values = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "repository": "someone/portraits"}
    return HubSource(**({"revision": "main", "file": "data/train.parquet"} | values | changes))


def test_a_hub_file_is_verified_and_kept_as_it_is(drawn, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(drawn[0]))
    card = portraits.fetch("hub", hub_settings(drawn[0]), 0, tmp_path)
    assert asked == [(("someone/portraits", "data/train.parquet"), {"revision": "main", "repo_type": "dataset"})]
    assert (tmp_path / "portraits.parquet").read_bytes() == drawn[0].read_bytes()
    assert (card["rows"], card["licence"], card["synthetic"]) == (12, "not stated", False)
    for change, message in (
        ({"sha256": "0" * 64}, "has SHA-256"),
        ({"size": 5}, "has .* bytes, but sources.hub.size is 5"),
    ):
        with pytest.raises(UserError, match=message) as error:
            portraits.fetch("hub", hub_settings(drawn[0], **change), 0, tmp_path / "other")
        one_line(error)
    assert not (tmp_path / "other").exists()


def hub_error(kind):
    return kind("two\nlines", response=SimpleNamespace(headers={}, request=None, status_code=404))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: errors.LocalEntryNotFoundError("no\nnetwork"), "the hub can't be reached"),
        (lambda: hub_error(errors.RepositoryNotFoundError), "there is no such data set, or it is private"),
        (lambda: hub_error(errors.GatedRepoError), "access is restricted"),
        (lambda: hub_error(errors.RevisionNotFoundError), "revision main: there is no such revision"),
        (lambda: hub_error(errors.RemoteEntryNotFoundError), "there is no such file"),
        (lambda: hub_error(errors.HfHubHTTPError), "two lines"),
        (lambda: OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_a_failing_download_is_explained_in_one_line(drawn, tmp_path, monkeypatch, error, message):
    def fail(*arguments, **options):
        raise error()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match=message) as caught:
        portraits.fetch("hub", hub_settings(drawn[0]), 0, tmp_path)
    assert "datasets.faces.source to dicebear" in one_line(caught)


def test_a_local_parquet_file_is_copied_and_its_path_kept_to_oneself(drawn, tmp_path):
    card = portraits.fetch("parquet", ParquetSource(path=str(drawn[0])), 0, tmp_path)
    assert (tmp_path / "portraits.parquet").read_bytes() == drawn[0].read_bytes()
    assert card["origin"] == "a local file, portraits.parquet"
    assert str(drawn[0].parent) not in json.dumps(card)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "gender": [1]}, r"needs one column image, but has picture \(binary\), gender \(int64\)"),
        ({"image": [b"x"], "sex": [1]}, "needs one column gender"),
        ({"image": ["a.png"], "gender": [1]}, "the column image must hold the bytes of image files, but is string"),
        ({"image": [{"path": "a.png"}], "gender": [1]}, "the column image must hold the bytes"),
        ({"image": [b"x"], "gender": ["female"]}, "the column gender must hold numbers, but is string"),
        (None, "can't be read as parquet"),
    ],
)
def test_other_tables_are_refused(tmp_path, columns, message):
    path = tmp_path / "mine.parquet"
    if columns is None:
        path.write_bytes(b"PAR1 but not really")
    else:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(UserError, match=message) as error:
        portraits.fetch("parquet", ParquetSource(path=str(path)), 0, tmp_path / "raw")
    assert one_line(error).startswith(str(path))


@pytest.mark.parametrize(("path", "message"), [(None, "name a parquet file"), ("nowhere.parquet", "there is no file")])
def test_a_missing_local_file_is_named(tmp_path, path, message):
    with pytest.raises(UserError, match=f"datasets.faces.sources.parquet.path: {message}") as error:
        portraits.fetch("parquet", ParquetSource(path=path), 0, tmp_path)
    one_line(error)


def picture(colour="red", size=(8, 12), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def bomb():
    """A PNG file of a few bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "null": None,
    "empty": b"",
    "text": b"<html>404</html>",
    "truncated PNG": picture(size=(64, 64))[:-40],
    "truncated JPEG": picture(size=(64, 64), kind="JPEG")[:-40],
    "header only": picture()[:20],
    "another format": picture(kind="GIF"),
    "too many pixels": bomb(),
    "just too many pixels": picture(size=(8_001, 5_000)),
}


def write_portraits(path, rows):
    images = [
        None if data == "null struct" else {"bytes": data, "path": f"{i}.jpg"} for i, (data, _) in enumerate(rows)
    ]
    image = pyarrow.array(images, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    gender = pyarrow.array([gender for _, gender in rows], pyarrow.int64())
    table = pyarrow.table({"name": [f"n{i}" for i in range(len(rows))], "gender": gender, "image": image})
    pyarrow.parquet.write_table(table, path, row_group_size=3)


def test_the_filter_keeps_labelled_decodable_rows_and_counts_the_others(tmp_path):
    good = [(picture("red"), 2), (picture("blue", kind="JPEG"), 1), (picture("green", kind="WEBP"), 2)]
    rows = [*good, (picture(), 0), (picture(), 3), (picture(), 3), (picture(), None), ("null struct", 1), (None, 7)]
    rows += [(data, 1) for data in BROKEN.values()]
    write_portraits(tmp_path / "raw.parquet", rows)
    counts = filter_portraits(tmp_path / "raw.parquet", LABELS, tmp_path / "filtered.parquet")
    assert counts.rows_in == len(rows)
    assert counts.kept == {0: 1, 1: 2}
    expected = {"gender 0": 1, "gender 3": 2, "gender missing": 1, "gender 7": 1, UNDECODABLE: len(BROKEN) + 1}
    assert counts.dropped == expected
    table = pyarrow.parquet.read_table(tmp_path / "filtered.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {"image": "binary", "label": "int64"}
    assert table.column("image").to_pylist() == [data for data, _ in good]
    assert table.column("label").to_pylist() == [1, 0, 1]


@pytest.mark.parametrize("name", BROKEN)
def test_each_sort_of_broken_image_is_dropped(tmp_path, name):
    write_portraits(tmp_path / "raw.parquet", [(BROKEN[name], 1), (picture(), 1), (picture(), 2)])
    counts = filter_portraits(tmp_path / "raw.parquet", LABELS, tmp_path / "filtered.parquet")
    assert counts.dropped == {UNDECODABLE: 1}


def test_gender_as_floats_and_images_as_plain_bytes_are_understood(tmp_path):
    table = pyarrow.table({"image": [picture(), picture("blue"), picture()], "gender": [1.0, 2.0, float("nan")]})
    pyarrow.parquet.write_table(table, tmp_path / "raw.parquet")
    counts = filter_portraits(tmp_path / "raw.parquet", LABELS, tmp_path / "filtered.parquet")
    assert (counts.kept, counts.dropped) == ({0: 1, 1: 1}, {"gender missing": 1})


def test_a_class_without_rows_stops_and_says_what_was_found(tmp_path):
    write_portraits(tmp_path / "raw.parquet", [(picture(), 1), (picture(), 1), (picture(), 0), (None, 2)])
    with pytest.raises(UserError) as error:
        filter_portraits(tmp_path / "raw.parquet", LABELS, tmp_path / "filtered.parquet")
    message = one_line(error)
    assert "no usable row with gender 2 for class 1" in message
    assert "the column gender holds 0 (1 rows), 1 (2 rows), 2 (1 rows)" in message
    assert "columns: name, gender, image" in message
    assert [path.name for path in tmp_path.iterdir()] == ["raw.parquet"]


def test_a_table_without_rows_stops(tmp_path):
    write_portraits(tmp_path / "raw.parquet", [])
    with pytest.raises(UserError, match="the column gender holds no rows"):
        filter_portraits(tmp_path / "raw.parquet", LABELS, tmp_path / "filtered.parquet")


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "raw.parquet"
    write_portraits(path, [(picture(size=(64, 64)), 1), (picture(), 2)])
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196  # the first column's pages; the footer stays whole
    path.write_bytes(data)
    with pytest.raises(UserError, match="can't be read as parquet") as error:
        filter_portraits(path, LABELS, tmp_path / "filtered.parquet")
    one_line(error)
