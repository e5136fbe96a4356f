"""Text is text: whatever a class or a rung is called, figures, tables and pages show exactly that."""

import html
import re
import subprocess
import sys

import numpy
import pandas
import pytest
import yaml
from conftest import PROJECT, as_activated, run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import TypeAdapter, ValidationError

from diffusion_ladder.evaluation.findings import TEXT_COLUMNS, Findings
from diffusion_ladder.figures import canvas
from diffusion_ladder.figures.evaluation import confusion_exhibit, shares_exhibit
from diffusion_ladder.figures.mosaic import MosaicLayout, layout_of
from diffusion_ladder.figures.training import parse_log
from diffusion_ladder.foundation.artifacts import read_table, write_table
from diffusion_ladder.foundation.errors import ParameterError, UserError
from diffusion_ladder.foundation.section import dump_yaml, load_yaml
from diffusion_ladder.params.text import ClassName, Line
from diffusion_ladder.params.whole import validate
from diffusion_ladder.report.rendering import code, plain, prose

NASTY = ["$", "$$", "$10-$20", "US$ & CA$", "1", "01", "1_000", "nan", "inf", "NA", "None", "true", '"', '"a" b', "_x_"]
NASTY += ["*a*", "`a`", "``", "a|b", "<b>x</b>", "</script>", "&lt;", "&amp", "[x](y)", "![x](y)", "\\", "\\$", "a\\"]
NASTY += ["100%", "%s", "{x}", "${x}", "{{ x }}", "a/b", "../x", "~~a~~", "女", "🎉", "é", "é", "عربي", "-", "#", "'"]
PIECES = st.sampled_from([*NASTY, " ", "a", "B", ",", ";", ":", "(", ")"])


def is_name(text):
    try:
        TypeAdapter(ClassName).validate_python(text)
    except ValidationError:
        return False
    return True


NAMES = st.lists(PIECES, min_size=1, max_size=5).map("".join) | st.text(min_size=1, max_size=20)
NAMES = NAMES.filter(is_name)
SETS = st.lists(NAMES, min_size=2, max_size=4, unique=True)


def tables(names):
    confusion = [
        {"requested": a, "judged": b, "share": float(a == b), "share_std": 0.1, "held_out": 0.5}
        for a in names
        for b in names
    ]
    shares = [{"class": name, "share": 0.5, "share_std": 0.1, "held_out": 0.25} for name in names]
    return {"confusion": confusion, "class_shares": shares}


@settings(max_examples=100, deadline=None)
@given(SETS)
def test_tables_give_the_names_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("table") / "x.tsv"
    for rows in tables(names).values():
        write_table(path, rows)
        assert read_table(path, TEXT_COLUMNS) == rows
        types = dict.fromkeys(TEXT_COLUMNS, str)
        table = pandas.read_csv(path, sep="\t", dtype=types, keep_default_na=False)
        for column in TEXT_COLUMNS & {*table.columns}:
            assert [*table[column]] == [row[column] for row in rows]


def markdown_text(source):
    """The visible text of Markdown, by a parser that is not ours."""
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source)
    assert not re.search(r"<(?!/?(p|h2|table|thead|tbody|tr|td|th|code)\b)", rendered), rendered
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", rendered)).split())


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_markdown_shows_the_name_and_nothing_else(name):
    shown = " ".join(name.split())
    for text in (plain(name), code(name)):
        assert markdown_text(f"x {text} y") == f"x {shown} y"
    for cell in (plain(name), code(name, in_table=True)):
        assert markdown_text(f"| a | b |\n|---|---|\n| {cell} | z |\n") == f"a b {shown} z"
    assert html.unescape(str(prose(f"x {plain(name)} y"))) == f"x {shown} y"
    assert str(prose(f"[{plain(name)}](#a)")) == f'<a href="#a">{html.escape(shown, quote=False)}</a>'
    # A code host draws what stands between two dollar signs that no backslash precedes.
    assert not re.search(r"(?<!\\)(\\\\)*\$", plain(name))


