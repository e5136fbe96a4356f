"""Keep the portraits whose label has a class and whose image can be decoded: python stages/filter_gender.py."""

from pathlib import Path

from diffusion_ladder.data.portraits.portrait_table import FILTERED, filter_raw
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import validated
from diffusion_ladder.params.datasets import LabelFilter

RAW, FILTERED_FACES = Path("data/raw/faces"), Path("data/interim/faces") / FILTERED


def main(stage: Stage) -> None:
    """Write data/interim/faces/filtered/: portraits.parquet, dropped.tsv, and card.json: what was dropped, and why."""
    keys = LabelFilter.model_fields
    section = "datasets.faces.preprocess"
    settings = validated(LabelFilter, {name: stage.parameter(f"{section}.{name}", object) for name in keys}, section)
    counts = filter_raw(RAW, FILTERED_FACES, settings)
    print(f"{counts.rows_in} rows in, {sum(counts.kept.values())} kept")
    for index, count in counts.kept.items():
        print(f"  class {index}: {count}")
    for reason, count in sorted(counts.dropped.items()):
        print(f"  dropped, {reason}: {count}")


if __name__ == "__main__":
    run_stage(main)
