"""Refuse impossible parameters before any output is touched."""

from typing import Any

from diffusion_ladder.artifacts import write_text
from diffusion_ladder.data.user_paths import collision
from diffusion_ladder.errors import ParameterError
from diffusion_ladder.graph.reader import read_graph
from diffusion_ladder.params.consistency import check_consistency, paths_of_users
from diffusion_ladder.params.whole import validate
from diffusion_ladder.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Check each section, whether they fit each other, and whether a stage would delete files of the user's.

    The file that is written is constant, so that an accepted value makes no later stage run again.
    """
    values = stage.parameter("", dict[str, Any])
    parameters = validate(values)
    check_consistency(parameters)
    graph = read_graph(values)
    written = {path for each in graph.values() for path in each.everywhere("outs", "metrics", "plots")}
    outputs = [*sorted(written), "data/downloads", ".dvc"]
    for key, given in paths_of_users(parameters).items():
        if complaint := collision(given, outputs):
            raise ParameterError(f"params.yaml: {key}: {complaint}")
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
