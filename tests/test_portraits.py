"""Portraits: drawn reproducibly, fetched with verification, and filtered by gender."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from diffusion_ladder.data.portraits import dataset as portraits
from diffusion_ladder.data.portraits import drawn_portraits, local_portraits, parallel
from diffusion_ladder.data.portraits.portrait_table import filter_portraits, filtered_batches, looked_at
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import DicebearSource, ImagefolderSource, LabelFilter, ParquetSource
from diffusion_ladder.params.whole import load_parameters

ROOT = Path(__file__).resolve().parents[1]
FACES = load_parameters(ROOT / "params.yaml").datasets["faces"]
KEEP = LabelFilter(label_column="gender", labels={1: 0, 2: 1}, max_pixels=1_000_000, max_unusable_share=1.0)
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
        "import sys; from pathlib import Path; from diffusion_ladder.data.portraits import dataset as portraits;"
        "from diffusion_ladder.params.whole import load_parameters;"
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


def test_a_local_parquet_file_is_copied_and_its_path_kept_to_oneself(drawn, tmp_path):
    card = portraits.fetch("parquet", ParquetSource(path=str(drawn[0]), sha256=None), 0, tmp_path)
    assert (tmp_path / "portraits.parquet").read_bytes() == drawn[0].read_bytes()
    assert card["origin"] == "a local file, portraits.parquet"
    assert str(drawn[0].parent) not in json.dumps(card)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "gender": [1]}, r"needs one column image, but has picture \(binary\), gender \(int64\)"),
        ({"image": ["a.png"], "gender": [1]}, "the column image must hold the bytes of image files, but is string"),
        ({"image": [{"path": "a.png"}], "gender": [1]}, "the column image must hold the bytes"),
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
        portraits.fetch("parquet", ParquetSource(path=str(path), sha256=None), 0, tmp_path / "raw")
    assert one_line(error).startswith(str(path))


@pytest.mark.parametrize(("path", "message"), [(None, "name a parquet file"), ("nowhere.parquet", "there is no file")])
def test_a_missing_local_file_is_named(tmp_path, path, message):
    with pytest.raises(UserError, match=f"sources.parquet.path: {message}") as error:
        portraits.fetch("parquet", ParquetSource(path=path, sha256=None), 0, tmp_path)
    one_line(error)


def picture(colour="red", size=(8, 12), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def noisy_jpeg():
    pixels = numpy.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=numpy.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


def bomb():
    """A PNG file of a few bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PATH_ONLY = "a path without the image's bytes"
