"""docs/adding-a-rung.md, followed to the letter in a copy of the smoke build: its YAML in params.yaml, its commands."""

import functools
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy
import pytest
import yaml
from conftest import PROJECT, run
from PIL import Image

from diffusion_ladder.data.digits.dataset import file_in, hash_content
from diffusion_ladder.data.digits.mnist_family import layout_of
from diffusion_ladder.evaluation.findings import TEXT_COLUMNS
from diffusion_ladder.foundation.artifacts import read_json, read_table
from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.overlays import for_each_rung, laid_over
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.whole import validate
from diffusion_ladder.presets import load_preset

PAGE = PROJECT / "docs/adding-a-rung.md"
PETS = ("cats", "dogs", "rabbits")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def sections() -> dict[str, str]:
    """The page's two walks by the name of their rung."""
    _, fashion, pets = re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))
    return {"fashion": fashion, "pets": pets}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def added(text: str) -> dict:
    """What a walk adds to params.yaml, all of its blocks together."""
    return functools.reduce(merge, map(yaml.safe_load, blocks(text, "yaml")))


def idx(array: numpy.ndarray) -> bytes:
    """An IDX file of bytes, written from the format's definition."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(numpy.uint8).tobytes()


def write_clothes(folder: Path) -> None:
    """A few random pictures of ten classes, as FashionMNIST's four files."""
    random = numpy.random.default_rng(0)
    folder.mkdir()
    for part, count in (("train", 200), ("t10k", 100)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(numpy.arange(count, dtype=numpy.uint8) % 10))


def write_pets(folder: Path) -> None:
    """A hundred noisy pictures in a colour of their own for each class, higher than wide; and one of no class."""
    random = numpy.random.default_rng(1)
    for label, name in enumerate(PETS):
        (folder / name).mkdir(parents=True)
        for number in range(110):
            pixels = random.integers(0, 100, (30, 20, 3), dtype=numpy.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "hamsters").mkdir()
    shutil.copy(folder / "cats/0.png", folder / "hamsters/0.png")


def tracked(folder: Path) -> dict[str, bytes]:
    """What nobody had to touch: the project's own files."""
    names = ("dvc.yaml", "Makefile", "README.md", "presets", "src", "stages", "tests")
    paths = [path for name in names for path in [folder / name, *(folder / name).rglob("*")]]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def walked(smoke, tmp_path_factory) -> Path:
    """A copy of the smoke build in which both walks have been followed, made small by the preset that names neither."""
    folder = tmp_path_factory.mktemp("walked") / "project"
    shutil.copytree(smoke, folder)
    before = tracked(folder), (folder / "reports/run/train@circles.json").read_bytes()
    write_clothes(folder / "fashion_files")
    write_pets(folder / "my_pictures")
    for rung, text in sections().items():
        values = merge(load_yaml(folder / "params.yaml"), added(text))
        values = laid_over(values, for_each_rung(load_preset("smoke"), values))
        values = laid_over(values, {"classifiers": {rung: {"steps": 5, "min_accuracy": 0.0}}})
        if rung == "fashion":  # files that stand in for the published ones are taken by their hash
            files = [file_in(folder / "fashion_files", name) for name in layout_of("FashionMNIST", None).names()]
            values["datasets"][rung]["sources"]["torchvision"]["sha256"] = hash_content(files)
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        for command in "".join(blocks(text, "sh")).splitlines():
            ran = run(shlex.split(command), folder)
            assert ran.returncode == 0, (command, (ran.stdout + ran.stderr)[-3000:])
    assert (tracked(folder), (folder / "reports/run/train@circles.json").read_bytes()) == before
    return folder


def test_the_page_has_a_rung_of_at_most_sixty_lines_in_each_walk():
    for rung, text in sections().items():
        assert [*added(text)["rungs"]] == [*added(text)["datasets"]] == [*added(text)["classifiers"]] == [rung]
        block = blocks(text, "yaml")[0].partition("rungs:\n")[2]
        assert 20 < len(block.splitlines()) <= 60


@pytest.mark.parametrize("rung", ["fashion", "pets"])
def test_the_blocks_of_the_page_fit_the_parameters_and_every_preset(rung):
    values = merge(load_yaml("params.yaml"), added(sections()[rung]))
    for preset in ("default", "smoke", "hour", "full"):
        made = laid_over(values, for_each_rung(load_preset(preset), values)) if preset != "default" else values
        check_consistency(validate(made))


@pytest.mark.slow
@pytest.mark.parametrize(("rung", "classes"), [("fashion", CLOTHES), ("pets", ("cat", "dog", "rabbit"))])
def test_a_rung_of_the_page_has_all_that_a_rung_has(walked, rung, classes):
    numbers = read_json(walked / f"reports/metrics/{rung}.json")
    assert 0 <= numbers["label_accuracy"] <= 1
    assert numbers["extractor"] == f"{rung} classifier"
    confusion = read_table(walked / f"reports/tables/{rung}/confusion.tsv", TEXT_COLUMNS)
    assert [row["judged"] for row in confusion[: len(classes)]] == [*classes]
    assert len(confusion) == len(classes) ** 2
    figures = {entry["file"] for entry in read_json(walked / f"reports/figures/{rung}/captions.json")}
    assert {"samples.png", "comparison.png", "reverse.png", "confusion.png", "guidance.png"} <= figures
    assert all((walked / f"reports/figures/{rung}" / file).is_file() for file in figures)
    card = read_json(walked / f"reports/data/{rung}.json")
    assert card["class_names"] == [*classes]


@pytest.mark.slow
def test_the_report_has_a_chapter_for_each_rung_of_the_page(walked):
    text = (walked / "reports/README.md").read_text(encoding="utf-8")
    assert "the smoke preset with" in text
    for title in ("FashionMNIST by class", "My pets"):
        assert title in text
    assert "The label of cat, dog, rabbit is the folder that a picture lay in" in text


@pytest.mark.slow
def test_pictures_of_no_class_are_dropped_and_counted(walked):
    card = read_json(walked / "reports/data/pets.json")
    assert card["rows_in"] == 331
    assert card["dropped"] == {'folder "hamsters"': 1}
    assert sum(card["kept"].values()) == 330


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rung", "change", "stage", "complaint"),
    [
        ("pets", {"sources": {"imagefolder": {"path": "nowhere"}}}, "fetch", "sources.imagefolder.path: there is no"),
        ("pets", {"preprocess": {"labels": {"dogs": 0, "birds": 1}}}, "preprocess", "preprocess.labels"),
        ("fashion", {"sources": {"torchvision": {"root": "nowhere"}}}, "fetch", "sources.torchvision.root: train-"),
    ],
)
def test_a_complaint_names_the_data_set(walked, tmp_path, rung, change, stage, complaint):
    folder = tmp_path / "project"
    shutil.copytree(walked, folder)
    values = merge(load_yaml(folder / "params.yaml"), {"datasets": {rung: change}})
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    ran = run([sys.executable, f"stages/{stage}.py", rung], folder, PYTHONPATH="src")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith(f"{stage}@{rung}: ")
    assert complaint in ran.stderr.splitlines()[-1]
