"""What counts of an IDX file is its content: packed anew, unpacked, or a user's own that is taken on purpose."""

import gzip
import hashlib

import numpy
import pytest

from diffusion_ladder.data.digits import dataset as digits
from diffusion_ladder.data.digits import mnist_family
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import PointsPreprocess, TorchvisionSource

LAYOUT = mnist_family.layout_of("MNIST", None)
SETTINGS = TorchvisionSource(name="MNIST")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype("u1").tobytes()


def content(seed):
    random = numpy.random.default_rng(seed)
    arrays = [random.integers(0, 256, (20, 28, 28)), random.integers(0, 10, 20)]
    arrays += [random.integers(0, 256, (10, 28, 28)), random.integers(0, 10, 10)]
    return dict(zip(LAYOUT.names(), map(idx, arrays), strict=True))


@pytest.fixture
def published(monkeypatch):
    """What the publisher offers, packed its way; and what it holds, by the checksums that the code knows."""
    files = content(0)
    offered = {name: gzip.compress(data, 9, mtime=1) for name, data in files.items()}
    listed = [
        mnist_family.PublishedFile(f"{name}.gz", (), hashlib.md5(data).hexdigest(), len(data))
        for name, data in offered.items()
    ]
    monkeypatch.setattr(digits, "published_files", lambda name: listed)
    for name, file in zip(files, listed, strict=True):
        monkeypatch.setitem(digits.UNPACKED, file.md5, hashlib.md5(files[name]).hexdigest())
    return files


def fetch(files, folder, sha256=None):
    root = folder / "root"
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    settings = SETTINGS.model_copy(update={"root": str(root), "sha256": sha256})
    card = digits.fetch_family(settings, folder / "raw")
    write_json(folder / "raw/card.json", card)
    splits = digits.preprocess(folder / "raw", PointsPreprocess(test_fraction=0.5))
    return card, len(splits.train) + len(splits.test)


PACKINGS = {
    "as published": (lambda data: gzip.compress(data, 9, mtime=1), ".gz", digits.PUBLISHED_CHECK),
    "anew": (lambda data: gzip.compress(data, 1, mtime=7), ".gz", digits.CONTENT_CHECK),
    "in two members": (lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]), ".gz", digits.CONTENT_CHECK),
    "not at all": (bytes, "", digits.CONTENT_CHECK),
}


def test_another_set_whose_files_have_the_same_names_is_refused(tmp_path, published, monkeypatch):
    """MNIST's own files in the place of Kuzushiji-MNIST's, whose content isn't known."""
    packed = {f"{name}.gz": gzip.compress(data, 9, mtime=1) for name, data in published.items()}
    others = [mnist_family.PublishedFile(name, (), f"{number:032x}", 9) for number, name in enumerate(packed)]
    monkeypatch.setattr(digits, "published_files", lambda name: others)
    with pytest.raises(UserError, match="the files hold something else than the published ones"):
        fetch(packed, tmp_path)


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_right_content_is_taken_however_it_is_packed(tmp_path, published, packing):
    pack, suffix, checked = PACKINGS[packing]
    files = {f"{name}{suffix}": pack(data) for name, data in published.items()}
    card, rows = fetch(files, tmp_path)
    assert (card["title"], card["checked"], rows) == ("MNIST", checked, 30)


@pytest.mark.parametrize("packing", PACKINGS)
def test_another_content_is_only_taken_on_purpose(tmp_path, published, packing):
    pack, suffix, _ = PACKINGS[packing]
    own = {f"{name}{suffix}": pack(data) for name, data in content(1).items()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}\n" for data in content(1).values())
    pin = hashlib.sha256(sums.encode()).hexdigest()
    message = f"^sources.torchvision.root: the files hold something else .* set sources.torchvision.sha256 to {pin}$"
    with pytest.raises(UserError, match=message):
        fetch(own, tmp_path)
    with pytest.raises(UserError, match=f"^sources.torchvision.sha256: expected {'0' * 64}, but .* has {pin}$"):
        fetch(own, tmp_path, "0" * 64)
    card, rows = fetch(own, tmp_path, pin)
    assert (card["title"], card["creator"], card["licence"], rows) == (
        "local IDX files",
        "not stated",
        "not stated",
        30,
    )
    assert (card["published"], card["checked"]) == ([], f"SHA-256 of the content {pin}")


def test_one_other_file_is_enough(tmp_path, published):
    files = {**published, LAYOUT.test.labels: content(1)[LAYOUT.test.labels]}
    with pytest.raises(UserError, match="hold something else than the published ones"):
        fetch(files, tmp_path)


def test_where_the_content_of_a_set_isn_t_known_its_hash_is_printed(tmp_path, published, monkeypatch, capsys):
    monkeypatch.setattr(digits, "UNPACKED", {})
    card, _ = fetch({f"{name}.gz": gzip.compress(data, 1) for name, data in published.items()}, tmp_path)
    assert (card["title"], card["checked"]) == ("MNIST", digits.FORMAT_CHECK)
    assert "SHA-256 of the content: " in capsys.readouterr().out


def test_what_is_no_idx_file_is_refused_although_its_hash_is_given(tmp_path, published):
    own = dict.fromkeys(LAYOUT.names(), b"<html>")
    with pytest.raises(UserError, match="no IDX file of 3 axes"):
        fetch(own, tmp_path, "0" * 64)


def test_the_root_may_begin_with_the_home_folder(tmp_path, published, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch(published, tmp_path)
    card = digits.fetch_family(SETTINGS.model_copy(update={"root": "~/root"}), tmp_path / "again")
    assert card["rows"] == 30


def test_a_root_that_only_the_working_folder_has_is_named_as_such(tmp_path, published, monkeypatch):
    copy = tmp_path / ".dvc/tmp/exps/standard/tmp1"
    copy.mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match=f"nor in mine; this is DVC's temporary copy .* only {tmp_path} has it"):
        digits.fetch_family(SETTINGS.model_copy(update={"root": "mine"}), tmp_path / "raw")


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_the_content_of_every_published_file_is_known(name):
    for file in mnist_family.published_files(name):
        assert len(mnist_family.UNPACKED[file.md5]) == 32
