"""Draw the figures of one data set's card: python stages/render_data.py DATASET."""

from itertools import islice
from pathlib import Path

import safetensors
import torch
from PIL import Image
from torch import Tensor

from diffusion_ladder.data.portraits.decoding import decode_image
from diffusion_ladder.data.portraits.portrait_table import FILE_NAME, filtered_batches
from diffusion_ladder.figures.canvas import house_style, missing_letters
from diffusion_ladder.figures.data import exhibits
from diffusion_ladder.foundation.artifacts import read_json, write_bytes, write_json
from diffusion_ladder.foundation.runtime import Stage, run_stage

CROPPED_PICTURES = 6  # shown before and after


def first_examples(path: Path, classes: int, count: int) -> list[Tensor]:
    """The first training examples of each class, `count` in all; only these are read."""
    with safetensors.safe_open(path, framework="pt") as file:
        labels, rows = file.get_tensor("train_labels"), file.get_slice("train")
        chosen = [(labels == label).nonzero().flatten()[: count // classes].tolist() for label in range(classes)]
        return [torch.stack([rows[index] for index in part]) if part else torch.empty(0) for part in chosen]


def cropped_pictures(path: Path) -> list[Image.Image]:
    """The first portraits that are not square, as they came."""
    pictures = (decode_image(data) for rows in filtered_batches(path) for data, _ in rows)
    return list(islice((picture for picture in pictures if picture.width != picture.height), CROPPED_PICTURES))


def main(stage: Stage) -> None:
    """Write reports/data/DATASET/: the figures, then captions.json, which lists them."""
    dataset, card = f"datasets.{stage.key}", read_json(f"reports/data/{stage.key}.json")
    if complaint := missing_letters(card["class_names"]):
        print(f"{stage.label}: {complaint}", flush=True)
    count = stage.parameter(f"{dataset}.examples", int)
    examples = first_examples(Path(f"data/processed/{stage.key}.safetensors"), len(card["class_names"]), count)
    filtered = Path("data/interim") / stage.key / "filtered" / FILE_NAME
    # Only the faces have a filter of their own, whose rows are kept as they came.
    pictures = cropped_pictures(filtered) if filtered.is_file() and card["pictures"]["cropped"] else []
    captions = []
    with house_style():
        for exhibit in exhibits(examples, pictures, card):
            write_bytes(f"reports/data/{stage.key}/{exhibit.file}", exhibit.content)
            captions.append(exhibit.entry())
    write_json(f"reports/data/{stage.key}/captions.json", captions)


if __name__ == "__main__":
    run_stage(main)
