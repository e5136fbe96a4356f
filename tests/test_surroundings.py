"""What a shell hands down neither shapes results nor stops a stage."""

import sys

import pytest
from conftest import PROJECT, run

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Launch
from diffusion_ladder.foundation.surroundings import ignored

SCRIPT = """
import os
import torch
from diffusion_ladder.figures.evaluation import exhibits
print(sorted(name for name in os.environ if name.startswith(("MPL", "DNNL", "ACCELERATE"))))
"""


@pytest.mark.parametrize(
    "inherited",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "no such backend", "DNNL_DEFAULT_FPMATH_MODE": "BF16"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_DYNAMO_BACKEND": "inductor"},
    ],
)
def test_a_stage_starts_without_what_would_shape_or_stop_it(tmp_path, inherited):
    script = tmp_path / "stages/show.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    ran = run([sys.executable, str(script)], PROJECT, PYTHONPATH="src", **inherited)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
    assert ran.stderr.strip() == f"show: ignores the environment's {', '.join(sorted(inherited))}"


def test_other_programs_keep_their_environment():
    program = "import os, diffusion_ladder; print(os.environ['MPLBACKEND'])"
    ran = run([sys.executable, "-c", program], PROJECT, PYTHONPATH="src", MPLBACKEND="svg")
    assert ran.stdout.strip() == "svg"


def test_what_launchers_and_shells_need_stays():
    needed = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS", "HF_TOKEN", "PATH", "LANG", "ACCELERATE_USE_FSDP"]
    assert ignored(dict.fromkeys(needed, "1")) == []


@pytest.mark.parametrize("module", ["forecast", "sample"])
def test_a_command_starts_without_them_too(module):
    command = [sys.executable, "-m", f"diffusion_ladder.{module}", "--help"]
    ran = run(command, PROJECT, PYTHONPATH="src", MPLBACKEND="no such backend", USE_TF="1", OMP_DYNAMIC="true")
    said = f"diffusion_ladder.{module}: ignores the environment's MPLBACKEND, OMP_DYNAMIC, USE_TF"
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_letters_that_a_terminal_lacks_stop_no_stage(tmp_path):
    script = tmp_path / "stages/show.py"
    script.parent.mkdir()
    script.write_text(
        "from diffusion_ladder.foundation import runtime\n"
        "runtime.Stage = lambda *_: (_ for _ in ()).throw(runtime.UserError(print('女', 'é') or 'the end'))\n"
        "runtime.run_stage(print)\n"
    )
    ran = run([sys.executable, str(script)], PROJECT, PYTHONPATH="src", PYTHONIOENCODING="ascii")
    assert (ran.stdout, ran.stderr) == ("\\u5973 \\xe9\n", "show: the end\n")


def test_the_only_process_is_the_main_one():
    assert Launch.of({"RANK": "0", "WORLD_SIZE": "1"}).is_main
    placed = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert Launch.of({"RANK": "1", "WORLD_SIZE": "2", **placed}) == Launch(1, 2)


@pytest.mark.parametrize(
    "said",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"RANK": "0", "WORLD_SIZE": "4"},
        {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost"},
    ],
)
def test_half_a_launcher_is_refused_in_one_line(said):
    with pytest.raises(UserError, match="start this stage by torchrun"):
        Launch.of(said)
