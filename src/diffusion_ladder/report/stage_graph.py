"""The graph of the stages, drawn from dvc.yaml: in layers from top to bottom, each stage below all that it needs."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffusion_ladder.foundation.graph import REFERENCE, Definition, read_graph
from diffusion_ladder.foundation.section import load_yaml

HEIGHT, GAP_X, GAP_Y, PADDING, LETTER = 36, 20, 34, 14, 8.2  # of a box and between boxes, in pixels


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, all entries of its loop together.

    Attributes:
        name: as in dvc.yaml.
        words: its description there.
        count: entries of its loop; 0 for a stage without one.
        needs: the stages whose outputs it reads, without those that come in by way of others.
    """

    name: str
    words: str
    count: int
    needs: list[str]


def overlap(one: str, other: str) -> bool:
    """Whether one path is the other, or lies in it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def read_stages(root: Path) -> list[Stage]:
    """The stages of root/dvc.yaml, each after those that it needs; none where the file is missing."""
    path = root / "dvc.yaml"
    if not path.is_file():
        return []
    values = load_yaml(root / "params.yaml")
    graph = read_graph(values, path)
    read = {name: stage.everywhere("deps") for name, stage in graph.items()}
    written = {name: stage.everywhere("outs", "metrics", "plots") for name, stage in graph.items()}
    needs = {
        name: {
            other
            for other in graph
            if other != name and any(overlap(dep, out) for dep in read[name] for out in written[other])
        }
        for name in graph
    }
    behind = {name: ancestors(name, needs) for name in needs}
    direct = {name: [n for n in needs[name] if not any(n in behind[m] for m in needs[name])] for name in needs}
    return [
        Stage(
            name=name,
            words=REFERENCE.sub(noun_of(graph[name], values), graph[name].body.get("desc", "")),
            count=len(graph[name].loop),
            needs=sorted(direct[name]),
        )
        for name in sorted(needs, key=lambda name: (len(behind[name]), name))
    ]


def noun_of(stage: Definition, values: Mapping[str, Any]) -> str:
    """What a stage's loop goes over, in words."""
    return "each rung" if all(entry in values["rungs"].values() for entry in stage.loop.values()) else "each data set"


def ancestors(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Everything that a stage needs, by whatever way."""
    found: set[str] = set()
    waiting = [*needs[name]]
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += needs[other]
    return found


def layers_of(stages: list[Stage]) -> tuple[list[list[str]], list[list[str]]]:
    """What stands in each layer, from left to right, and the ways: names from a stage to one that needs it.

    A stage's layer is the length of the longest way to it. A way that passes layers has a place of its own in each,
    named by both ends and the layer, so that it runs through no box.
    """
    depth: dict[str, int] = {}
    for stage in stages:
        depth[stage.name] = 1 + max((depth[name] for name in stage.needs), default=-1)
    ways = [
        [name, *(f"{name} {stage.name} {layer}" for layer in range(depth[name] + 1, depth[stage.name])), stage.name]
        for stage in stages
        for name in stage.needs
    ]
    places = depth | {place: depth[way[0]] + step for way in ways for step, place in enumerate(way)}
    before: dict[str, list[str]] = {place: [] for place in places}
    for way in ways:
        for one, other in pairwise(way):
            before[other].append(one)
    layers: list[list[str]] = []
    across: dict[str, float] = {}
    for number in range(1 + max(depth.values())):
        layer = [place for place in places if places[place] == number]
        layer.sort(key=lambda place: (mean([across[name] for name in before[place]]), place))
        across |= {place: column - (len(layer) - 1) / 2 for column, place in enumerate(layer)}
        layers.append(layer)
    return layers, ways


def mean(values: list[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def label_of(stage: Stage) -> str:
    """What stands in a stage's box."""
    return f"{stage.name} × {stage.count}" if stage.count else stage.name


def boxes_of(
    layers: list[list[str]], labels: Mapping[str, str]
) -> tuple[dict[str, tuple[float, float, float]], float, float]:
    """Left edge, top and width of each place, and the width and height of the whole; a way's places have no width."""
    places = [place for layer in layers for place in layer]
    widths = {place: len(labels[place]) * LETTER + 2 * PADDING if place in labels else 0.0 for place in places}
    breadths = [sum(widths[place] for place in layer) + GAP_X * (len(layer) - 1) for layer in layers]
    boxes: dict[str, tuple[float, float, float]] = {}
    for number, (layer, breadth) in enumerate(zip(layers, breadths, strict=True)):
        left = 1 + (max(breadths) - breadth) / 2
        for place in layer:
            boxes[place] = left, 1.0 + number * (HEIGHT + GAP_Y), widths[place]
            left += widths[place] + GAP_X
    return boxes, max(breadths) + 2, len(layers) * (HEIGHT + GAP_Y) - GAP_Y + 2.0


def line_along(way: list[str], boxes: Mapping[str, tuple[float, float, float]]) -> str:
    """The line of a way: bent between two layers, straight down a layer that it passes."""
    left, top, width = boxes[way[0]]
    x, y = left + width / 2, top + HEIGHT
    path = f"M{x:g} {y:g}"
    for place in way[1:]:
        left, top, width = boxes[place]
        middle, bend = left + width / 2, (y + top) / 2
        path += f"C{x:g} {bend:g} {middle:g} {bend:g} {middle:g} {top:g}"
        if place != way[-1]:
            path += f"V{top + HEIGHT:g}"
        x, y = middle, top + HEIGHT
    return f'<path d="{path}"/>'


def drawing(stages: list[Stage]) -> Markup:
    """The graph as an SVG image, in the page's own colours."""
    labels = {stage.name: label_of(stage) for stage in stages}
    layers, ways = layers_of(stages)
    boxes, width, height = boxes_of(layers, labels)
    parts = [line_along(way, boxes) for way in ways]
    for name, label in labels.items():
        left, top, wide = boxes[name]
        parts.append(f'<rect x="{left:g}" y="{top:g}" width="{wide:g}" height="{HEIGHT}" rx="8"/>')
        parts.append(f'<text x="{left + wide / 2:g}" y="{top + HEIGHT / 2 + 5:g}">{html.escape(label)}</text>')
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    words = "The stages as boxes, joined by lines to those that they need; the list below says the same."
    return Markup(f'<svg {size} role="img" aria-label="{words}">{"".join(parts)}</svg>')


def mermaid(stages: list[Stage]) -> str:
    """The graph in the language that code hosts draw."""
    names = [f'  {stage.name}["{label_of(stage)}"]' for stage in stages]
    return "\n".join(["flowchart TD", *names, *(f"  {name} --> {s.name}" for s in stages for name in s.needs)])
