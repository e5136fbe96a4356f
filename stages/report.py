"""Write the report, and the page about the last run."""

import sys
from pathlib import Path

from torch import Tensor

from diffusion_ladder.figures import pairs
from diffusion_ladder.figures.canvas import house_style, missing_letters
from diffusion_ladder.figures.ladder import ladder_exhibit
from diffusion_ladder.figures.samples import COMPARED_SHARE
from diffusion_ladder.foundation.artifacts import read_tensors, write_bytes, write_json, write_text
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.whole import Parameters, load_parameters
from diffusion_ladder.report.ladder import step_of
from diffusion_ladder.report.model_cards import CARDS, place_cards
from diffusion_ladder.report.page import build_pages
from diffusion_ladder.report.run_page import write_run_page

ACROSS = "reports/across"


def first_samples(parameters: Parameters) -> dict[str, dict[str, Tensor]]:
    """For each data set, titles of the rungs that have learnt it, and their samples of the first sampling seed."""
    sets: dict[str, dict[str, Tensor]] = {}
    for key, rung in parameters.rungs.items():
        drawn = read_tensors(f"data/samples/{key}.safetensors")
        sets.setdefault(rung.dataset, {})[rung.title] = drawn["samples"][drawn["sampling_seed"] == 0]
    return sets


def draw_across(parameters: Parameters) -> None:
    """Write the figures that need more than one rung, and captions.json beside them."""
    captions = []
    count = min(rung.figures.samples for rung in parameters.rungs.values()) // COMPARED_SHARE
    steps = [step_of(Path(), key, rung) for key, rung in parameters.rungs.items()]
    with house_style():
        for exhibit in (ladder_exhibit(steps), *pairs.exhibits(first_samples(parameters), count)):
            write_bytes(f"{ACROSS}/{exhibit.file}", exhibit.content)
            captions.append(exhibit.entry())
    write_json(f"{ACROSS}/captions.json", captions)


def main(stage: Stage) -> None:
    """Write the report in both forms and the model cards from the artifacts, and the page about the last run."""
    parameters = load_parameters()
    if complaint := missing_letters(rung.title for rung in parameters.rungs.values()):
        print(f"{stage.label}: {complaint}", flush=True)
    draw_across(parameters)
    pages = build_pages(Path(), parameters)
    write_text("reports/index.html", pages.html)
    write_text("reports/README.md", pages.markdown)
    for key, card in pages.cards.items():
        write_text(CARDS / key / "README.md", card)
    place_cards()
    for path in pages.linked:
        print(f"reports/index.html links to {path}, which is too large to be part of it", file=sys.stderr)
    write_run_page()


if __name__ == "__main__":
    run_stage(main)
