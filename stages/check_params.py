"""Refuse impossible parameters before any output is touched."""

import itertools
from pathlib import Path

from diffusion_ladder.data.user_paths import project_of_copy, refuse_collisions
from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.params.consistency import check_consistency, paths_of_users
from diffusion_ladder.params.whole import Parameters, validate


def check_scored(parameters: Parameters, looped: list[str]) -> None:
    """Refuse sections `score` that are not those over which dvc.yaml goes: DVC can't choose entries of a loop."""
    scored = [name for name, rung in parameters.rungs.items() if rung.score]
    if different := sorted({*scored} ^ {*looped}):
        raise ParameterError(
            f"params.yaml: rungs.{different[0]}.score: compare_scores in dvc.yaml goes over {', '.join(looped)}; in"
            f" params.yaml {', '.join(scored) or 'no rung'} has this section: put it in or take it out there, then run"
            " `make graph`"
        )


def check_apart(outputs: list[str]) -> None:
    """Refuse names of rungs or data sets that make two stages write to the same place."""
    for one, other in itertools.pairwise(sorted(outputs, key=lambda path: Path(path).parts)):
        if Path(other).is_relative_to(one):
            raise ParameterError(
                f"params.yaml: two stages would write to {one} ({other}): give the rung, or the data set, another name"
            )


def main(stage: Stage) -> None:
    """Check each section, whether they fit each other, and whether a stage would delete files of the user's.

    The file that is written is constant, so that an accepted value makes no later stage run again.
    """
    values = load_yaml("params.yaml")
    parameters = validate(values)
    check_consistency(parameters)
    graph = read_graph(values)
    check_scored(parameters, list(graph["compare_scores"].loop))
    written = [path for each in graph.values() for path in each.everywhere("outs", "metrics", "plots")]
    check_apart(written)
    outputs = [*sorted(written), "data/downloads", ".checkpoints", ".dvc"]
    if project := project_of_copy():  # into which `dvc exp apply` brings the outputs
        outputs += [str(project / path) for path in outputs]
    refuse_collisions(paths_of_users(parameters), outputs)
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run_stage(main)
