"""Presets as options: they survive a shell, Hydra's grammar, and a round trip through params.yaml."""

import shlex
import subprocess

import pytest
import yaml
from conftest import PROJECT
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import dump_yaml, load_yaml
from diffusion_ladder.overlays import WORDS, flatten, in_hydra, laid_over
from diffusion_ladder.presets import merged_parameters, overrides, project_files

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
LEAVES = st.one_of(st.integers(-999, 999), st.booleans(), st.floats(-9, 9, width=16), TEXTS)
KEYS = st.from_regex(r"[a-zA-Z_][a-z0-9-]{0,3}( [b-m][a-z]{0,3})?", fullmatch=True).filter(
    lambda key: key.lower() not in WORDS
)
VALUES = st.one_of(
    LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(st.integers(0, 9) | KEYS, LEAVES, min_size=1, max_size=3)
)


def applied(folder, options):
    path = folder / "params.yaml"
    apply_overrides(path, options)
    return load_yaml(path)


@pytest.mark.parametrize(
    "title", ["Part 3: faces by gender", "a 'b' \"c\"", "$(date) ${x}", "back\\", "100 %, [x] {y}: z"]
)
def test_a_text_survives_hydra_and_the_file(tmp_path, title):
    (tmp_path / "params.yaml").write_text("title: x\n")
    assert applied(tmp_path, [f"title={in_hydra(title)}"]) == {"title": title}


@given(value=VALUES)
@settings(max_examples=60, deadline=None)
def test_every_value_survives_hydra_and_the_file(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("hydra")
    (folder / "params.yaml").write_text("key: 0\n")
    assert applied(folder, [f"key={in_hydra(value)}"]) == {"key": value}


@pytest.mark.parametrize("key", ["1", "女", "a.b", "null", "a:b", "1e5", ""])
def test_a_key_that_hydra_can_t_read_is_refused(key):
    with pytest.raises(ParameterError, match="can't be the key of a mapping"):
        in_hydra({key: 0})


TREES = st.recursive(LEAVES | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=8)
DIALECTS = [
    "1e5",
    "0o17",
    "12e03",
    "+.5",
    "1e-3",
    "on",
    "No",
    "~",
    "null",
    "1:20",
    "=",
    "<<",
    ".inf",
    "0x1f",
    "2024-01-01",
]


@given(value=st.dictionaries(TEXTS | st.sampled_from(DIALECTS), TREES | st.sampled_from(DIALECTS)))
@settings(max_examples=150, deadline=None)
def test_what_is_written_as_yaml_is_read_again_in_both_dialects(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("yaml") / "params.yaml"
    path.write_text(dump_yaml(value), encoding="utf-8")
    assert load_yaml(path) == value
    assert yaml.safe_load(dump_yaml(value)) == value


@pytest.mark.parametrize("text", ["title: 2024-13-45", "x: !!int a", "x: !!float abc", "x: " + "9" * 5000])
def test_values_that_can_t_be_are_told_in_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text + "\n")
    with pytest.raises(ParameterError, match=r"params\.yaml: not YAML: [^\n]+$"):
        load_yaml(tmp_path / "params.yaml")


@pytest.mark.parametrize("labels", [{"female": 0, "male": 1}, {1: 0, 2: 1, 3: 1}, {2: 1}, {"Mr X": 0, "Ms Y": 1}])
def test_labels_are_replaced_as_a_whole(tmp_path, labels):
    values = {"preprocess": {"labels": {1: 0, 2: 1}, "size": 64}}
    overlay = {"preprocess": {"labels": labels}}
    assert laid_over(values, overlay)["preprocess"] == {"labels": labels, "size": 64}
    (tmp_path / "params.yaml").write_text(dump_yaml(values))
    assert list(flatten(overlay)) == ["preprocess.labels"]
    given = ["~preprocess.labels", f"+preprocess.labels={in_hydra(labels)}"]
    assert applied(tmp_path, given)["preprocess"]["labels"] == labels


def test_git_s_own_words_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"can't list the project's files here.* \(fatal: not a git repository"):
        project_files()


@given(text=TEXTS)
@settings(max_examples=40, deadline=None)
def test_every_value_survives_a_shell(text):
    word = shlex.quote(f"title={in_hydra(text)}")
    plain = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True)
    assert plain.stdout == f"title={in_hydra(text)}"


@pytest.mark.parametrize("name", ["smoke", "hour", "full"])
def test_a_preset_as_options_is_the_preset(tmp_path, name):
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    words = shlex.split(" ".join(overrides(name)))
    changed = applied(tmp_path, [word for word in words if word != "-S"])
    assert flatten(changed) == flatten(merged_parameters(name))


def test_the_preset_at_hand_changes_nothing():
    assert overrides("default") == []