NOT_AN_IMAGE = "not a PNG, JPEG, WEBP or GIF image"
BROKEN = {  # name: bytes, and the reason for which the row is dropped
    "null": (None, "no image"),
    "empty": (b"", "empty image"),
    "text": (b"<html>404</html>", NOT_AN_IMAGE),
    "pickle": (pickle.dumps({"image": [1, 2]}), NOT_AN_IMAGE),
    "truncated PNG": (picture(size=(64, 64))[:-40], "truncated image"),
    "truncated JPEG": (picture(size=(64, 64), kind="JPEG")[:-40], "truncated image"),
    "half a JPEG": (noisy_jpeg()[: len(noisy_jpeg()) // 2], "truncated image"),
    "truncated WebP": (picture(size=(64, 64), kind="WEBP")[:-10], "damaged image"),
    "damaged PNG": (picture(size=(64, 64)).replace(b"IDAT", b"IDAX"), "damaged image"),
    "header only": (picture()[:20], "damaged image"),
    "another format": (picture(kind="BMP"), NOT_AN_IMAGE),
    "bomb": (bomb(), "more than 1000000 pixels"),
    "too many pixels": (picture(size=(1_001, 1_000)), "more than 1000000 pixels"),
}


def write_portraits(path, rows):
    images = [
        None if data == "null struct" else {"bytes": data, "path": f"{i}.jpg"} for i, (data, _) in enumerate(rows)
    ]
    image = pyarrow.array(images, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    gender = pyarrow.array([gender for _, gender in rows], pyarrow.int64())
    table = pyarrow.table({"name": [f"n{i}" for i in range(len(rows))], "gender": gender, "image": image})
    pyarrow.parquet.write_table(table, path, row_group_size=3)


def filtered(folder, rows, **changes):
    """What the filter makes of a table; its counts."""
    write_portraits(folder / "raw.parquet", rows)
    return filter_portraits([folder / "raw.parquet"], KEEP.model_copy(update=changes), folder / "filtered")


def dropped_rows(folder):
    header, *lines = (folder / "filtered/dropped.tsv").read_text().splitlines()
    assert header == "file\trow\treason"
    return [(name, int(row), reason) for name, row, reason in (line.split("\t") for line in lines)]


def test_the_filter_keeps_labelled_decodable_rows_and_counts_and_lists_the_others(tmp_path):
    good = [(picture("red"), 2), (picture("blue", kind="JPEG"), 1), (picture("green", kind="WEBP"), 2)]
    rows = [*good, (picture(), 0), (picture(), 3), (picture(), 3), (picture(), None), ("null struct", 1), (None, 7)]
    rows += [(data, 1) for data, _ in BROKEN.values()]
    counts = filtered(tmp_path, rows)
    assert counts.rows_in == len(rows)
    assert counts.kept == {0: 1, 1: 2}
    reasons = ["gender 0", "gender 3", "gender 3", "gender missing", "no image", "gender 7"]
    # write_portraits names a path beside each image: it is never opened
    reasons += [reason if data is not None else PATH_ONLY for data, reason in BROKEN.values()]
    assert counts.dropped == Counter(reasons)
    assert counts.unusable == len(BROKEN) + 1
    assert dropped_rows(tmp_path) == [("raw.parquet", 3 + i, reason) for i, reason in enumerate(reasons)]
    assert counts.unusable_rows[0] == {"file": "raw.parquet", "row": 7, "reason": "no image"}
    table = pyarrow.parquet.read_table(tmp_path / "filtered/portraits.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {"image": "binary", "label": "int64"}
    assert table.column("image").to_pylist() == [data for data, _ in good]
    assert table.column("label").to_pylist() == [1, 0, 1]


@pytest.mark.parametrize("name", BROKEN)
def test_each_sort_of_broken_image_is_dropped_for_its_reason(tmp_path, name):
    data, reason = BROKEN[name]
    table = pyarrow.table({"image": pyarrow.array([data, picture(), picture()], pyarrow.binary()), "gender": [1, 1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "raw.parquet")
    counts = filter_portraits([tmp_path / "raw.parquet"], KEEP, tmp_path / "filtered")
    assert counts.dropped == {reason: 1}


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "secret.png"])
def test_a_path_without_bytes_is_never_opened(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(picture("purple"))
    rows = [{"bytes": None, "path": path}, *({"bytes": picture(), "path": path} for _ in range(2))]
    type_ = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(rows, type_), "gender": [1, 1, 2]})
    (tmp_path / "deep").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "deep/raw.parquet")
    counts = filter_portraits([tmp_path / "deep/raw.parquet"], KEEP, tmp_path / "filtered")
    assert counts.dropped == {PATH_ONLY: 1}
    assert pyarrow.parquet.read_table(tmp_path / "filtered/portraits.parquet")["image"].to_pylist() == [picture()] * 2


def test_the_labels_of_the_tmdb_set_are_those_of_params_yaml(tmp_path):
    """1 is female and class 0, 2 is male and class 1; 0 (not set) and 3 (non-binary) are dropped."""
    assert (FACES.preprocess.label_column, FACES.preprocess.class_names) == ("gender", ["female", "male"])
    colours = {0: "black", 1: "red", 2: "blue", 3: "white"}
    write_portraits(tmp_path / "raw.parquet", [(picture(colours[code]), code) for code in (0, 1, 2, 3, 2, 1, 2)])
    counts = filter_portraits([tmp_path / "raw.parquet"], FACES.preprocess, tmp_path)
    assert (counts.kept, counts.dropped) == ({0: 2, 1: 3}, {"gender 0": 1, "gender 3": 1})
    table = pyarrow.parquet.read_table(tmp_path / "portraits.parquet").to_pydict()
    by_label = {0: picture("red"), 1: picture("blue")}
    assert table["image"] == [by_label[label] for label in table["label"]]


COLUMNS = {
    "floats, as pandas writes numbers with gaps": (pyarrow.array([1.0, 2.0, float("nan"), None]), {1: 0, 2: 1}),
    "strings": (pyarrow.array(["cat", "dog", "Cat", None]), {"cat": 0, "dog": 1}),
    "a dictionary of strings": (pyarrow.array(["cat", "dog", "", None]).dictionary_encode(), {"cat": 0, "dog": 1}),
    "booleans": (pyarrow.array([False, True, None, None]), {0: 0, 1: 1}),
    "small integers": (pyarrow.array([5, 7, 9, None], pyarrow.uint8()), {5: 0, 7: 1}),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("image", [pyarrow.binary(), pyarrow.large_binary()])
def test_any_named_column_can_hold_the_label(tmp_path, name, image):
    values, labels = COLUMNS[name]
    table = pyarrow.table({"image": pyarrow.array([picture()] * 4, image), "sort of animal": values})
    pyarrow.parquet.write_table(table, tmp_path / "raw.parquet")
    settings = KEEP.model_copy(update={"label_column": "sort of animal", "labels": labels})
    counts = filter_portraits([tmp_path / "raw.parquet"], settings, tmp_path)
    assert counts.kept == {0: 1, 1: 1}
    assert sum(counts.dropped.values()) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "sex": [1]}, r"needs one column gender, but has image \(binary\), sex \(int64\)"),
        (
            {"image": [b"x"], "gender ": [1]},
            '"gender " there and "gender" are not the same: one is different in spaces',
        ),
        (
            {"image": [b"x"], "Gender": [1]},
            '"Gender" there and "gender" are not the same: one is different in capitals',
        ),
        (
            {"image": [b"x"], "gender\u200b": [1]},
            r'"gender\\u200b" there and "gender" are not the same: one is different in',
        ),
        ({"image": [b"x"], "gender": [[1]]}, "the column gender must hold numbers or text, but is list"),
        ({"image": [b"x"], "gender": [b"1"]}, "the column gender must hold numbers or text, but is binary"),
    ],
)
def test_a_column_that_can_not_hold_labels_is_named(tmp_path, columns, message):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "raw.parquet")
    with pytest.raises(UserError, match=message) as error:
        filter_portraits([tmp_path / "raw.parquet"], KEEP, tmp_path / "filtered")
    one_line(error)


