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


@pytest.mark.parametrize("said", [{"RANK": "0"}, {"WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}])
def test_half_a_launcher_is_refused_in_one_line(said):
    with pytest.raises(UserError, match="start this stage by torchrun"):
        Launch.of(said)
