"""Keep the portraits whose gender has a label and whose image can be decoded: python stages/filter_gender.py."""

from pathlib import Path

from diffusion_ladder.artifacts import read_json, write_json
from diffusion_ladder.data.portrait_table import FILE_NAME, filter_portraits
from diffusion_ladder.runtime import Stage, run_stage

RAW, FILTERED = Path("data/raw/faces"), Path("data/filtered/faces")


def main(stage: Stage) -> None:
    """Write data/filtered/faces/: portraits.parquet (image, label), and card.json with what was dropped and why."""
    counts = filter_portraits(RAW / FILE_NAME, stage.parameter("datasets.faces.labels"), FILTERED / FILE_NAME)
    card = {"rows_in": counts.rows_in, "dropped": counts.dropped, "kept": counts.kept}
    write_json(FILTERED / "card.json", {**read_json(RAW / "card.json"), **card})
    print(f"{counts.rows_in} rows in, {sum(counts.kept.values())} kept")
    for index, count in sorted(counts.kept.items()):
        print(f"  class {index}: {count}")
    for reason, count in sorted(counts.dropped.items()):
        print(f"  dropped, {reason}: {count}")


if __name__ == "__main__":
    run_stage(main)
