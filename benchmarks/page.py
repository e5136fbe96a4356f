"""Writes benchmarks/README.md and docs/reliability.md from templates and results: python benchmarks/page.py."""

import json
from pathlib import Path
from typing import Any

import jinja2

from diffusion_ladder.foundation.artifacts import write_text

FOLDER = Path(__file__).parent
RELIABILITY = "docs/reliability.md"
KINDS = {
    "trainings": "training",
    "profiles": "profile",
    "digits": "digits",
    "streams": "streaming",
    "peers": "peers",
    "samplings": "sampling",
    "growths": "growth",
    "full_sizes": "full_size",
}
FAULTS = {"kills": "soak-kills", "disks": "soak-disk", "around": "soak-around", "fuzz": "soak-fuzz"}
JUDGES = {"own": "the project's own judge", "second": "the second judge", "random": "random convolutions"}


def load(results: Path, kind: str) -> list[dict[str, Any]]:
    """The results of a kind, such as training or profile, by file name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(results.glob(f"{kind}*.json"))]


def machine_name(facts: dict[str, Any]) -> str:
    """The machine in words."""
    if facts["device"] == "cuda":
        return f"{facts['name']}, PyTorch {facts['torch']}"
    instructions = "AMX" if facts["amx"] else "AVX512-BF16, no AMX" if facts["avx512_bf16"] else "no bf16 instructions"
    return f"{facts['name']} ({instructions}), {facts['threads']} threads, PyTorch {facts['torch']}"


def bend(growth: dict[str, Any]) -> str:
    """Whether a line is straight, or the exponents of its two halves."""
    return "yes" if growth["straight"] else "no: " + ", then ".join(f"{exponent:.2f}" for exponent in growth["between"])


def ahead(result: dict[str, Any]) -> list[str]:
    """By every judge, our shortest training beside the best of the peers' longest ones."""
    labelled = next(run for run in result["runs"] if run["ours"])
    longest = max(run["budget"] for run in result["runs"])
    peers = [run for run in result["runs"] if not run["ours"] and run["budget"] == longest]
    lines = []
    for judge, name in JUDGES.items() if peers else ():
        best = min(peers, key=lambda run: run["distances"][judge])
        mine, theirs = labelled["distances"][judge], best["distances"][judge]
        where = "ahead of" if mine < theirs else "behind"
        lines.append(
            f"By {name}, ours after {labelled['budget']:g} s is {where} the best peer after {longest:g} s:"
            f" {mine:.2f} against {theirs:.2f} ({best['recipe']})."
        )
    return lines


def render(results: Path, template: str = "page.md.j2") -> str:
    """A page as Markdown."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"machine_name": machine_name, "bend": bend, "ahead": ahead}
    found = {name: load(results, kind) for name, kind in (KINDS | FAULTS).items()}
    return environment.get_template(template).render(found) + "\n"


def write(results: Path) -> None:
    """Write README.md beside the folder of the results."""
    write_text(results.parent / "README.md", render(results))


if __name__ == "__main__":
    write(FOLDER / "results")
    write_text(FOLDER.parent / RELIABILITY, render(FOLDER / "results", "reliability.md.j2"))
