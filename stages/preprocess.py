"""Turn a data set into normalised train and test splits: python stages/preprocess.py DATASET."""

from pathlib import Path

from diffusion_ladder.artifacts import read_json, write_json, write_tensors
from diffusion_ladder.data import digits, points, portraits
from diffusion_ladder.runtime import Stage, run_stage

KINDS = {"points": points, "digits": digits, "portraits": portraits}


def main(stage: Stage) -> None:
    """Write data/processed/DATASET.safetensors and the data card, reports/data/DATASET.json."""
    dataset = f"datasets.{stage.key}"
    kind, settings = stage.parameter(f"{dataset}.kind"), stage.parameter(f"{dataset}.preprocess")
    folder = Path("data") / settings.input / stage.key
    splits = KINDS[kind].preprocess(folder, settings)
    write_tensors(f"data/processed/{stage.key}.safetensors", splits.tensors(), splits.metadata(stage.key, kind))
    write_json(f"reports/data/{stage.key}.json", {**read_json(folder / "card.json"), **splits.card()})
    for name, labels in (("train", splits.train_labels), ("test", splits.test_labels)):
        print(f"{name}: {len(labels)} rows")


if __name__ == "__main__":
    run_stage(main)
