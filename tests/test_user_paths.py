"""Paths that users give: patterns, `~`, odd names, and whether they meet what stages write."""

import os
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_ladder.data import user_paths
from diffusion_ladder.data.user_paths import collision, matching_files, printable

OUTPUTS = ["data/raw/faces", "data/interim/faces/card.json", "data/interim/faces/filtered", "models/faces"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project in a folder whose name is a pattern, with files beside, in and around its outputs."""
    root = tmp_path / "[work] x"
    for name in (
        "data/raw/faces/a.parquet",
        "models/faces/m",
        "mine/b.parquet",
        "mine/1/c.parquet",
        "mine/1/2/d.parquet",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mine/**/*.parquet", "bcd"),
        ("mine/*/*.parquet", "c"),
        ("**/2/*", "d"),
        ("mine", "b"),
        ("mine/*", "b"),
        ("mine/[a-b].parquet", "b"),
        ("mine/?.parquet", "b"),
        ("nowhere/**", ""),
        ("", ""),
        ("a\0b", ""),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_patterns_are_those_of_a_shell_with_globstar(tree, path, expected, absolute):
    whole = os.path.join(tree, path) if absolute and path else path
    assert sorted(found.stem for found in matching_files(whole, ".parquet")) == sorted(expected)


@pytest.mark.parametrize(
    "name", ["[1].parquet", "a*.parquet", "what?.parquet", "[!x].parquet", "**.parquet", "[.parquet"]
)
def test_what_exists_by_just_that_name_is_no_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for file in (name, "1.parquet", "ab.parquet", "whatx.parquet", "y.parquet"):
        Path(file).touch()
    assert matching_files(name, ".parquet") == [Path(name)]
    Path(f"[d] {name}").mkdir()
    Path(f"[d] {name}/[e].parquet").touch()
    assert matching_files(f"[d] {name}/*.parquet", ".parquet") == [Path(f"[d] {name}/[e].parquet")]


def test_a_home_folder_is_expanded_and_a_folder_called_tilde_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/f.parquet", "home/d/g.parquet", "~/h.parquet"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert matching_files("~/f.parquet", ".parquet") == [tmp_path / "home/f.parquet"]
    assert matching_files("~/**/*.parquet", ".parquet") == [tmp_path / "home/d/g.parquet", tmp_path / "home/f.parquet"]
    assert matching_files("./~/*", ".parquet") == [Path("~/h.parquet")]


def test_links_don_t_make_a_file_count_twice(tree):
    Path("mine/1/again.parquet").symlink_to("c.parquet")
    Path("mine/loop").symlink_to(".")
    assert [path.name for path in matching_files("mine/**/*.parquet", ".parquet")] == [
        "d.parquet",
        "again.parquet",
        "b.parquet",
    ]


def test_a_path_is_printed_on_one_line():
    assert printable("plain/ü.parquet") == "plain/ü.parquet"
    assert printable(os.fsdecode(b"a/\xe9\n\xe2\x80\x8b.png")) == r"a/\xe9\n\u200b.png"


INSIDE = ["data/raw/faces", "data/raw/faces/", "data/raw/faces/a.parquet", "./data//raw/faces/a.parquet"]
INSIDE += [
    "mine/../data/raw/faces/new.parquet",
    "data/raw/faces/*.parquet",
    "data/raw/faces/not/there",
    "models/faces/m",
]
INSIDE += ["data/interim/faces/card.json", "data/raw/faces/**", "nowhere/../data/raw/faces"]
AROUND = ["data", "data/", ".", "", "..", "data/raw", "models/../data", "data/interim/faces"]
MATCHING = ["data/raw/*/a.parquet", "**/*.parquet", "*/*/*/a.parquet", "data/**", "d*/raw/faces/*", "[md]*", "../**/x"]
APART = ["mine", "mine/b.parquet", "mine/**/*.parquet", "*.parquet", "*/b.parquet", "data/raw/other/*.parquet"]
APART += [
    "data/raw/faces2",
    "data/rawfaces",
    "data/interim/faces/other.parquet",
    "../elsewhere",
    "nowhere",
    "data2/raw",
]
APART += ["data/interim/*/x", "models/[!f]aces/*"]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(
    ("paths", "relation"),
    [(INSIDE, "lies inside"), (AROUND, "contains"), (MATCHING, "can match what is in"), (APART, None)],
)
def test_a_path_and_an_output_must_not_contain_each_other(tree, paths, relation, absolute):
    for path in paths:
        complaint = collision([os.path.join(tree, path) if absolute else path], OUTPUTS)
        assert (complaint is None) if relation is None else (relation in (complaint or "nothing")), path
        assert "\n" not in (complaint or "")
        assert complaint == collision([os.path.join(tree, path) if absolute else path], OUTPUTS, tree)


def test_a_complaint_names_the_path_as_given_and_the_output(tree):
    assert collision(["mine", "data/raw/faces/a.parquet"], OUTPUTS) == (
        "data/raw/faces/a.parquet lies inside data/raw/faces, which DVC deletes before the stage that writes it: keep"
        " your files in a folder that is no output and holds none"
    )
    assert collision([], OUTPUTS) is None
    assert collision(["data"], []) is None


@pytest.mark.parametrize(
    ("link", "target", "given_path", "relation"),
    [
        ("mine/link", "../data/raw/faces", "mine/link/a.parquet", "lies inside"),
        ("mine/link", "../data/raw/faces/a.parquet", "mine/link", "lies inside"),
        ("mine/link", "../data/raw/faces/a.parquet", "mine", "leads by a link into"),
        ("mine/link.parquet", "../data/raw/faces/a.parquet", "mine/*.parquet", "leads by a link into"),
        ("mine/link", "../data/raw/faces", "mine/**/*.parquet", "leads by a link into"),
        ("mine/link", "..", "mine/link", "contains"),
        ("mine/link", "../data", "mine/link/raw", "contains"),
        # A link in an output vanishes with it, although the file that it leads to stays.
        ("data/raw/faces/out.parquet", "../../../mine/b.parquet", "data/raw/faces/out.parquet", "leads through"),
        ("data/raw/faces/out", "../../../mine", "data/raw/faces/out/b.parquet", "leads through"),
        # An output that is a link.
        ("models/other", "../mine", "mine/b.parquet", "lies inside models/other"),
        ("models/other", "../mine/1", "mine", "contains models/other"),
        ("mine/link", "1", "mine/link/c.parquet", None),
        ("mine/loop", "loop", "mine/loop/x", None),
    ],
)
def test_links_are_followed(tree, link, target, given_path, relation):
    Path(link).symlink_to(target)
    complaint = collision([given_path], [*OUTPUTS, "models/other"])
    assert (complaint is None) if relation is None else (relation in (complaint or "nothing"))


def test_a_link_from_a_link_in_an_output_counts(tree):
    Path("data/raw/faces/hop").symlink_to("../../../mine")
    Path("mine/first").symlink_to("../data/raw/faces/hop")
    assert "leads through data/raw/faces" in (collision(["mine/first/b.parquet"], OUTPUTS) or "")


def test_capitals_count_as_the_file_system_says(tree):
    same = Path("DATA").exists()
    assert bool(collision(["DATA/raw/faces/a.parquet"], OUTPUTS)) == same
    assert bool(collision(["Data"], OUTPUTS)) == same


def test_another_name_of_the_same_folder_is_recognised(tree, monkeypatch):
    """As on a file system that doesn't tell capitals from small letters, or where a folder is mounted twice."""
    real = os.path.samefile
    same = {str(tree / "MINE"), str(tree / "data")}
    Path("MINE").mkdir()
    monkeypatch.setattr(os.path, "samefile", lambda a, b: {str(a), str(b)} <= same or real(a, b))
    assert collision(["MINE/raw/faces"], ["data"]) is not None


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "c"]), min_size=1, max_size=5).map("/".join)


