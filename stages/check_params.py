"""Refuse impossible parameters: loading them, which `run_stage` does for every stage, is the check."""

from diffusion_ladder.artifacts import write_text
from diffusion_ladder.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Write a constant file, so that an accepted value makes no later stage run again."""
    stage.all_parameters()
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