def test_too_many_unusable_images_stop_with_the_counts(tmp_path):
    rows = [(picture(), 1), (picture(), 2), (picture(), 2), (b"x", 1), (b"", 2), (b"", 1), (b"", 0)]
    assert filtered(tmp_path, rows, max_unusable_share=0.5).unusable == 3  # of 6 that have a label
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError) as error:
        filtered(tmp_path / "again", rows, max_unusable_share=0.49)
    assert one_line(error) == (
        "3 of 6 labelled rows have an image that can't be used, a larger share than preprocess.max_unusable_share"
        f" = 0.49: empty image (2 rows), {NOT_AN_IMAGE} (1 rows); the first is row 3 of raw.parquet (3.jpg)"
    )
    assert not list((tmp_path / "again/filtered").iterdir())


def test_the_number_of_threads_changes_no_byte(tmp_path, monkeypatch):
    random = numpy.random.default_rng(3)
    rows = [(picture(tuple(random.integers(0, 256, 3).tolist()), size=(30, 40)), i % 4) for i in range(150)]
    rows[::7] = [(b"broken", 1)] * len(rows[::7])
    results = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(parallel, "available_cores", lambda cores=cores: cores)
        (tmp_path / str(cores)).mkdir()
        filtered(tmp_path / str(cores), rows)
        folder = tmp_path / str(cores) / "filtered"
        results.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert results[0] == results[1] == results[2]
    assert set(results[0]) == {"portraits.parquet", "dropped.tsv"}


