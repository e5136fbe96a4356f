"""Run the from-scratch schedulers beside diffusers', and write the largest differences."""

import sys

from tqdm import tqdm

from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.scheduler_comparison import SchedulerComparison
from diffusion_ladder.schedulers.parity import differences_by_group, loops


def main(stage: Stage) -> None:
    """Write reports/metrics/schedulers.json; a difference above its limit is told here and in the report."""
    settings = stage.parameter("scheduler_comparison", SchedulerComparison)
    with tqdm(total=len(loops(settings)), desc=stage.label, unit=" loops") as progress:
        found = differences_by_group(settings, stage.parameter("seed", int), progress.update)
    write_json("reports/metrics/schedulers.json", found)
    for dtype, limit in settings.limits.items():
        for group in (key for key, difference in found.items() if key.endswith(dtype) and difference > limit):
            print(
                f"{stage.label}: {group} differs from diffusers by {found[group]:.2g}, above {limit}", file=sys.stderr
            )


if __name__ == "__main__":
    run_stage(main)
