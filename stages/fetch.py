"""Get the raw data of one data set from its source: python stages/fetch.py DATASET."""

import shutil
from pathlib import Path
from typing import Any

from diffusion_ladder.data.kinds import kind_of_data
from diffusion_ladder.data.user_paths import collision
from diffusion_ladder.foundation.artifacts import partial, write_json
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import Section, validated
from diffusion_ladder.params.datasets import given_paths

RAW, INTERIM = Path("data/raw"), Path("data/interim")


def refuse_own_outputs(key: str, settings: Section) -> None:
    """Refuse a source in the folders that this stage empties: without the stage check_params nobody else has looked.

    Raises:
        ParameterError: a path of the source lies there.
    """
    for name, paths in given_paths(settings).items():
        if complaint := collision(paths, [str(RAW), str(INTERIM)]):
            raise ParameterError(f"params.yaml: {key}.{name}: {complaint}")


def main(stage: Stage) -> None:
    """Write data/raw/DATASET/, the source's files and card.json, and the card to data/interim/DATASET/ as well.

    DVC leaves the old folder to this stage, which replaces it when the new one is whole.
    """
    dataset = f"datasets.{stage.key}"
    kind, source = stage.parameter(f"{dataset}.kind", str), stage.parameter(f"{dataset}.source", str)
    module, key = kind_of_data(kind), f"{dataset}.sources.{source}"
    settings = validated(module.SOURCES[source], stage.parameter(key, dict[str, Any]), key)
    refuse_own_outputs(key, settings)
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
