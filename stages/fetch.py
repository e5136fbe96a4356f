"""Get the raw data of one data set from its source: python stages/fetch.py DATASET."""

from pathlib import Path

from diffusion_ladder.artifacts import write_json
from diffusion_ladder.data import digits, points, portraits
from diffusion_ladder.runtime import Stage, run_stage

KINDS = {"points": points, "digits": digits, "portraits": portraits}


def main(stage: Stage) -> None:
    """Write data/raw/DATASET/: the source's files and card.json."""
    dataset = f"datasets.{stage.key}"
    kind, source = stage.parameter(f"{dataset}.kind"), stage.parameter(f"{dataset}.source")
    settings = stage.parameter(f"{dataset}.sources.{source}")
    folder = Path("data/raw") / stage.key
    card = KINDS[kind].fetch(source, settings, stage.parameter("seed"), folder)
    write_json(folder / "card.json", {"dataset": stage.key, "kind": kind, **card})
    print(f"{card['title']}: {card['rows']} rows from {source}, licence {card['licence']}")


if __name__ == "__main__":
    run_stage(main)
