"""Random generators by purpose, devices, precision and errors."""

import errno
import os
import platform
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import PROJECT, run

from diffusion_ladder.device import choose_device, choose_precision, choose_tf32
from diffusion_ladder.foundation import runtime
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.randomness import generator, numpy_generator, seed_of


def test_a_purpose_always_gives_the_same_stream_and_another_purpose_another():
    def draw(*purpose):
        return torch.randn(4, generator=generator(0, *purpose)).tolist()

    assert draw("sample", "faces", 3) == draw("sample", "faces", 3)
    streams = [
        draw("sample", "faces", 3),
        draw("sample", "faces", 4),
        draw("train", "faces", 3),
        draw("sample", "face", 4),
    ]
    assert len({tuple(stream) for stream in streams}) == 4
    assert generator(1, "a").initial_seed() != generator(0, "a").initial_seed()


def test_the_seeds_are_fixed_for_ever():
    """A published constant: the first 8 bytes of SHA-256("0/train/circles"), halved."""
    import hashlib

    digest = hashlib.sha256(b"0/train/circles").hexdigest()[:16]
    assert seed_of(0, "train", "circles") == int(digest, 16) // 2


def test_numpy_generators_are_derived_in_the_same_way():
    assert numpy_generator(0, "a").random() == numpy_generator(0, "a").random()
    assert numpy_generator(0, "a").random() != numpy_generator(0, "b").random()


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"runtime\.device: cuda was asked for"):
        choose_device("cuda")


def test_tf32_is_for_gpus():
    with pytest.raises(UserError, match=r"runtime\.precision: tf32 is a GPU's, and the device is cpu"):
        choose_precision("tf32", torch.device("cpu"))
    assert choose_precision("tf32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("wanted", [True, False])
def test_matrices_and_convolutions_round_to_tf32_alike(monkeypatch, wanted):
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    choose_tf32(wanted)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (wanted, wanted)
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, torch.bfloat16), ({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_auto_takes_bf16_where_the_processor_has_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("float32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["circle"], "train: there is no 'circle'; choose one of circles, moons"), ([], "train: there is no ''")],
)
def test_a_stage_without_its_key_says_which_there_are(arguments, complaint):
    ran = run([sys.executable, "stages/train.py", *arguments], PROJECT, PYTHONPATH="src")
    assert ran.returncode == 1
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_torchvision_imports_whatever_torch_build_is_installed():
    code = (
        "from diffusion_ladder.torchvision_import import repair_torchvision as r; r(); r();"
        "import torchvision.datasets, torchvision.transforms; from diffusers import UNet2DModel; print('works')"
    )
    assert run([sys.executable, "-c", code], PROJECT, PYTHONPATH="src").stdout.strip() == "works"


@pytest.mark.parametrize("stage", ["check_params", "filter_gender"])
def test_a_stage_that_computes_nothing_does_not_wait_for_torch(stage):
    code = f"import sys; sys.path.insert(0, 'stages'); import {stage}; print('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], PROJECT, PYTHONPATH="src").stdout.strip() == "False"


def test_a_stage_that_computes_asks_torch_for_algorithms_that_repeat_themselves():
    code = (
        "import torch; from diffusion_ladder.device import configure;"
        "from diffusion_ladder.foundation.runtime import Stage;"
        "stage = Stage('train', 'circles'); stage.prepare(configure);"
        "print(torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), stage.device)"
    )
    threads = load_parameters().runtime.threads
    printed = run([sys.executable, "-c", code], PROJECT, PYTHONPATH="src").stdout.split()
    assert printed[:2] == ["True", str(threads)]


@pytest.fixture
def as_a_stage(tmp_path, monkeypatch):
    """Run a stage's work as the script stages/check_params.py does, in a folder of its own."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/check_params.py"])
    return runtime.run_stage


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_disk_that_takes_nothing_more_ends_a_stage_in_one_line(as_a_stage, number):
    def work(stage):
        raise OSError(number, "words of a library's own", "data/raw/x")

    with pytest.raises(SystemExit) as ended:
        as_a_stage(work)
    assert ended.value.code == f"check_params: data/raw/x can't be written: {os.strerror(number)}"


def test_a_disk_without_room_for_the_run_record_ends_a_stage_in_one_line(as_a_stage, monkeypatch):
    monkeypatch.setattr(runtime, "RUN_RECORDS", Path("/proc/nowhere"))  # where nobody can write
    with pytest.raises(SystemExit, match=r"^check_params: .*/proc/nowhere"):
        as_a_stage(lambda stage: None)


def test_an_error_that_no_user_can_mend_is_shown_as_it_is(as_a_stage):
    def work(stage):
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        as_a_stage(work)


@pytest.mark.parametrize(("system", "said"), [("Linux", False), ("Darwin", True), ("Windows", True)])
def test_a_stage_says_on_which_systems_it_is_tested(as_a_stage, monkeypatch, capsys, system, said):
    monkeypatch.setattr(platform, "system", lambda: system)
    as_a_stage(lambda stage: None)
    assert (f"check_params: {system} is untested here, only Linux is" in capsys.readouterr().out) is said
