"""The report: one self-contained page, and its Markdown twin for code hosts, from artifacts and parameters alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffusion_ladder.foundation.section import dump_yaml
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.report.content import Reader, Report
from diffusion_ladder.report.excerpts import highlighted
from diffusion_ladder.report.films import film_of
from diffusion_ladder.report.model_cards import cards_of
from diffusion_ladder.report.notation import latex, mathml
from diffusion_ladder.report.pictures import EMBEDDED_BYTES, embedded_pictures
from diffusion_ladder.report.rendering import environment, read_template, render
from diffusion_ladder.report.stage_graph import drawing, mermaid
from diffusion_ladder.report.words import REAL_PORTRAITS


@dataclass(frozen=True)
class Pages:
    """The report in both forms.

    Attributes:
        cards: model cards, by the names of the rungs.
        linked: pictures, relative to reports/, that would make the page too large: it links to them instead.
    """

    html: str
    markdown: str
    linked: list[str]
    cards: dict[str, str]


def build_pages(root: Path, parameters: Parameters) -> Pages:
    """Make the report from the artifacts below a folder (that of params.yaml); what is missing there is left out."""
    report = Reader(root, parameters).report()
    stills = [picture for picture in report.pictures if not picture.animated]  # players take the place of animations
    films = {still.path: film_of(root, still.path) for still in stills}
    embedded = embedded_pictures(stills, EMBEDDED_BYTES - sum(len(film.json) for film in films.values() if film))
    content = content_of(report)
    html = environment(autoescape=True)
    html.filters |= {"drawing": drawing, "mathml": lambda math: Markup(mathml(math)), "highlighted": highlighted}
    html.globals |= {"films": films, "player_script": Markup(read_template("player.js"))}
    html.tests["embedded"] = lambda picture: picture.path in embedded
    markdown = environment(autoescape=False)
    markdown.filters |= {"latex": latex, "mermaid": mermaid}
    return Pages(
        html=render(html, "page.html.j2", **content),
        markdown=render(markdown, "readme.md.j2", **content),
        linked=[still.path for still in stills if still.path not in embedded],
        cards=cards_of(report),
    )


def content_of(report: Report) -> dict[str, Any]:
    """What the templates are given."""
    return {
        "report": report,
        "chapters": report.chapters,
        "all_parameters": as_yaml(report.parameters),
        "card_note": REAL_PORTRAITS,
    }


def as_yaml(parameters: Parameters) -> str:
    """All parameters in the order of params.yaml, without its comments: their values alone shape the report."""
    return dump_yaml(parameters.model_dump(exclude_unset=True))
