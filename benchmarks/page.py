"""Writes benchmarks/README.md and docs/reliability.md from templates and results: python benchmarks/page.py."""

import json
from pathlib import Path
from typing import Any

import jinja2

from diffusion_ladder.artifacts import write_text

FOLDER = Path(__file__).parent
RELIABILITY = "docs/reliability.md"
KINDS = {"trainings": "training", "profiles": "profile", "digits": "digits", "streams": "streaming"}
FAULTS = {"kills": "soak-kills", "disks": "soak-disk", "around": "soak-around", "fuzz": "soak-fuzz"}


def load(results: Path, kind: str) -> list[dict[str, Any]]:
    """The results of a kind, by file name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(results.glob(f"{kind}*.json"))]


def machine_name(facts: dict[str, Any]) -> str:
    """The machine in words."""
    if facts["device"] == "cuda":
        return f"{facts['name']}, PyTorch {facts['torch']}"
    instructions = "AMX" if facts["amx"] else "AVX512-BF16, no AMX" if facts["avx512_bf16"] else "no bf16 instructions"
    return f"{facts['name']} ({instructions}), {facts['threads']} threads, PyTorch {facts['torch']}"


def render(results: Path, template: str = "page.md.j2") -> str:
    """A page as Markdown."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["machine_name"] = machine_name
    found = {name: load(results, kind) for name, kind in (KINDS | FAULTS).items()}
    return environment.get_template(template).render(found) + "\n"


def write(results: Path) -> None:
    """Write README.md beside the folder of the results."""
    write_text(results.parent / "README.md", render(results))


if __name__ == "__main__":
    write(FOLDER / "results")
    write_text(FOLDER.parent / RELIABILITY, render(FOLDER / "results", "reliability.md.j2"))
