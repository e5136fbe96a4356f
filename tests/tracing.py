"""Finds the numbers in a report's tables, tiles and lists that stand in no artifact and in no parameter."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import yaml

from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.quality import checks, measured_numbers

NUMBER = re.compile(r"−?\d[\d,]*(?:\.\d+)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
VOID = {"meta", "link", "br", "img", "input", "hr"}
UNITS = {"bytes": 1, "kB": 1000, "MB": 1_000_000, "GB": 1_000_000_000}


class Cells(HTMLParser):
    """The texts of table cells and of descriptions (tiles, lists of facts), code left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag in ("td", "dd") and not {"td", "dd"} & set(self.open):
            self.texts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: object) -> None:
        pass

    def handle_endtag(self, _: str) -> None:
        self.open.pop()

    def handle_data(self, text: str) -> None:
        if {"td", "dd"} & set(self.open) and not {"code", "pre"} & set(self.open):
            self.texts[-1] += text


def leaves_of(value: object) -> list[object]:
    """Numbers and texts of a nested value, keys among them."""
    if isinstance(value, dict):
        return [leaf for pair in value.items() for part in pair for leaf in leaves_of(part)]
    return [leaf for part in value for leaf in leaves_of(part)] if isinstance(value, list) else [value]


def sources_of(root: Path, parameters: dict) -> tuple[set[float], str]:
    """Every number in metrics, tables, cards and parameters; and every text there, in which a number may be a name."""
    places = ("reports/metrics/**/*.json", "reports/data/*.json", "models/*/rung.json")
    values = [json.loads(file.read_text()) for place in places for file in root.glob(place)]
    leaves = leaves_of([*values, parameters])
    tables = " ".join(file.read_text() for file in root.glob("reports/tables/**/*.tsv"))
    numbers = {float(leaf) for leaf in leaves if isinstance(leaf, int | float)}
    numbers |= {float(word) for word in tables.split() if re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", word)}
    numbers |= {float(sum(value["dropped"].values())) for value in values if value.get("dropped")}
    locked = (root / "requirements.txt").read_text() if (root / "requirements.txt").is_file() else ""
    texts = [leaf for leaf in leaves if isinstance(leaf, str)]
    return {number for number in numbers if math.isfinite(number)} | shortfalls_in(root, parameters), " ".join(
        [*texts, locked]
    )


def shortfalls_in(root: Path, parameters: dict) -> set[float]:
    """What each threshold comes to, how far the metric is from it, and how many times the floor it is."""
    found: set[float | None] = set()
    for name, rung in parameters["rungs"].items():
        thresholds = {metric: Threshold(**limit) for metric, limit in rung["quality"].items()}
        for each in checks(measured_numbers(root, name), thresholds):
            found |= {each.threshold, each.shortfall, each.multiple}
    return {number for number in found if number is not None}


def parsed(text: str) -> tuple[float, float]:
    """A printed number, and half of what its last digit is worth."""
    mantissa, _, power = text.replace("−", "-").replace(",", "").partition(" × 10")
    scale = 10.0 ** int(power.translate(SUPERSCRIPTS)) if power else 1.0
    return float(mantissa) * scale, 0.5 * scale * 10.0 ** -len(mantissa.partition(".")[2])


def is_printed_form_of(text: str, value: float) -> bool:
    """Whether a number is printed so, rounded as far as it is."""
    shown, half_a_digit = parsed(text)
    return abs(shown - value) <= half_a_digit * (1 + 1e-9)


def untraced(html: str, root: Path, parameters: dict, names: str = "") -> list[str]:
    """The cells with a number that is neither the rounded form of a known one nor part of a known text."""
    numbers, texts = sources_of(root, parameters)
    words = set(NUMBER.findall(f"{texts} {names}"))
    found = []
    for cell in {" ".join(text.split()) for text in Cells(html).texts}:
        for match in NUMBER.finditer(cell):
            unit = UNITS.get(cell[match.end() :].strip().split(" ")[0].rstrip(",;."), 1)
            if match[0] in words or any(is_printed_form_of(match[0], number / unit) for number in numbers):
                continue
            found.append(f"{match[0]} in {cell}")
    return sorted(found)


def parameters_in(root: Path) -> dict:
    """params.yaml as plain values."""
    return yaml.safe_load((root / "params.yaml").read_text())
