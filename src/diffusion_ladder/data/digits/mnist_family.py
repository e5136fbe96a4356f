"""torchvision's MNIST family: what a set consists of, where its files are published, and under which licence."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from diffusion_ladder.torchvision_import import repair_torchvision


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
    "QMNIST": Facts(
        title="QMNIST",
        creator="Facebook (Chhavi Yadav, Léon Bottou)",
        origin="https://github.com/facebookresearch/qmnist",
        licence="BSD 3-Clause",
        licence_url="https://github.com/facebookresearch/qmnist/blob/master/LICENSE",
        licence_note="The scans come from NIST.",
    ),
    "EMNIST": Facts(
        title="EMNIST",
        creator="Gregory Cohen, Saeed Afshar, Jonathan Tapson, André van Schaik",
        origin="https://www.nist.gov/itl/products-and-services/emnist-dataset",
        licence="not stated",
        licence_url="",
        licence_note="The scans come from NIST. The files hold the pictures transposed; here they stand upright.",
    ),
}

# torchvision publishes no sizes. By MD5, in bytes: those of MNIST, FashionMNIST, KMNIST and EMNIST are in the checksum
# lists of TensorFlow Datasets (url_checksums/), those of QMNIST in the annex of datasets-mila/datasets--qmnist.
SIZES = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": 9_912_422,
    "d53e105ee54ea40749a09fcbcd1e9432": 28_881,
    "9fb629c4189551a2d022fa330f9573f3": 1_648_877,
    "ec29112dd5afa0611ce80d1b7f02629c": 4_542,
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": 26_421_880,
    "25c81989df183df01b3e8a0aad5dffbe": 29_515,
    "bef4ecab320f06d8554ea6380940ec79": 4_422_102,
    "bb300cfdad3c16e7a12a480ee83cd310": 5_148,
    "bdb82020997e1d708af4cf47b453dcf7": 18_165_135,
    "e144d726b3acfaa3e44228e80efcd344": 29_497,
    "5c965bf0a639b31b8f53240b1b52f4d7": 3_041_136,
    "7320c461ea6c1c855c0b718fb2a4b134": 5_120,
    "ed72d4157d28c017586c42bc6afe6370": 9_704_059,
    "0058f8dd561b90ffdd0f734c6a30e5e4": 463_024,
    "1394631089c404de565df7b7aeaf9412": 9_742_279,
    "5b5b05890a5e13444e108efe57b788aa": 526_800,
    "58c8d27c78d21e728a6bc7b3cc06412e": 561_753_746,
}


# The MD5 of the unpacked files, by the MD5 of the published ones: as many projects state them that check what they
# unpacked. Those of KMNIST, QMNIST and EMNIST are not known here.
UNPACKED = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "25c81989df183df01b3e8a0aad5dffbe": "9018921c3c673c538a1fc5bad174d6f9",
    "bef4ecab320f06d8554ea6380940ec79": "8181f5470baa50b63fa0f6fddb340f0a",
    "bb300cfdad3c16e7a12a480ee83cd310": "15d484375f8d13e6eb1aabb0c3f46965",
}


@dataclass(frozen=True)
class PublishedFile:
    """A file as torchvision's class names it: its URLs, to be tried in turn, and its MD5; its size in bytes."""

    name: str
    urls: tuple[str, ...]
    md5: str
    size: int


@dataclass(frozen=True)
class Split:
    """The two IDX files of a split, without .gz, and which of their rows belong to it."""

    images: str
    labels: str
    first_row: int = 0
    end_row: int | None = None


@dataclass(frozen=True)
class Layout:
    """How the files of a set are read.

    Attributes:
        label_shape: of each label; where it has columns, the first is the class.
        transposed: whether rows and columns of the pictures are swapped.
        first_label: the number of the first class in the files.
    """

    train: Split
    test: Split
    label_shape: tuple[int, ...] = ()
    transposed: bool = False
    first_label: int = 0

    def names(self) -> list[str]:
        """The four IDX files."""
        return [name for split in (self.train, self.test) for name in (split.images, split.labels)]


QMNIST_TEST_ROWS = {"test": (0, None), "test10k": (0, 10_000), "test50k": (10_000, None)}


def layout_of(name: str, split: str | None) -> Layout:
    """How the files of a set, and of a split of it, are called and read."""
    if name == "EMNIST":
        train, test = (idx1_split(f"emnist-{split}-{part}") for part in ("train", "test"))
        return Layout(train, test, transposed=True, first_label=1 if split == "letters" else 0)
    if name == "QMNIST":
        files = [(f"qmnist-{part}-images-idx3-ubyte", f"qmnist-{part}-labels-idx2-int") for part in ("train", "test")]
        return Layout(Split(*files[0]), Split(*files[1], *QMNIST_TEST_ROWS[str(split)]), label_shape=(8,))
    return Layout(idx1_split("train"), idx1_split("t10k"))


def idx1_split(prefix: str) -> Split:
    """The files of a split whose names begin with `prefix`."""
    return Split(f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")


def torchvision_class(name: str) -> Any:
    """torchvision's class of that name, whose attributes say where the files are and which classes they hold."""
    repair_torchvision()
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


def published_files(name: str) -> list[PublishedFile]:
    """The files to download: four of IDX, or one zip archive with those of all splits (EMNIST)."""
    published = torchvision_class(name)
    if name == "EMNIST":
        found = [((published.url,), published.md5)]
    elif name == "QMNIST":
        found = [((url,), md5) for part in ("train", "test") for url, md5 in published.resources[part]]
    else:
        found = [(tuple(mirror + file for mirror in published.mirrors), md5) for file, md5 in published.resources]
    return [PublishedFile(PurePosixPath(urls[0]).name, urls, md5, SIZES[md5]) for urls, md5 in found]


def class_names(name: str, split: str | None) -> list[str]:
    """The names of the classes 0, 1, ... of a set; digits go by their figure alone."""
    published = torchvision_class(name)
    if name == "EMNIST":
        return [str(label) for label in published.classes_split_dict[split] if label != "N/A"]
    return [str(label).split(" - ")[0] for label in published.classes]