@pytest.mark.parametrize("group_rows", [500, 100_000])
def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path, group_rows):
    random = numpy.random.default_rng(0)
    images = [random.bytes(5000) for _ in range(16_000)]  # 80 MB
    zeros = [0] * len(images)
    table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "gender": zeros, "label": zeros})
    pyarrow.parquet.write_table(table, tmp_path / "large.parquet", row_group_size=group_rows, compression="NONE")
    del table, images
    before, held = pyarrow.total_allocated_bytes(), 0
    for count, _ in enumerate(looked_at(tmp_path / "large.parquet", KEEP)):
        held = max(held, pyarrow.total_allocated_bytes() - before) if count % 50 == 0 else held
    for _ in filtered_batches(tmp_path / "large.parquet"):
        held = max(held, pyarrow.total_allocated_bytes() - before)
    assert 0 < held < 25_000_000


def test_several_shards_follow_each_other(tmp_path):
    for name, codes in (("b", [1, 0]), ("a", [2, 2, 5])):
        write_portraits(tmp_path / f"{name}.parquet", [(picture(), code) for code in codes])
    card = portraits.fetch("parquet", ParquetSource(path=str(tmp_path), sha256=None), 0, tmp_path / "raw")
    assert card["rows"] == 5
    names = [file["name"] for file in card["files"]]
    assert names == ["portraits-00000.parquet", "portraits-00001.parquet"]
    assert (tmp_path / "raw" / names[0]).read_bytes() == (tmp_path / "a.parquet").read_bytes()  # by name
    filter_portraits([tmp_path / "raw" / name for name in names], KEEP, tmp_path / "filtered")
    assert dropped_rows(tmp_path) == [(names[0], 2, "gender 5"), (names[1], 1, "gender 0")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.parquet", "a"),
        ("?.parquet", "ab"),
        (["b.parquet", "a.parquet"], "ba"),
        (["[c]/x.parquet"], "x"),
        ("[c]", "x"),
    ],
)
def test_local_files_are_named_one_by_one_by_pattern_or_by_folder(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    Path("[c]").mkdir()
    for name in ("a.parquet", "b.parquet", "[c]/x.parquet", "[c]/notes.txt"):
        Path(name).touch()
    assert "".join(shard.stem for shard in local_portraits.find_shards(path)) == expected


def test_a_pattern_says_how_many_files_and_rows_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, codes in (("d/b", [1]), ("d/1/a", [2, 2]), ("d/1/2/c", [1, 2, 1])):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_portraits(f"{name}.parquet", [(picture(), code) for code in codes])
    card = portraits.fetch("parquet", ParquetSource(path="d/**/*.parquet"), 0, tmp_path / "raw")
    assert card["rows"] == 6
    found = "d/1/2/c.parquet (3), d/1/a.parquet (2), d/b.parquet (1)"
    assert f"3 files, 6 rows: {found}\n" in capsys.readouterr().out
    assert local_portraits.list_shards([Path(str(i)) for i in range(99)], range(99)).endswith("6 (6), ..., 98 (98)")
    assert portraits.fetch("parquet", ParquetSource(path="d"), 0, tmp_path / "raw")["rows"] == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "d: 2 more in folders below it; to take these, too: d/**/*.parquet",
        "1 file, 1 row: d/b.parquet (1)",
    ]


