"""Times how portraits stream through filter_gender and preprocess: python benchmarks/streaming.py [--rows N...].

Each stage runs in a process of its own over generated portraits of 421 x 632 pixels in parquet shards, and so does its
peer: decoding, cropping and resizing alone, by as many threads, of images that are already in memory. Processor time
is given beside wall time, because other work on the machine hardly changes it. Results go to
benchmarks/results/streaming.json.
"""

import argparse
import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image
from processes import measure, measured

from diffusion_ladder.data.portraits.dataset import preprocess
from diffusion_ladder.data.portraits.decoding import decode_image, to_pixels, to_square
from diffusion_ladder.data.portraits.parallel import available_cores, map_in_order
from diffusion_ladder.data.portraits.portrait_table import filter_portraits
from diffusion_ladder.foundation.artifacts import write_json, write_tensors
from diffusion_ladder.foundation.runtime import processor_name
from diffusion_ladder.params.datasets import LabelFilter, PortraitsPreprocess

RESULTS = Path("benchmarks/results/streaming.json")
SIZE = (421, 632)
SHARD_ROWS = 5000
GROUP_ROWS = 500
DIFFERENT_IMAGES = 200  # repeated: to decode an image again is as much work as another one
PEER_ROWS = 2000  # at most, decoded by the peer
LABELS = LabelFilter(label_column="gender", labels={1: 0, 2: 1}, max_pixels=25_000_000, max_unusable_share=0.1)
PREPROCESS = PortraitsPreprocess(
    **LABELS.model_dump(), test_fraction=0.2, image_size=64, crop="top", channels=3, class_names=["female", "male"]
)


def jpeg(number: int) -> bytes:
    """A portrait-sized picture of smooth noise: some 45 kB, as photographs of that size have."""
    random = numpy.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (SIZE[1] // 12, SIZE[0] // 12, 3), dtype=numpy.uint8))
    picture = io.BytesIO()
    coarse.resize(SIZE, Image.Resampling.BICUBIC).save(picture, "JPEG", quality=75)
    return picture.getvalue()


def write_shards(folder: Path, rows: int) -> None:
    """Write parquet files with the columns image and gender: half female, half male."""
    folder.mkdir(parents=True)
    pictures = [jpeg(number) for number in range(DIFFERENT_IMAGES)]
    for first in range(0, rows, SHARD_ROWS):
        numbers = range(first, min(first + SHARD_ROWS, rows))
        images = [{"bytes": pictures[number % DIFFERENT_IMAGES], "path": f"{number}.jpg"} for number in numbers]
        table = pyarrow.table({"image": images, "gender": [1 + number % 2 for number in numbers]})
        path = folder / f"portraits-{first // SHARD_ROWS:05d}.parquet"
        pyarrow.parquet.write_table(table, path, row_group_size=GROUP_ROWS, compression="NONE")


def shards_of(folder: Path) -> list[Path]:
    """The shards below a folder, in their order."""
    return sorted((folder / "raw").glob("*.parquet"))


def run_filter(folder: Path) -> int:
    """What filter_gender does."""
    return filter_portraits(shards_of(folder), LABELS, folder / "filtered").rows_in


def run_preprocess(folder: Path) -> int:
    """What preprocess does."""
    splits = preprocess(folder / "filtered", PREPROCESS)
    write_tensors(folder / "processed.safetensors", splits.tensors(), splits.metadata("faces", "portraits"))
    return sum(part["rows"] for part in splits.card()["splits"].values())


def square(data: bytes) -> numpy.ndarray:
    """Decode, crop and resize one image."""
    picture = to_square(decode_image(data), PREPROCESS.image_size, PREPROCESS.crop)
    return to_pixels(picture, PREPROCESS.channels)


def run_peer(folder: Path) -> int:
    """Decode, crop and resize images in memory, and do nothing else."""
    images = pyarrow.parquet.read_table(shards_of(folder)[0])["image"].to_pylist()[:PEER_ROWS]
    return sum(1 for _ in map_in_order(square, (image["bytes"] for image in images)))


TASKS: dict[str, Callable[[Path], int]] = {"filter": run_filter, "preprocess": run_preprocess, "peer": run_peer}


def in_own_process(task: str, folder: Path) -> dict[str, Any]:
    """What a task took."""
    return measured(__file__, "--measure", task, str(folder))


def measurements(rows: int, scratch: Path) -> dict[str, Any]:
    """Both stages and their peer, which runs before and after them."""
    folder = scratch / str(rows)
    write_shards(folder / "raw", rows)
    peers = [in_own_process("peer", folder)]
    stages = {task: in_own_process(task, folder) for task in ("filter", "preprocess")}
    peers.append(in_own_process("peer", folder))
    shutil.rmtree(folder)
    assert all(stage["rows"] == rows for stage in stages.values())
    figures: dict[str, Any] = {"rows": rows, "stages": stages, "peer": peers}
    for kind in ("seconds", "processor_seconds"):
        ours = sum(stage[kind] / rows for stage in stages.values())
        alone = sum(peer[kind] for peer in peers) / sum(peer["rows"] for peer in peers)
        figures |= {f"{kind}_per_row": ours, f"peer_{kind}_per_row": alone, f"{kind}_ratio": ours / alone}
    return figures


def summaries(results: list[dict[str, Any]]) -> Iterator[str]:
    """The results in lines."""
    for figures in results:
        peaks = ", ".join(f"{name} {stage['peak_mib']:.0f} MiB" for name, stage in figures["stages"].items())
        yield (
            f"{figures['rows']} rows: {1 / figures['seconds_per_row']:.0f} rows/s through both stages,"
            f" {figures['seconds_ratio']:.2f} times the peer's wall time,"
            f" {figures['processor_seconds_ratio']:.2f} times its processor time; peak memory: {peaks}"
        )


def main() -> None:
    """Measure every size, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--scratch", type=Path, help="where there is room for twice the images; a temporary folder")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        task, folder = options.measure
        print(json.dumps(measure(lambda: functools.partial(TASKS[task], Path(folder)))))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        results = [measurements(rows, Path(scratch)) for rows in options.rows]
    machine = {"name": processor_name(), "cores": available_cores()}
    write_json(options.results, {"machine": machine, "image_size": SIZE, "sizes": results})
    print("\n".join(summaries(results)))


if __name__ == "__main__":
    main()