def pixels(text, **options):
    figure = canvas.blank(300, 40)
    figure.text(0.1, 0.5, text, **options)
    return numpy.asarray(canvas.rasterise(figure))


@pytest.mark.parametrize("name", [name for name in NASTY if "$" in name])
def test_figures_draw_dollar_signs_as_such(name):
    with canvas.house_style():
        expected = pixels(name, parse_math=False)
        assert (pixels(canvas.plain(name)) == expected).all()
        figure = canvas.blank(300, 40)
        canvas.place_text(figure, 30, 20, name)
        assert (numpy.asarray(canvas.rasterise(figure)) == expected).all()
        assert (expected < 128).any()


@settings(max_examples=12, deadline=None)
@given(SETS)
def test_figures_of_classes_are_drawn_whatever_their_names(names):
    found = tables(names)
    with canvas.house_style():
        for exhibit in (confusion_exhibit, shares_exhibit):
            shown = exhibit(Findings({}, found))
            assert shown.content.startswith(b"\x89PNG")
            assert any(name in shown.alt for name in names)


@pytest.mark.parametrize("count", [62, 300])
def test_figures_of_very_many_classes_have_names_where_there_is_room(count):
    found = tables([f"class {number}" for number in range(count)])
    with canvas.house_style():
        for exhibit in (confusion_exhibit, shares_exhibit):
            assert exhibit(Findings({}, found)).content.startswith(b"\x89PNG")


def test_row_titles_have_the_room_that_they_take():
    with canvas.house_style():
        for name in ("US$ & CA$", "女女女", "WWWWWW", "lllll"):
            width = canvas.text_width(name)
            drawn = numpy.nonzero((pixels(name, parse_math=False) < 200).any(axis=(0, 2)))[0]
            assert 0 <= width - (drawn.max() - drawn.min()) <= 5
            left = layout_of(numpy.zeros((1, 1, 3, 8, 8)), 1, [name], [], None).left
            assert left >= width + MosaicLayout.MARGIN


def test_letters_that_the_font_lacks_are_named_once():
    assert canvas.missing_letters(["female", "é", "$", "→"]) is None
    said = canvas.missing_letters(["女 🎉", "女", "a"])
    assert said.startswith("the figures' font, DejaVu Sans, lacks 女 (CJK UNIFIED IDEOGRAPH-5973), 🎉 (PARTY POPPER):")
    assert "\n" not in said


@pytest.mark.parametrize(
    "text", ["", " ", " a", "a ", "a\nb", "a\tb", "a\u2028b", "\x00", "\ud800", "\u200b", "a" * 61, "\u202emale"]
)
def test_what_is_no_line_of_text_is_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Line).validate_python(text)


@pytest.mark.parametrize(("text", "fine"), [("a_std", False), ("a_judged_b", False), ("a_floor", False), ("std", True)])
def test_a_class_is_no_part_of_another_numbers_name(text, fine):
    assert is_name(text) is fine
    assert TypeAdapter(Line).validate_python(text) == text


@pytest.mark.parametrize("names", [["Ren\u00e9", "Rene\u0301"], ["male", "ma\u200ble"], ["x", "x\ufe0f"]])
def test_two_classes_that_look_the_same_are_refused(names):
    values = load_yaml("params.yaml")
    values["datasets"]["faces"]["preprocess"]["class_names"] = names
    with pytest.raises(ParameterError, match="a name stands twice, or two look the same"):
        validate(values)


@pytest.mark.parametrize("labels", [{1: 0, "male": 1}, {"female": 0, 2: 1}, {1: 0, "1": 1}])
def test_keys_of_two_types_are_refused_before_dvc_sorts_them(labels):
    values = load_yaml("params.yaml")
    values["datasets"]["faces"]["preprocess"]["labels"] = labels
    with pytest.raises(ParameterError, match=r"datasets\.faces\.preprocess\.labels: has the number \d and the text"):
        validate(values)


