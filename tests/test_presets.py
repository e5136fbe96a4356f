"""Presets as options: they survive a shell, Hydra's grammar, and a round trip through params.yaml."""

import shlex
import subprocess

import pytest
from conftest import PROJECT
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.overlays import flatten, in_hydra
from diffusion_ladder.presets import merged_parameters, overrides

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
LEAVES = st.one_of(st.integers(-999, 999), st.booleans(), st.floats(-9, 9, width=16), TEXTS)
VALUES = st.one_of(
    LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(st.integers(0, 9), LEAVES, min_size=1, max_size=3)
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
