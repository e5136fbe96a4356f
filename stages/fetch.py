"""Get the raw data of one data set from its source: python stages/fetch.py DATASET."""

from pathlib import Path
from typing import Any

from diffusion_ladder.data.kinds import kind_of_data
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import validated


def main(stage: Stage) -> None:
    """Write data/raw/DATASET/, the source's files and card.json, and the card to data/interim/DATASET/ as well."""
    dataset = f"datasets.{stage.key}"
    kind, source = stage.parameter(f"{dataset}.kind", str), stage.parameter(f"{dataset}.source", str)
    module, key = kind_of_data(kind), f"{dataset}.sources.{source}"
    settings = validated(module.SOURCES[source], stage.parameter(key, dict[str, Any]), key)
    card = module.fetch(source, settings, stage.parameter("seed", int), Path("data/raw") / stage.key)
    for folder in ("data/raw", "data/interim"):
        write_json(f"{folder}/{stage.key}/card.json", {"dataset": stage.key, "kind": kind, **card})
    print(f"{card['title']}: {card['rows']} rows from {source}, licence {card['licence']}")


if __name__ == "__main__":
    run_stage(main)
