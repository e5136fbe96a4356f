"""Turn a data set into normalised train and test splits: python stages/preprocess.py DATASET."""

from pathlib import Path

from diffusion_ladder.data.kinds import kind_of_data
from diffusion_ladder.foundation.artifacts import read_json, write_json, write_tensors
from diffusion_ladder.foundation.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Write data/processed/DATASET.safetensors, and the data card for the report and for the judge."""
    dataset = f"datasets.{stage.key}"
    kind = stage.parameter(f"{dataset}.kind", str)
    module = kind_of_data(kind)
    settings = stage.parameter(f"{dataset}.preprocess", module.PREPROCESS)
    with module.kept_rows(Path("data/raw") / stage.key, Path("data/interim") / stage.key, settings) as folder:
        splits, card = module.preprocess(folder, settings), read_json(folder / "card.json")
        write_tensors(f"data/processed/{stage.key}.safetensors", splits.tensors(), splits.metadata(stage.key, kind))
    for path in (f"reports/data/{stage.key}.json", f"data/judges/{stage.key}/card.json"):
        write_json(path, {**card, **splits.card()})
    for name, labels in (("train", splits.train_labels), ("test", splits.test_labels)):
        print(f"{name}: {len(labels)} rows")


if __name__ == "__main__":
    run_stage(main)
