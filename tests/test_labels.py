"""Labels that only look like the wanted ones, and columns of every Arrow type."""

import json
from decimal import Decimal

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from test_portraits import picture

from diffusion_ladder.data.portraits.arrow_columns import images_of, plain_label, values_of
from diffusion_ladder.data.portraits.labels import explain_lookalikes, lookalikes, written
from diffusion_ladder.data.portraits.portrait_table import filter_portraits
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import LabelFilter

PICTURE = picture()


def filtered(folder, labels, values, images=None):
    images = pyarrow.array([PICTURE] * len(values)) if images is None else images
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "gender": values}), folder / "raw.parquet")
    settings = LabelFilter(label_column="gender", labels=labels, max_pixels=1_000_000, max_unusable_share=1.0)
    return filter_portraits([folder / "raw.parquet"], settings, folder / "filtered")


NFC, NFD = "Ren\u00e9", "Rene\u0301"
ALIKE = {
    "text for numbers": ({1: 0, 2: 1}, ["1", "2", "2"], "text, and the other a number", {"1": 0, "2": 1}),
    "numbers for text": ({"1": 0, "2": 1}, [1, 2, 2], "a number, and the other text", {1: 0, 2: 1}),
    "folders named 0 and 1": ({0: 0, 1: 1}, ["0", "1"], "text, and", {"0": 0, "1": 1}),
    "text with a fraction": ({1: 0, 2: 1}, ["1.0", "2.0"], "text, and", {"1.0": 0, "2.0": 1}),
    "zeros in front": ({1: 0, 2: 1}, ["01", "02"], "text, and", {"01": 0, "02": 1}),
    "booleans": ({"true": 1, "false": 0}, [True, False], "a number, and", {1: 1, 0: 0}),
    "normalisation": ({NFC: 0, "x": 1}, [NFD, "x"], "different in Unicode normalisation", {NFD: 0, "x": 1}),
    "trailing space": ({"male": 0, "x": 1}, ["male ", "x"], "different in spaces", {"male ": 0, "x": 1}),
    "tab and line break": ({"a b": 0, "x": 1}, ["\ta\nb", "x"], "different in spaces", {"\ta\nb": 0, "x": 1}),
    "capitals": ({"Male": 0, "x": 1}, ["male", "x"], "different in capitals", {"male": 0, "x": 1}),
    "a mark of byte order": ({"male": 0, "x": 1}, ["\ufeffmale", "x"], "can't be seen", {"\ufeffmale": 0, "x": 1}),
    "zero width": ({"male": 0, "x": 1}, ["ma\u200ble", "x"], "can't be seen", {"ma\u200ble": 0, "x": 1}),
    "hard space": ({"a b": 0, "x": 1}, ["a\u00a0b", "x"], "different in spaces", {"a\u00a0b": 0, "x": 1}),
    "wide digits": ({1: 0, 2: 1}, ["\uff11", "\uff12"], "text, and", {"\uff11": 0, "\uff12": 1}),
    "a variation selector": (
        {"\u2764": 0, "x": 1},
        ["\u2764\ufe0f", "x"],
        "can't be seen",
        {"\u2764\ufe0f": 0, "x": 1},
    ),
    "a filler": ({"a": 0, "x": 1}, ["a\u3164", "x"], "can't be seen", {"a\u3164": 0, "x": 1}),
    "the nearest of two": ({"a": 0, "A": 1}, ["a ", "A "], "different in spaces", {"a ": 0, "A ": 1}),
    "two spellings": ({"male": 0, "x": 1}, ["male ", " male", "x"], "spaces", {"male ": 0, " male": 0, "x": 1}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_only_looks_like_a_label_is_shown_with_the_line_to_write_instead(tmp_path, name):
    labels, values, words, expected = ALIKE[name]
    with pytest.raises(UserError) as error:
        filtered(tmp_path, labels, values)
    message = str(error.value)
    assert "\n" not in message
    assert words in message
    line = message.partition("to take them, write ")[2].partition("};")[0] + "}"
    assert line.isprintable()
    assert YAML(typ="safe").load(line) == {"labels": expected}
    assert set(filtered(tmp_path, expected, values).kept.values()) <= {1, 2}  # the advice works


def test_what_looks_latin_and_is_not_is_shown_as_an_escape():
    assert written("m\u0430le") == '"m\\u0430le"'
    assert [written(text) for text in ("Фёдор", "Élise", "女 A")] == ['"Фёдор"', '"Élise"', '"女 A"']


def test_the_two_are_shown_where_they_differ():
    assert explain_lookalikes({NFC: 0, "x": 1}, [NFD, "x"]) == (
        '"Rene\\u0301" in the column and "Ren\\xe9" in labels are not the same: one is different in Unicode'
        ' normalisation; to take them, write labels: {"x": 1, "Rene\\u0301": 0}'
    )
    assert '"\u7537 " in the column and "\u7537" in labels' in explain_lookalikes({"\u7537": 0}, ["\u7537 "])
    assert explain_lookalikes({"male": 0, "female": 1}, ["male", "female", "other", None, 3.5]) is None


def test_a_lookalike_beside_the_right_one_is_told_apart_in_the_counts(tmp_path):
    counts = filtered(tmp_path, {"male": 0, "female": 1}, ["male", "female", "male ", "missing", None])
    assert counts.kept == {0: 1, 1: 1}
    assert counts.dropped == {'gender "male "': 1, 'gender "missing"': 1, "gender missing": 1}
    assert lookalikes({"male": 0, "female": 1}, counts.values) == {"male ": "male"}


@given(st.one_of(st.text(max_size=40), st.integers()))
def test_a_label_is_written_as_yaml_reads_it(value):
    text = written(value)
    assert text.isprintable()
    if not any("\ud800" <= letter <= "\udfff" for letter in str(value)):
        assert YAML(typ="safe").load(f"{{{text}: 0}}") == {value: 0}


def extension(kind, values):
    storage = kind.storage_type if hasattr(kind, "storage_type") else kind
    return pyarrow.ExtensionArray.from_storage(kind, pyarrow.array(values, storage))


class Unknown(pyarrow.ExtensionType):
    """A type of somebody else's."""

    def __init__(self, storage):
        super().__init__(storage, "somebody.else")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialised):
        return cls(storage)


TEXT = {"cat": 0, "dog": 1}
LABELS = {
    "text view": (pyarrow.array(["cat", "dog"], pyarrow.string_view()), TEXT),
    "large text": (pyarrow.array(["cat", "dog"], pyarrow.large_string()), TEXT),
    "dictionary of large text": (pyarrow.array(["cat", "dog"], pyarrow.large_string()).dictionary_encode(), TEXT),
    "dictionary of numbers": (pyarrow.array([5, 7]).dictionary_encode(), {5: 0, 7: 1}),
    "JSON": (extension(pyarrow.json_(), ["cat", "dog"]), TEXT),
    "booleans of a byte": (extension(pyarrow.bool8(), [1, 0]), {1: 0, 0: 1}),
    "opaque": (extension(pyarrow.opaque(pyarrow.int64(), "x", "y"), [5, 7]), {5: 0, 7: 1}),
    "unknown extension": (extension(Unknown(pyarrow.string()), ["cat", "dog"]), TEXT),
    "half floats": (pyarrow.array(numpy.array([1, 2], numpy.float16)), {1: 0, 2: 1}),
    "decimals": (pyarrow.array([Decimal("1.00"), Decimal("2.00")]), {1: 0, 2: 1}),
    "unsigned": (pyarrow.array([1, 2], pyarrow.uint64()), {1: 0, 2: 1}),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_type_are_those_of_the_plain_one(tmp_path, name):
    values, labels = LABELS[name]
    assert filtered(tmp_path, labels, values).kept == {0: 1, 1: 1}


def struct_of(images, paths=None):
    columns = {"bytes": images} | ({} if paths is None else {"path": paths})
    return pyarrow.StructArray.from_arrays(list(columns.values()), names=list(columns))


TWO = [PICTURE, PICTURE]
IMAGES = {
    "view": pyarrow.array(TWO, pyarrow.binary_view()),
    "fixed size": pyarrow.array(TWO, pyarrow.binary(len(PICTURE))),
    "dictionary": pyarrow.array(TWO, pyarrow.large_binary()).dictionary_encode(),
    "extension": extension(Unknown(pyarrow.binary()), TWO),
    "struct of a view": struct_of(
        pyarrow.array(TWO, pyarrow.binary_view()), pyarrow.array(["a", "b"], pyarrow.string_view())
    ),
    "struct of large bytes": struct_of(pyarrow.array(TWO, pyarrow.large_binary())),
    "struct of a dictionary": struct_of(pyarrow.array(TWO).dictionary_encode()),
    "struct of an extension": struct_of(extension(Unknown(pyarrow.large_binary()), TWO)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_every_type_are_those_of_the_plain_one(tmp_path, name):
    counts = filtered(tmp_path, {1: 0, 2: 1}, [1, 2], IMAGES[name])
    assert counts.kept == {0: 1, 1: 1}
    table = pyarrow.parquet.read_table(tmp_path / "filtered/portraits.parquet")
    assert table.column("image").to_pylist() == TWO


def test_missing_values_and_slices_stay_where_they_are():
    runs = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([2, 3], pyarrow.int32()), pyarrow.array(["a", None]))
    assert values_of(runs) == ["a", "a", None]
    assert values_of(pyarrow.array(["a", None, "b", "a"]).dictionary_encode()[1:]) == [None, "b", "a"]
    struct = pyarrow.array([{"bytes": b"a", "path": "p"}, None, {"bytes": None, "path": "q"}])
    expected = [{"bytes": b"a", "path": "p"}, None, {"bytes": None, "path": "q"}]
    assert images_of(struct) == expected
    assert images_of(struct[1:]) == expected[1:]
    assert images_of(extension(Unknown(struct.type), expected)) == expected


def test_text_that_is_no_utf_8_becomes_a_label_with_escapes(tmp_path):
    for kind in (pyarrow.string(), pyarrow.large_string()):
        width = 4 if kind == pyarrow.string() else 8
        offsets = b"".join(n.to_bytes(width, "little") for n in (0, 1, 3))
        values = pyarrow.Array.from_buffers(kind, 2, [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"a\xe9b")])
        assert values_of(values) == ["a", r"\xe9b"]
        assert filtered(tmp_path, {"a": 0, r"\xe9b": 1}, values).kept == {0: 1, 1: 1}


def test_plain_labels():
    given_values = [1.0, 1.5, float("nan"), float("inf"), True, None, "1", Decimal("2"), Decimal("NaN"), Decimal("2.5")]
    expected = [1, 1.5, None, float("inf"), 1, None, "1", 2, None, 2.5]
    assert json.dumps([plain_label(value) for value in given_values]) == json.dumps(expected)
