"""Refuse impossible parameters before any output is touched."""

from diffusion_ladder.artifacts import write_text
from diffusion_ladder.consistency import check_consistency
from diffusion_ladder.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Check what `run_stage` did not: it has loaded params.yaml, which is the check of its schema.

    The file that is written is constant, so that an accepted value makes no later stage run again.
    """
    check_consistency(stage.all_parameters())
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
