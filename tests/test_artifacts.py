"""Artifacts are byte-stable and written whole or not at all."""

import io
import os
import stat
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_ladder.foundation.artifacts import (
    StoredTensor,
    canonical_json,
    read_metadata,
    read_tensors,
    sha256_of_file,
    write_bytes,
    write_json,
    write_tensors,
)
from diffusion_ladder.foundation.errors import UserError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back_and_does_not_depend_on_the_order_of_keys(value):
    import json

    text = canonical_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_does_not_have(value, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": [value]})
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {
        "b": torch.arange(6).reshape(2, 3),
        "a": torch.randn(3).half(),
        "c": torch.zeros(0, 2, dtype=torch.uint8),
    }
    metadata = {"z": 1, "a": [1, {"x": "é"}]}
    write_tensors(tmp_path / "folder" / "t.safetensors", tensors, metadata)
    read = read_tensors(tmp_path / "folder" / "t.safetensors")
    assert sorted(read) == ["a", "b", "c"]
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype
    assert read_metadata(tmp_path / "folder" / "t.safetensors") == metadata


def test_a_stored_tensor_gives_the_bytes_that_the_library_writes(tmp_path):
    random = torch.Generator().manual_seed(0)
    tensors = {
        "train": torch.randint(256, (70, 3, 5, 4), dtype=torch.uint8, generator=random),
        "test": torch.randint(256, (0, 3, 5, 4), dtype=torch.uint8, generator=random),
        "train_labels": torch.arange(70),
        "other": torch.randn(3, 2, generator=random),
    }
    metadata = {"class_names": ['größer "x"\n', "日本"], "b": 1.5}
    write_tensors(tmp_path / "whole", tensors, metadata)
    for stored_names in (["train"], ["train", "test"], list(tensors)):
        stored = {}
        for name, tensor in tensors.items():
            file = io.BytesIO(tensor.numpy().tobytes())
            stored[name] = StoredTensor(file, tensor.dtype, tensor.shape) if name in stored_names else tensor
        write_tensors(tmp_path / "stored", stored, metadata)
        assert (tmp_path / "stored").read_bytes() == (tmp_path / "whole").read_bytes()


def test_tensor_files_are_the_same_bytes_in_every_process(tmp_path):
    code = """
import sys, torch
from diffusion_ladder.foundation.artifacts import write_tensors
names = ["a", "b", "c"] if sys.argv[2] == "1" else ["c", "b", "a"]
write_tensors(sys.argv[1], {n: torch.full((3, 2), float(ord(n))) for n in names}, {n: 1 for n in names})
"""
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed), seed], check=True, env=environment)
    assert sha256_of_file(tmp_path / "1") == sha256_of_file(tmp_path / "2")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"x can't be written: No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
