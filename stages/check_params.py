"""Refuse impossible parameters before any output is touched."""

from typing import Any

from diffusion_ladder.artifacts import write_text
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.whole import validate
from diffusion_ladder.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Check each section, and whether they fit each other.

    The file that is written is constant, so that an accepted value makes no later stage run again.
    """
    check_consistency(validate(stage.parameter("", dict[str, Any])))
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