@pytest.mark.parametrize("name", ["schedulers", "scores", "ideal"])
def test_names_that_make_two_stages_write_to_one_place_are_refused(tmp_path, name):
    values = load_yaml(PROJECT / "params.yaml")
    values["rungs"] = {name if key == "moons" else key: rung for key, rung in values["rungs"].items()}
    del values["rungs"][name]["score"]
    (tmp_path / "params.yaml").write_text(dump_yaml(values))
    graph = (PROJECT / "dvc.yaml").read_text().replace(', moons: "${rungs.moons}"', "")
    (tmp_path / "dvc.yaml").write_text(graph)
    ran = run([sys.executable, str(PROJECT / "stages/check_params.py")], tmp_path, PYTHONPATH=str(PROJECT / "src"))
    assert re.fullmatch(rf"check_params: params\.yaml: two stages would write to reports/.*{name}.*\n", ran.stderr)


@pytest.mark.slow
def test_one_stage_alone_does_not_delete_the_file_that_it_is_to_read(tmp_path):
    """`-s` leaves the stage check_params out, and DVC deletes outputs before the stage that writes them."""
    clone = tmp_path / "clone"
    copied = run([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(clone)], PROJECT)
    assert copied.returncode == 0, copied.stderr
    own = clone / "data/raw/faces/mine.parquet"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"the only copy")
    values = load_yaml(clone / "params.yaml")
    values["datasets"]["faces"]["source"] = "parquet"
    values["datasets"]["faces"]["sources"]["parquet"] = {"path": "data/raw/faces/mine.parquet"}
    (clone / "params.yaml").write_text(dump_yaml(values))
    for command in (["dvc", "repro", "-s", "fetch@faces"], ["dvc", "repro"]):
        ran = run(command, clone)
        assert ran.returncode != 0
        assert "sources.parquet.path: data/raw/faces/mine.parquet lies inside data/raw" in ran.stderr
        assert own.read_bytes() == b"the only copy"
    values["datasets"]["faces"]["sources"]["parquet"] = {"path": "nowhere.parquet"}
    (clone / "params.yaml").write_text(dump_yaml(values))
    ran = run(["dvc", "repro", "-s", "fetch@faces"], clone)  # what can't be fetched replaces nothing
    assert ran.returncode != 0
    assert "nowhere.parquet" in ran.stderr
    assert [path.name for path in (clone / "data/raw").rglob("*")] == ["faces", "mine.parquet"]


def documented_alone():
    """The commands of README and docs that run one stage without those before it."""
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
    return sorted({found for page in pages for found in re.findall(r"dvc repro -s [^`\n]*", page.read_text())})


@pytest.mark.slow
def test_one_stage_alone_runs_in_a_fresh_clone_or_says_what_to_run(tmp_path):
    """A clone holds what Git does: no data and no models, but the constant file that every stage waits for."""
    marker = "data/params_checked.txt"
    assert subprocess.run(["git", "check-ignore", "--quiet", marker], cwd=PROJECT, check=False).returncode == 1
    clone = tmp_path / "clone"
    copied = run([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(clone)], PROJECT)
    assert copied.returncode == 0, copied.stderr
    assert [path.name for path in (clone / "data").iterdir()] == ["params_checked.txt"]
    fetched = run(["dvc", "repro", "-s", "fetch@mnist"], clone)
    assert fetched.returncode == 0, fetched.stderr
    checked = run([sys.executable, "stages/check_params.py"], clone, PYTHONPATH="src")
    assert checked.returncode == 0
    assert (clone / marker).read_bytes() == (PROJECT / marker).read_bytes()  # what Git holds is what the stage writes
    commands = documented_alone()
    assert commands
    for command in commands:
        ran = subprocess.run(
            command.split(), cwd=clone, env=as_activated(), capture_output=True, text=True, check=False
        )
        stage = command.split()[-1]
        assert "Traceback" not in ran.stderr
        assert ran.returncode == 0 or re.search(rf"^{stage}: \S+ is missing: `dvc repro {stage}`", ran.stderr, re.M)
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    assert "fetch@mnist" in lock["stages"]


@pytest.mark.parametrize("text", ["", "\n", "step\tloss\n"])
def test_a_log_without_rows_is_named_in_one_line(text):
    with pytest.raises(UserError, match="the training's log has no rows"):
        parse_log(text)
