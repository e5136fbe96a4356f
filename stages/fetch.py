"""Get the raw data of one data set from its source: python stages/fetch.py DATASET."""

import shutil
from pathlib import Path
from typing import Any

from diffusion_ladder.data.kinds import kind_of_data
from diffusion_ladder.data.user_paths import refuse_collisions
from diffusion_ladder.foundation.artifacts import partial, write_json
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import validated
from diffusion_ladder.params.datasets import given_paths

RAW, INTERIM = Path("data/raw"), Path("data/interim")


def main(stage: Stage) -> None:
    """Write data/raw/DATASET/, the source's files and card.json, and the card to data/interim/DATASET/ as well.

    DVC leaves the old folder to this stage, which replaces it when the new one is whole.
    """
    dataset = f"datasets.{stage.key}"
    kind, source = stage.parameter(f"{dataset}.kind", str), stage.parameter(f"{dataset}.source", str)
    module, key = kind_of_data(kind), f"{dataset}.sources.{source}"
    settings = validated(module.SOURCES[source], stage.parameter(key, dict[str, Any]), key)
    given = {f"{key}.{name}": paths for name, paths in given_paths(settings).items()}
    refuse_collisions(given, [str(RAW), str(INTERIM)])  # with `-s`, check_params has not looked
    folder = RAW / stage.key
    temporary = partial(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        card = module.fetch(source, settings, stage.parameter("seed", int), temporary)
        for place in (temporary, INTERIM / stage.key):
            write_json(place / "card.json", {"dataset": stage.key, "kind": kind, **card})
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{card['title']}: {card['rows']} rows from {source}, licence {card['licence']}")


if __name__ == "__main__":
    run_stage(main)