@pytest.mark.parametrize("paths", [["d", "d/b.parquet"], ["d/*", "d/*"], ["d/b.parquet", "link.parquet"]])
def test_a_file_that_is_named_twice_is_refused(tmp_path, monkeypatch, paths):
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    Path("d/b.parquet").touch()
    Path("link.parquet").symlink_to("d/b.parquet")
    with pytest.raises(UserError, match=r"names \S+ once more: name each file once"):
        local_portraits.find_shards(paths)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("d", r"no file \*.parquet in the folder d; those in folders below it: d/\*\*/\*.parquet"),
        ("d/[xy].parquet", r"there is no file d/\[xy\].parquet, by that name or as a pattern"),
        ("d/*", r"there is no file d/\*, by that name or as a pattern"),
        ("~/f.parquet", "there is no file /nowhere/f.parquet"),
        ("x\0y", r"there is no file x\\x00y"),
    ],
)
def test_a_path_without_files_is_explained(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/nowhere")
    (tmp_path / "d/deeper").mkdir(parents=True)
    with pytest.raises(UserError, match=message) as error:
        local_portraits.find_shards(path)
    one_line(error)


def test_local_files_may_have_any_name(tmp_path, monkeypatch, capsys):
    """Names that are no UTF-8, that look like addresses, or that hold what a terminal would obey."""
    monkeypatch.chdir(tmp_path)
    names = [b"\xe9.parquet", b"a::b.parquet", b"file:c.parquet", b"line\nbreak.parquet", "ü.parquet".encode()]
    Path("mine").mkdir()
    for name in names:
        write_portraits("plain.parquet", [(picture(), 1)])
        Path("plain.parquet").rename(Path("mine") / os.fsdecode(name))
    for path in ("mine", *(f"mine/{os.fsdecode(name)}" for name in names)):
        card = portraits.fetch(
            "parquet", ParquetSource(path="mine").model_copy(update={"path": path}), 0, tmp_path / "raw"
        )
        assert card["rows"] == (5 if path == "mine" else 1)
        json.dumps(card, ensure_ascii=False).encode("utf-8")
        out = capsys.readouterr().out
        assert out.encode("utf-8").count(b"\n") == 2
    os.truncate(b"mine/\xe9.parquet", 20)
    with pytest.raises(UserError, match=r"^mine/\\xe9.parquet: can't be read as parquet"):
        portraits.fetch("parquet", ParquetSource(path="mine/*"), 0, tmp_path / "raw")


def test_a_file_that_only_the_working_folder_has_is_named_as_such_in_dvc_s_copy(tmp_path, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/standard/tmp1"
    copy.mkdir(parents=True)
    (tmp_path / "mine/cat").mkdir(parents=True)
    write_portraits(tmp_path / "mine/a.parquet", [(picture(), 1)])
    monkeypatch.chdir(copy)
    for path in ("mine/a.parquet", "mine/*.parquet"):
        with pytest.raises(UserError, match=f"DVC's temporary copy .* only {tmp_path} has it: name it by its absolute"):
            local_portraits.find_shards(path)
    with pytest.raises(UserError, match=f"there is no folder mine; .* only {tmp_path} has it"):
        local_portraits.check_folder("mine")
    with pytest.raises(UserError, match=r"there is no file other.parquet$"):
        local_portraits.find_shards("other.parquet")


def test_the_content_of_local_files_can_be_pinned(drawn, tmp_path, capsys):
    pin = hashlib.sha256(drawn[0].read_bytes()).hexdigest()
    portraits.fetch("parquet", ParquetSource(path=str(drawn[0]), sha256=None), 0, tmp_path)
    assert pin in capsys.readouterr().out
    portraits.fetch("parquet", ParquetSource(path=str(drawn[0]), sha256=pin), 0, tmp_path)
    with pytest.raises(UserError, match=f"sources.parquet.sha256: expected {'0' * 64}, but the content has {pin}"):
        portraits.fetch("parquet", ParquetSource(path=str(drawn[0]), sha256="0" * 64), 0, tmp_path)


@pytest.fixture
def animals(tmp_path):
    """A folder of three classes, with a hidden file, a note and a picture outside of all classes."""
    root = tmp_path / "animals"
    for name, colour in (("cat/1.png", "red"), ("dog/deeper/2.jpg", "blue"), ("cow/3.webp", "green"), ("4.png", "red")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(colour, kind={"jpg": "JPEG"}.get(path.suffix[1:], path.suffix[1:].upper())))
    (root / "cat/notes.txt").write_text("not an image")
    (root / "cat/.hidden").write_text("left out")
    return root


def test_a_folder_of_images_for_each_class_becomes_a_table(animals, tmp_path):
    card = portraits.fetch("imagefolder", ImagefolderSource(path=str(animals), sha256=None), 0, tmp_path / "raw")
    assert (card["rows"], card["title"], card["synthetic"], card["licence"]) == (5, "animals", False, "not stated")
    assert str(tmp_path) not in json.dumps(card)
    rows = pyarrow.parquet.read_table(tmp_path / "raw/portraits.parquet").to_pylist()
    packed = [(row["image"]["path"], row["folder"]) for row in rows]
    assert packed == [
        ("4.png", None),
        ("cat/1.png", "cat"),
        ("cat/notes.txt", "cat"),
        ("cow/3.webp", "cow"),
        ("dog/deeper/2.jpg", "dog"),
    ]
    assert all(row["image"]["bytes"] == (animals / row["image"]["path"]).read_bytes() for row in rows)
    settings = KEEP.model_copy(update={"label_column": "folder", "labels": {"cat": 0, "dog": 1, "cow": 2}})
    counts = filter_portraits([tmp_path / "raw/portraits.parquet"], settings, tmp_path / "filtered")
    assert (counts.kept, counts.dropped) == ({0: 1, 1: 1, 2: 1}, {"folder missing": 1, NOT_AN_IMAGE: 1})
    assert counts.unusable_rows[0]["path"] == "cat/notes.txt"
    with pytest.raises(UserError, match=r"the first is row 2 of portraits\.parquet \(cat/notes\.txt\)$"):
        filter_portraits(
            [tmp_path / "raw/portraits.parquet"],
            settings.model_copy(update={"max_unusable_share": 0.1}),
            tmp_path / "f",
        )


def test_names_in_a_folder_of_images_may_be_no_utf_8(animals, tmp_path):
    for name in (b"cat/\xe9.png", b"\xe9t\xe9/1.png", b"cat/\xff\xfe/x.png"):
        path = animals / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture())
    renamed = animals.rename(animals.with_name(os.fsdecode(b"anim\xe4ls")))
    link = tmp_path / "link"
    link.symlink_to(renamed)
    card = portraits.fetch("imagefolder", ImagefolderSource(path=str(link)), 0, tmp_path / "raw")
    assert (card["rows"], card["title"]) == (8, r"anim\xe4ls")
    rows = pyarrow.parquet.read_table(tmp_path / "raw/portraits.parquet").to_pylist()
    packed = {row["image"]["path"]: row["folder"] for row in rows}
    assert (
        packed.items()
        >= {r"cat/\xe9.png": "cat", r"\xe9t\xe9/1.png": r"\xe9t\xe9", r"cat/\xff\xfe/x.png": "cat"}.items()
    )
    (renamed / os.fsdecode(b"cat/\xe9")).symlink_to("1.png")
    with pytest.raises(UserError, match=r"link/cat/\\xe9 is a symbolic link"):
        portraits.fetch("imagefolder", ImagefolderSource(path=str(link)), 0, tmp_path / "raw")


@pytest.mark.parametrize("target", ["/etc/passwd", "../cat/1.png", "/etc"])
def test_a_symbolic_link_in_a_folder_of_images_is_refused(animals, tmp_path, target):
    (animals / "dog/link.png").symlink_to(target)
    with pytest.raises(UserError, match=r"dog/link.png is a symbolic link") as error:
        portraits.fetch("imagefolder", ImagefolderSource(path=str(animals), sha256=None), 0, tmp_path / "raw")
    one_line(error)
    assert not list((tmp_path / "raw").glob("*"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "name a folder"),
        ("nowhere", "there is no folder nowhere"),
        ("animals/cat", "animals/cat holds files, but no folder of them for each class: name the folder above it"),
    ],
)
@pytest.mark.usefixtures("animals")
def test_a_missing_folder_of_images_is_named(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"sources.imagefolder.path: {message}"):
        portraits.fetch("imagefolder", ImagefolderSource(path=path, sha256=None), 0, tmp_path)


def test_a_class_without_rows_stops_and_says_what_was_found(tmp_path):
    with pytest.raises(UserError) as error:
        filtered(tmp_path, [(picture(), 1), (picture(), 1), (picture(), 0), (None, 2)])
    message = one_line(error)
    assert "no usable row with gender 2 for class 1" in message
    assert "the column gender holds 0 (1 rows), 1 (2 rows), 2 (1 rows)" in message
    assert message.endswith("1 of their images can't be used")
    assert not list((tmp_path / "filtered").iterdir())


def test_a_table_without_rows_stops(tmp_path):
    with pytest.raises(UserError, match="the column gender holds no rows"):
        filtered(tmp_path, [])


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "raw.parquet"
    write_portraits(path, [(picture(size=(64, 64)), 1), (picture(), 2)])
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196  # the first column's pages; the footer stays whole
    path.write_bytes(data)
    with pytest.raises(UserError, match="can't be read as parquet") as error:
        filter_portraits([path], KEEP, tmp_path / "filtered")
    one_line(error)
