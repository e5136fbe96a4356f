"""Model cards in the hub's format, from the same data as the report: reports/models/MODEL/README.md.

A copy lies beside the weights, as the hub wants it: models/MODEL/README.md, which .dvcignore keeps out of the weights'
hash, because it is written later than they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_ladder.foundation.artifacts import write_bytes
from diffusion_ladder.report.content import Chapter, Report
from diffusion_ladder.report.loading import brings_code, snippet_of
from diffusion_ladder.report.metrics import Metric
from diffusion_ladder.report.rendering import environment, render

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARDS = Path("reports/models")
WEIGHTS = Path("models")


def card_of(chapter: Chapter, report: Report) -> str:
    """The card of one rung: its metadata as YAML, then the text."""
    from huggingface_hub import ModelCardData  # here, because it takes a while

    kind = str(getattr(chapter.dataset, "kind", ""))
    own = chapter.model.network.name != "diffusers_unet"
    condition = ["class-conditional"] if chapter.model.conditional else []
    data = ModelCardData(
        license="mit",
        library_name="pytorch" if own else "diffusers",
        tags=["diffusion", chapter.model.network.name, chapter.sampling.sampler, kind, *condition],
        datasets=[chapter.model.dataset],
        metrics=[metric.key for metric in chapter.metrics] or None,
        pipeline_tag=None if kind == "points" or condition else "unconditional-image-generation",
        model_name=chapter.key,
        eval_results=results_of(chapter) or None,
    )
    snippet = snippet_of(chapter.key, chapter.model, chapter.card.get("class_names", []))
    use = {"own": own, "snippet": snippet, "brings_code": brings_code(chapter.model)}
    jinja = environment(autoescape=False)
    return render(jinja, "model_card.md.j2", metadata=data.to_yaml(), chapter=chapter, report=report, **use)


def results_of(chapter: Chapter) -> "list[EvalResult]":
    """The rung's metrics as the hub lists them."""
    from huggingface_hub import EvalResult

    what = "generation" if str(getattr(chapter.dataset, "kind", "")) == "points" else "image-generation"
    task = f"{'class-conditional' if chapter.model.conditional else 'unconditional'}-{what}"

    def result(metric: Metric) -> EvalResult:
        return EvalResult(
            task_type=task,
            dataset_type=chapter.model.dataset,
            dataset_name=str(chapter.card.get("title", chapter.model.dataset)),
            dataset_split="test",
            metric_type=metric.key,
            metric_name=metric.description.title,
            metric_value=metric.samples.value,
        )

    return [result(metric) for metric in chapter.metrics]


def cards_of(report: Report) -> dict[str, str]:
    """The card of every rung, by its name."""
    return {chapter.key: card_of(chapter, report) for chapter in report.chapters}


def place_cards(root: Path = Path()) -> list[Path]:
    """Copy every card beside the weights that it tells of, where there are some."""
    placed = []
    for card in sorted((root / CARDS).glob("*/README.md")):
        folder = root / WEIGHTS / card.parent.name
        if folder.is_dir():
            write_bytes(folder / card.name, card.read_bytes())
            placed.append(folder / card.name)
    return placed


if __name__ == "__main__":
    place_cards()
