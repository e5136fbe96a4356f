"""The page docs/known-failures.md: numbers and pictures of all failures and their mends, and the words around them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import normalise
from diffusion_ladder.figures.canvas import house_style, rasterise
from diffusion_ladder.figures.encoding import encode_samples
from diffusion_ladder.figures.mosaic import mosaic, scale_of
from diffusion_ladder.figures.samples import Panel, scatter_row
from diffusion_ladder.foundation.artifacts import read_json, write_bytes, write_json, write_text
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.known_failures.failures import FAILURES, Finding
from diffusion_ladder.known_failures.small import moons

SHOWN = 8  # images in a row
WIDTH = 600  # largest width of a row of images
TEMPLATE = "page.md.j2"
Results = Mapping[str, Sequence[Mapping[str, Any]]]  # by failure: what each number is, as it fails, and mended


def in_words(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:.3g}"


def save_picture(findings: Mapping[str, Finding], path: Path) -> None:
    """Write the pictures of some findings, titled, beside or below each other, as one PNG file.

    Raises:
        UserError: there is nothing to see, or the file can't be written.
    """
    pictures = {title: each.picture for title, each in findings.items() if each.picture is not None}
    if not pictures:
        raise UserError("this failure has no picture: its numbers say it all")
    with house_style():
        write_bytes(path, encode_samples(rasterise(figure_of(pictures))))


def figure_of(pictures: Mapping[str, Tensor]) -> Any:
    """Points (N, 2) side by side, or rows of images (N, 1, H, W)."""
    if next(iter(pictures.values())).ndim == 2:
        return scatter_row(
            [Panel(title, normalise(points, moons().normalisation), None) for title, points in pictures.items()]
        )
    rows = torch.stack([images[:SHOWN] for images in pictures.values()])  # (R, SHOWN, 1, H, W)
    return mosaic(rows, scale_of(rows, WIDTH), row_titles=list(pictures))


def render(results: Results) -> str:
    """The page as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"in_words": in_words, "lower_first": lambda text: text[0].lower() + text[1:]}
    sentences = {failure.name: {"failing": failure.failing, "mended": failure.mended} for failure in FAILURES}
    return environment.get_template(TEMPLATE).render(results=results, sentences=sentences) + "\n"


def write(folder: Path) -> None:
    """Run all failures and their mends; write FOLDER/known-failures.md, its numbers and its pictures.

    Raises:
        UserError: a file can't be written.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for failure in tqdm(FAILURES, desc="known failures"):
        failing, mended = failure.run(False), failure.run(True)
        results[failure.name] = [
            {"what": what, "failing": value, "mended": mended.numbers[what]} for what, value in failing.numbers.items()
        ]
        if failing.picture is not None:
            path = folder / "known-failures" / f"{failure.name}.png"
            save_picture({"as it fails": failing, "mended": mended}, path)
    write_json(folder / "known-failures" / "results.json", results)
    write_text(folder / "known-failures.md", render(read_json(folder / "known-failures" / "results.json")))