@given(NAMES, NAMES)
def test_without_links_the_names_decide(path, output):
    """Nothing of it exists: what is left is arithmetic with names."""
    root = Path("/no/such/folder/at/all/anywhere")
    one, other = (Path(os.path.normpath(root / name)) for name in (path, output))
    steps = [".", *accumulate(path.split("/"), "{}/{}".format)]
    through = any(Path(os.path.normpath(root / step)).is_relative_to(other) for step in steps)
    expected = through or other.is_relative_to(one)
    assert bool(collision([path], [output], root)) == expected


def test_in_a_temporary_copy_the_outputs_of_the_project_count(tree, monkeypatch):
    assert user_paths.project_of_copy() is None
    copy = tree / ".dvc/tmp/exps/standard/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert user_paths.project_of_copy() == tree


def test_a_file_that_only_the_working_folder_has_is_named_as_such(tree, monkeypatch):
    copy = tree / ".dvc/tmp/exps/standard/tmpabc"
    (copy / "mine").mkdir(parents=True)
    assert user_paths.where_else("mine/b.parquet") == ""
    monkeypatch.chdir(copy)
    for path in ("mine/b.parquet", "mine/*.parquet", "mine", "mine/**/d.parquet"):
        advice = user_paths.where_else(path)
        assert f"only {tree} has it: name it by its absolute path" in advice
    for path in ("nowhere", str(tree / "mine/b.parquet"), "mine/[x].parquet", "~/nothing"):
        assert user_paths.where_else(path) == ""
