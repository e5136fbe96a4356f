"""Write into dvc.yaml what follows from the code and from params.yaml: `python -m diffusion_ladder.graph`.

Each stage's code dependencies come from what it imports; the loops of stages for rungs with a section of their
own, the charts and the artifacts list the rungs.
"""

import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import Definition, flat, read_graph
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.graph.imports import SOURCE, code_of

WIDTH = 130  # of a line of such lists
COST_METRIC, COST_METRICS = "kernel_distance", {"points": "energy_distance"}  # by kind of data, of the sweep's table


def written(text: str, parameters: Mapping[str, Any], stages: Mapping[str, Definition]) -> str:
    """The text of dvc.yaml with all that follows from code and parameters."""
    for stage in stages.values():
        text = with_dependencies(text, stage)
    rungs = parameters["rungs"]
    for name, section in {"compare_scores": "score", "ideal_denoiser": "ideal_denoiser"}.items():
        loop = ", ".join(f'{key}: "${{rungs.{key}}}"' for key, rung in rungs.items() if section in rung)
        text = replaced(text, rf"(?<=\n  {name}:\n    foreach: )\{{.*\}}", f"{{{loop}}}")
    kinds = {name: parameters["datasets"][rung["dataset"]]["kind"] for name, rung in rungs.items()}
    norms = {f"reports/training/{name}.tsv": "gradient_norm" for name in rungs}
    costs = {f"reports/tables/{name}/cost.tsv": COST_METRICS.get(kind, COST_METRIC) for name, kind in kinds.items()}
    text = with_chart(text, "Gradient norm", norms)
    text = with_chart(text, "Quality against cost", costs)
    models = "".join(artifact(name, rung) for name, rung in rungs.items())
    return replaced(text, r"(?<=\nartifacts:\n)(?:  \S+: \{.*\n)*", models)


def with_chart(text: str, title: str, columns: Mapping[str, str]) -> str:
    """The text of dvc.yaml with the files of one of DVC's charts, and the column that it draws of each."""
    listed = ", ".join(f"{path}: {column}" for path, column in columns.items())
    lines = wrapped(f"y: {{{listed}}}}}", 6)
    return replaced(text, rf"(?<=\n)(  - {title}: \{{.*\n)      y: \{{[^}}]*\}}\}}", lines, " " * 6)


def artifact(name: str, rung: Mapping[str, Any]) -> str:
    """The line that registers a rung's model with DVC, whose names hold small letters, digits and hyphens."""
    conditional = "class-conditional" if rung["conditional"] else "unconditional"
    labels = ", ".join(["diffusion", rung["dataset"], rung["network"]["name"], conditional])
    title = rung["title"].replace("'", "''")
    key = name.lower().replace("_", "-").strip("-")
    return f"  {key}: {{path: models/{name}, type: model, desc: '{title}', labels: [{labels}]}}\n"


def wrapped(line: str, indent: int) -> str:
    """A long line of YAML as several, to be indented by so many places."""
    return "\n".join(
        textwrap.wrap(line, WIDTH - indent, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    )


def with_dependencies(text: str, stage: Definition) -> str:
    """The text of dvc.yaml with the code dependencies of one stage."""
    entries = flat(stage.body.get("deps", []))
    code = [entry for entry in entries if entry.startswith(("src/", "stages"))]
    by_hand = [entry for entry in code if "${" in entry or entry in (SOURCE, "stages")]
    names = [*(entry for entry in entries if entry not in code), *code_of(stage, by_hand)]
    indent = " " * (6 if stage.looped else 4)
    listed = ", ".join(f'"{name}"' if "${" in name else name for name in names)
    lines = wrapped(f"deps: [{listed}]", len(indent))
    return replaced(text, rf"(?<=\n  {stage.name}:\n)((?:    .*\n)*?){indent}deps: \[[^\]]*\]", lines, indent)


def replaced(text: str, pattern: str, new: str, indent: str = "") -> str:
    """The text with its one match of a pattern replaced by lines with an indent; the pattern's group stays.

    Raises:
        UserError: there is no such place.
    """
    match = re.search(pattern, text)
    if match is None:
        raise UserError(f"dvc.yaml: no place for {new.splitlines()[0] if new else pattern}: restore its layout")
    kept = match[1] if match.re.groups else ""
    return text[: match.start()] + kept + textwrap.indent(new, indent) + text[match.end() :]


def main() -> None:
    """Rewrite dvc.yaml; a mistake is one line and exit code 1."""
    try:
        parameters = load_yaml("params.yaml")
        stages = read_graph(parameters)
        before = Path("dvc.yaml").read_text(encoding="utf-8")
        after = written(before, parameters, stages)
        if after != before:
            write_text("dvc.yaml", after)
        print("dvc.yaml is written anew" if after != before else "dvc.yaml fits the code already")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
