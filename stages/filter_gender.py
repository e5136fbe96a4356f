"""Keep the portraits whose label has a class and whose image can be decoded: python stages/filter_gender.py."""

from pathlib import Path

from diffusion_ladder.artifacts import read_json, write_json
from diffusion_ladder.data.portrait_table import filter_portraits
from diffusion_ladder.params import LabelFilter
from diffusion_ladder.runtime import Stage, run_stage

RAW, FILTERED = Path("data/raw/faces"), Path("data/filtered/faces")


def main(stage: Stage) -> None:
    """Write data/filtered/faces/: portraits.parquet, dropped.tsv, and card.json with what was dropped and why."""
    settings = LabelFilter(**{name: stage.parameter(f"datasets.faces.{name}") for name in LabelFilter.model_fields})
    raw = read_json(RAW / "card.json")
    counts = filter_portraits([RAW / file["name"] for file in raw["files"]], settings, FILTERED)
    write_json(FILTERED / "card.json", {**raw, **counts.card(settings)})
    print(f"{counts.rows_in} rows in, {sum(counts.kept.values())} kept")
    for index, count in counts.kept.items():
        print(f"  class {index}: {count}")
    for reason, count in sorted(counts.dropped.items()):
        print(f"  dropped, {reason}: {count}")


if __name__ == "__main__":
    run_stage(main)
