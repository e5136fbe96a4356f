"""Takes a data set of the hub's size through the full preset's stages: python benchmarks/full_size.py.

10,000 generated portraits of 421 x 632 pixels, with the hub's columns, go through `dvc repro` in a scratch copy of the
project: fetch, filter_gender, preprocess and some training steps of the full network, one preview at their end. What
each stage took is what its own run record says. Results go to benchmarks/results/ under the machine's name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import page
import pyarrow
import pyarrow.parquet
import torch
from streaming import DIFFERENT_IMAGES, GROUP_ROWS, SIZE, jpeg

from diffusion_ladder.data.portraits.dataset import COLUMNS
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.section import dump_yaml, load_yaml

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results")
STAGES = ["fetch@faces", "filter_gender", "preprocess@faces", "train@faces"]
GENDERS = (2, 1, 2, 1, 2, 1, 2, 0, 1, 3)  # repeated: some have no class and are dropped
EXAMPLES = {"bool": False, "string": "", "int64": 0, "float64": 0.0}


def table(rows: int) -> pyarrow.Table:
    """Portraits with every column that the hub's file has; the images repeat, and no two rows are the same file."""
    pictures = [jpeg(number) for number in range(min(rows, DIFFERENT_IMAGES))]
    columns: dict[str, Any] = {name: [EXAMPLES.get(kind)] * rows for name, kind in COLUMNS.items()}
    columns["id"] = list(range(rows))
    columns["gender"] = [GENDERS[number % len(GENDERS)] for number in range(rows)]
    # What follows a JPEG's end is ignored: each file is another one, as decoders see it the same.
    columns["image"] = [
        {"bytes": pictures[number % len(pictures)] + number.to_bytes(4, "big"), "path": f"{number}.jpg"}
        for number in range(rows)
    ]
    return pyarrow.table(columns)


def scratch_project(folder: Path, portraits: Path, preset: str, steps: int) -> dict[str, Any]:
    """A copy of the project with the preset, these portraits and so many steps; the parameters of its portraits."""
    copy = [sys.executable, "-m", "diffusion_ladder.presets", preset, "--copy", str(folder)]
    subprocess.run(copy, cwd=PROJECT, check=True)
    parameters = load_yaml(folder / "params.yaml")
    faces = parameters["datasets"]["faces"]
    faces["source"], faces["sources"]["parquet"]["path"] = "parquet", str(portraits)
    rung = parameters["rungs"]["faces"]
    rung["training"] |= {"steps": steps, "log_every": 1}
    rung["previews"]["at"] = [1.0]
    (folder / "params.yaml").write_text(dump_yaml(parameters), encoding="utf-8")
    return rung


def build(folder: Path) -> None:
    """Run the stages as DVC runs them; a failure there is one here."""
    variables = os.environ | {"PYTHONPATH": "src", "DVC_NO_ANALYTICS": "1"}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro", STAGES[-1]]
    ran = subprocess.run(command, cwd=folder, env=variables, check=False)
    if ran.returncode:
        sys.exit(f"dvc repro {STAGES[-1]} failed in the scratch copy: its own lines stand above")


def record(folder: Path, stage: str) -> dict[str, Any]:
    """What a stage's run record says of it."""
    found = json.loads((folder / f"reports/run/{stage}.json").read_text("utf-8"))
    wanted = ("stage", "seconds", "peak_memory_mib", "precision", "work")
    return {key: found[key] for key in wanted if key in found}


def measure(rows: int, preset: str, steps: int, scratch: Path) -> dict[str, Any]:
    """Build in a scratch folder; what each stage took."""
    portraits, project = scratch / "portraits.parquet", scratch / "project"
    pyarrow.parquet.write_table(table(rows), portraits, row_group_size=GROUP_ROWS, compression="NONE")
    rung = scratch_project(project, portraits, preset, steps)
    build(project)
    card = json.loads((project / "reports/data/faces.json").read_text("utf-8"))
    model = json.loads((project / "models/faces/rung.json").read_text("utf-8"))
    return {
        "preset": preset,
        "rows": rows,
        "image_size": SIZE,
        "bytes": portraits.stat().st_size,
        "kept": sum(part["rows"] for part in card["splits"].values()),
        "steps": steps,
        "batch_size": rung["training"]["batch_size"],
        "parameters": model["parameters"],
        "stages": [record(project, stage) for stage in STAGES],
    }


def main() -> None:
    """Measure, and write results and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--preset", default="full", help="an overlay on params.yaml")
    parser.add_argument("--scratch", type=Path, help="with room for four times the images; a temporary folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        found = measure(options.rows, options.preset, options.steps, Path(scratch))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(load_yaml("params.yaml")["runtime"]["threads"])
    facts = machine.facts(device)
    write_json(options.results / f"full_size-{machine.file_name(facts)}.json", {"machine": facts, **found})
    page.write(options.results)
    for stage in found["stages"]:
        print(f"{stage['stage']}: {stage['seconds']:.1f} s, {stage['peak_memory_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
