"""The pages of a study, reports/studies/NAME/: its verdict, chart, samples, table and commands, from its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.studies import Panel, quality_chart, samples_sheet
from diffusion_ladder.foundation.artifacts import write_bytes, write_json, write_text
from diffusion_ladder.report.pictures import pictures_in
from diffusion_ladder.report.rendering import environment, render
from diffusion_ladder.report.studies import CHART, Answer, StudyResults

SIDE_BY_SIDE = 2  # panels of the chart, where a study has several metrics

Samples = Mapping[str, Mapping[str, Tensor]]  # by rung and variant


def write_study(folder: Path, found: Mapping[str, Any], samples: Samples) -> None:
    """Write the pages and pictures of a study.

    Args:
        folder: reports/studies/NAME.
        found: the content of its results.json.
        samples: of the first training seed; pictures of rungs that are not there stay as they are.
    """
    study = StudyResults(found)
    captions = []
    with house_style():
        if study.answers:
            write_bytes(folder / f"{CHART}.png", quality_chart(panels_of(study), SIDE_BY_SIDE))
            captions.append(caption_of_chart(study))
        for answer in study.answers:
            file = f"samples_{answer.rung}.png"
            if drawn := samples.get(answer.rung):
                write_bytes(folder / file, samples_sheet(drawn))
            if (folder / file).is_file():
                captions.append(caption_of_samples(study, answer, file))
    write_json(folder / "captions.json", captions)
    write_text(folder / "runs.csv", study.frame.to_csv(index=False, lineterminator="\n"))
    content = {
        "study": study,
        "commands": commands_of(study),
        "pictures": pictures_in(folder, folder.parents[2], study.command),
    }
    write_text(folder / "index.html", render(environment(autoescape=True), "study.html.j2", **content))
    write_text(folder / "README.md", render(environment(autoescape=False), "study.md.j2", **content))


def panels_of(study: StudyResults) -> list[Panel]:
    """A panel for each metric on each rung."""
    return [panel_of(study, answer, metric) for answer in study.answers for metric in answer.description]


def panel_of(study: StudyResults, answer: Answer, metric: str) -> Panel:
    """One metric on one rung."""
    told, runs = answer.description[metric], {row.variant: study.runs(answer.rung, row.variant) for row in answer.rows}
    floors = runs[study.baseline].get(f"{metric}_floor")
    return Panel(
        title=answer.rung,
        axis=f"{told.title}{f' ({told.direction})' if told.direction else ''}",
        values={name: [float(value) for value in each[metric].dropna()] for name, each in runs.items()},
        judged={row.variant: row.judged for row in answer.rows} if metric == answer.metric else {},
        floor=None if floors is None else float(floors.mean()),
    )


def caption_of_chart(study: StudyResults) -> dict[str, str]:
    """The entry of quality.png in captions.json."""
    return {
        "file": f"{CHART}.png",
        "title": "Quality by variant",
        "caption": (
            "Every run is a stroke, a training seed each; the large mark is their mean, with a bar of one standard"
            f" deviation. The vertical line is the mean of {study.baseline}, the dotted one what real data score. Blue"
            " is better than that and orange worse, by the test; grey is neither, or another metric than the one that"
            " decides."
        ),
        "alt": f"Charts of {len(study.variants)} variants; the verdict beside them says what they show.",
    }


def caption_of_samples(study: StudyResults, answer: Answer, file: str) -> dict[str, str]:
    """The entry of a sheet of samples in captions.json."""
    return {
        "file": file,
        "title": f"The same noise, by variant: {answer.rung}",
        "caption": (
            f"Samples of training seed {min(study.found['seeds'])}, none left out: what stands in the same place starts"
            " from the same noise, so that only the variant differs."
        ),
        "alt": f"Samples of {len(answer.rows)} variants on {answer.rung}.",
    }


def commands_of(study: StudyResults) -> list[str]:
    """What makes the study again, and its last variant alone."""
    last, rung = [*study.variants][-1], study.found["rungs"][0]
    run = next((each for each in study.found["runs"] if (each["variant"], each["rung"]) == (last, rung)), None)
    commands = [f"make study NAME={study.name}"]
    if run:
        commands.append(f"dvc exp apply {run['experiment']}   # that run as the state of your folder")
    return commands
