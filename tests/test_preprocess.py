"""Decoding, cropping, splitting, and the three stages of the data together."""

import hashlib
import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_ladder.data import split
from diffusion_ladder.data.portraits import dataset as portraits
from diffusion_ladder.data.portraits import parallel
from diffusion_ladder.data.portraits.decoding import (
    UndecodableImageError,
    decode_image,
    square_box,
    to_pixels,
    to_square,
)
from diffusion_ladder.foundation.artifacts import read_json, read_metadata, read_tensors, sha256_of_file, write_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage
from diffusion_ladder.foundation.section import load_yaml, look_up
from diffusion_ladder.params.datasets import PortraitsPreprocess

ROOT = Path(__file__).resolve().parents[1]
PREPROCESS = PortraitsPreprocess(
    label_column="gender",
    labels={1: 0, 2: 1},
    max_pixels=1_000_000,
    max_unusable_share=1.0,
    test_fraction=0.5,
    image_size=16,
    crop="top",
    channels=3,
    class_names=["female", "male"],
)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(size, seed=0, channels=3):
    width, height = size
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, shape, dtype=numpy.uint8))


def marked_portrait():
    """A picture of 40 x 60 with red on top, green in the middle, blue at the bottom, and white at both sides."""
    pixels = numpy.zeros((60, 40, 3), dtype=numpy.uint8)
    for third, channel in enumerate(range(3)):
        pixels[third * 20 : third * 20 + 20, :, channel] = 255
    pixels[:, [0, 39]] = 255
    return Image.fromarray(pixels)


def test_the_upper_square_of_a_tall_picture_is_kept_unsquashed():
    cropped = numpy.asarray(to_square(marked_portrait(), 40, "top"))
    numpy.testing.assert_array_equal(cropped, numpy.asarray(marked_portrait())[:40])
    centred = numpy.asarray(to_square(marked_portrait(), 40, "centre"))
    numpy.testing.assert_array_equal(centred, numpy.asarray(marked_portrait())[10:50])


def test_a_wide_picture_keeps_its_middle():
    wide = noise((60, 40))
    for crop in ("top", "centre"):
        numpy.testing.assert_array_equal(numpy.asarray(to_square(wide, 40, crop)), numpy.asarray(wide)[:, 10:50])


def test_a_circle_stays_a_circle():
    y, x = numpy.mgrid[0:300, 0:200]
    disc = ((x - 100) ** 2 + (y - 100) ** 2 < 60**2) * 255
    small = numpy.asarray(to_square(Image.fromarray(disc.astype(numpy.uint8)).convert("RGB"), 64, "top"))[..., 0] > 127
    across, down = (int(small.any(axis=axis).sum()) for axis in (0, 1))
    assert across == down
    assert small.sum() == pytest.approx(numpy.pi * (60 * 64 / 200) ** 2, rel=0.03)


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from(["top", "centre"]))
def test_every_crop_is_the_largest_square_inside(width, height, crop):
    left, upper, right, lower = square_box(width, height, crop)
    assert right - left == lower - upper == min(width, height)
    assert left >= 0
    assert upper >= 0
    assert right <= width
    assert lower <= height
    assert abs(left - (width - right)) <= 1
    assert upper == 0 or (crop == "centre" and abs(upper - (height - lower)) <= 1)


def test_resizing_antialiases_as_pillow_s_lanczos_does_and_leaves_a_fitting_picture_alone():
    image = noise((128, 128))
    expected = image.resize((64, 64), Image.Resampling.LANCZOS)
    assert to_square(image, 64, "top").tobytes() == expected.tobytes()
    assert to_square(expected, 64, "top").tobytes() == expected.tobytes()
    # Stripes of one pixel become grey; without antialiasing they would stay black and white.
    stripes = Image.fromarray(numpy.tile(numpy.array([[0, 255]], dtype=numpy.uint8), (64, 32))).convert("RGB")
    middle = numpy.asarray(to_square(stripes, 16, "top"))[4:12, 4:12]
    assert abs(middle.astype(int) - 127.5).max() < 10


def test_modes_become_rgb():
    grey = noise((6, 6), channels=1)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"):
        source = grey.convert("RGB").convert(mode)
        data = encoded(source, "JPEG", quality=100) if mode == "CMYK" else encoded(source)
        picture = decode_image(data)
        assert picture.mode == "RGB"
        if mode in ("L", "LA", "RGB", "RGBA"):
            assert picture.tobytes() == grey.convert("RGB").tobytes()


def test_transparent_parts_show_white():
    pixels = numpy.zeros((2, 2, 4), dtype=numpy.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (0, 0, 0, 0)
    pixels[1, 0] = (0, 0, 0, 51)  # a fifth of black over white
    picture = numpy.asarray(decode_image(encoded(Image.fromarray(pixels))))
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[0, 1].tolist() == [255, 255, 255]
    assert picture[1, 0].tolist() == [204, 204, 204]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    picture = decode_image(encoded(palette, transparency=0))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = numpy.array([[0, 257, 32896, 65535]], dtype=numpy.uint16)
    picture = numpy.asarray(decode_image(encoded(Image.fromarray(values))))
    assert picture[0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_orientation_turns_the_picture_upright():
    upright = marked_portrait()
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    picture = decode_image(encoded(lying, exif=exif))
    assert picture.size == (40, 60)
    assert picture.tobytes() == upright.tobytes()


def test_pixels_are_channels_first_and_grey_ones_are_the_brightness():
    image = noise((5, 4))
    pixels = to_pixels(image, 3)
    assert (pixels.shape, pixels.dtype) == ((3, 4, 5), numpy.uint8)
    assert tuple(pixels[:, 1, 2].tolist()) == image.getpixel((2, 1))
    grey = to_pixels(image, 1)
    assert grey.shape == (1, 4, 5)
    luma = numpy.einsum("c,chw->hw", (0.299, 0.587, 0.114), pixels)  # ITU-R BT.601
    assert abs(grey[0] - luma).max() <= 1
    same = noise((5, 4), channels=1)
    numpy.testing.assert_array_equal(to_pixels(same.convert("RGB"), 1)[0], numpy.asarray(same))


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (6, 9), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert decode_image(data).tobytes() == frames[0].tobytes()


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (421, 632)])
@pytest.mark.parametrize("crop", ["top", "centre"])
def test_every_shape_becomes_a_square(size, crop):
    image = decode_image(encoded(Image.new("RGB", size, (10, 200, 30))))
    pixels = to_pixels(to_square(image, 16, crop), 3)
    assert (pixels == numpy.array([10, 200, 30], dtype=numpy.uint8)[:, None, None]).all()


@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_whatever_happens_to_the_bytes_there_is_an_image_or_a_reason(seed, kind):
    random = numpy.random.default_rng(seed)
    data = bytearray(encoded(noise((40, 30), seed=1), kind))
    for position in random.integers(0, len(data), 5):
        data[position] = random.integers(0, 256)
    try:
        assert decode_image(bytes(data), 10_000, smallest=True).mode == "RGB"
    except UndecodableImageError:
        pass
    else:
        assert decode_image(bytes(data)).mode == "RGB"  # what the filter lets pass, preprocess can decode


def test_too_many_pixels_are_refused_before_they_are_decoded():
    data = encoded(noise((200, 100)))
    assert decode_image(data, 20_000).size == (200, 100)
    with pytest.raises(UndecodableImageError, match="more than 19999 pixels"):
        decode_image(data[:100], 19_999)  # of which there is no more than the header


def read_back(splits, folder):
    write_tensors(folder / "back.safetensors", splits.tensors(), {})
    return read_tensors(folder / "back.safetensors")


def write_filtered(folder, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "label": labels})
    pyarrow.parquet.write_table(table, folder / "portraits.parquet")


def test_portraits_are_split_by_their_pixels(tmp_path):
    pictures = [noise((16, 24), seed=i) for i in range(40)]
    # The same pixels in the kept part, from other files: other compression, other lower end.
    copies = [picture.copy() for picture in pictures[:10]]
    for copy in copies:
        copy.paste((0, 0, 0), (0, 20, 16, 24))
    images = [encoded(picture) for picture in pictures] + [encoded(copy, compress_level=1) for copy in copies]
    labels = [i % 2 for i in range(40)] + [i % 2 for i in range(10)]
    write_filtered(tmp_path, images, labels)
    splits = portraits.preprocess(tmp_path, PREPROCESS)
    card = splits.card()
    train, test = (read_back(splits, tmp_path)[name] for name in ("train", "test"))
    assert card["duplicates"] == {
        "in_train": len(train) - len(train.unique(dim=0)),
        "in_test": len(test) - len(test.unique(dim=0)),
        "between_splits": 0,
    }
    assert card["duplicates"]["in_train"] + card["duplicates"]["in_test"] == 10
    assert card["pictures"]["cropped"] == 50
    assert card["pictures"]["largest"] == [16, 24]
    total = sum(count for part in card["splits"].values() for count in part["by_class"].values())
    assert total == sum(part["rows"] for part in card["splits"].values()) == 50

    expected = {"train": [], "test": []}
    for picture in (*pictures, *copies):
        pixels = numpy.asarray(picture)[:16].transpose(2, 0, 1)
        number = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "big") / 2**64
        expected["test" if number < 0.5 else "train"].append(pixels)
    numpy.testing.assert_array_equal(train.numpy(), numpy.stack(expected["train"]))
    numpy.testing.assert_array_equal(test.numpy(), numpy.stack(expected["test"]))


def test_the_number_of_threads_changes_no_byte(tmp_path, monkeypatch):
    write_filtered(tmp_path, [encoded(noise((20, 30), seed=i)) for i in range(100)], [i % 2 for i in range(100)])
    results = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(parallel, "available_cores", lambda cores=cores: cores)
        splits = portraits.preprocess(tmp_path, PREPROCESS)
        write_tensors(tmp_path / "out.safetensors", splits.tensors(), splits.metadata("faces", "portraits"))
        results.append((tmp_path / "out.safetensors").read_bytes())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_is_not_read_far_ahead_and_stays_in_order(threads):
    read = []

    def items():
        for number in range(200):
            read.append(number)
            yield number

    for done, result in enumerate(parallel.map_in_order(lambda number: number**2, items(), threads)):
        assert result == done**2
        assert len(read) <= done + 1 + parallel.WAITING_PER_THREAD * threads
    assert done == 199


def test_what_a_thread_raises_reaches_the_reader():
    with pytest.raises(ZeroDivisionError):
        list(parallel.map_in_order(lambda number: 1 // (number - 5), range(10)))


def test_grey_portraits_have_one_channel(tmp_path):
    write_filtered(tmp_path, [encoded(noise((16, 16), seed=i)) for i in range(8)], [0, 1] * 4)
    splits = portraits.preprocess(tmp_path, PREPROCESS.model_copy(update={"channels": 1}))
    assert splits.card()["sample_shape"] == [1, 16, 16]
    assert read_back(splits, tmp_path)["train"].shape[1:] == (1, 16, 16)


def test_duplicates_between_a_source_s_own_splits_are_counted():
    train = torch.tensor([[1, 2], [3, 4], [1, 2], [5, 6]], dtype=torch.uint8)
    test = torch.tensor([[1, 2], [1, 2], [9, 9]], dtype=torch.uint8)
    numbers = split.row_numbers(train), split.row_numbers(test)
    assert split.count_duplicates(*numbers) == {"in_train": 1, "in_test": 1, "between_splits": 2}
    assert split.stands_in(train, test).tolist() == [True, False, True, False]


def test_the_split_doesn_t_depend_on_the_other_rows():
    rows = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    held_out = split.is_held_out(rows, 0.3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))[:90]
    assert torch.equal(split.is_held_out(rows[order], 0.3), held_out[order])
    assert not (split.is_held_out(rows, 0.1) & ~held_out).any()  # a smaller test split is part of a larger one


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_an_empty_split_is_refused(fraction):
    with pytest.raises(UserError, match=r"^preprocess.test_fraction: .* of 3 rows into the test split; use more rows$"):
        split.is_held_out(torch.arange(3), fraction)


def stage_of(script, key, changes):
    """A stage as the scripts see it, with params.yaml changed here and there."""
    values = load_yaml(ROOT / "params.yaml")
    for name, value in changes.items():
        section, _, last = name.rpartition(".")
        look_up(values, section)[last] = value
    Path("params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    return Stage(script, key)


def run(script, key, changes):
    spec = importlib.util.spec_from_file_location(script, ROOT / "stages" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(stage_of(script, key, changes))


@pytest.mark.parametrize(
    ("dataset", "change", "shape"),
    [
        ("circles", {"datasets.circles.sources.make_circles.count": 200}, (2,)),
        ("moons", {"datasets.moons.sources.make_moons.count": 200}, (2,)),
        ("mnist", {}, (1, 28, 28)),
        ("faces", {"datasets.faces.sources.dicebear.count": 40}, (3, 64, 64)),
    ],
)
def test_the_stages_write_the_artifacts_that_others_rely_on(tmp_path, monkeypatch, dataset, change, shape):
    monkeypatch.chdir(tmp_path)
    run("fetch", dataset, change)
    before = {path: sha256_of_file(path) for path in sorted(Path("data/raw").rglob("*")) if path.is_file()}
    if dataset == "faces":
        run("filter_gender", "", change)
    run("preprocess", dataset, change)

    tensors = read_tensors(f"data/processed/{dataset}.safetensors")
    metadata = read_metadata(f"data/processed/{dataset}.safetensors")
    assert sorted(tensors) == ["test", "test_labels", "train", "train_labels"]
    for name in ("train", "test"):
        assert tensors[name].shape[1:] == shape
        assert tensors[name].dtype == (torch.float32 if shape == (2,) else torch.uint8)
        assert (tensors[f"{name}_labels"].dtype, len(tensors[f"{name}_labels"])) == (torch.int64, len(tensors[name]))
    assert sorted(metadata) == ["class_names", "dataset", "kind", "normalisation"]
    if shape != (2,):
        assert metadata["normalisation"] == {"mean": [0.5], "std": [0.5]}

    card = read_json(f"reports/data/{dataset}.json")
    assert card["dataset"] == dataset
    rows = {name: card["splits"][name]["rows"] for name in ("train", "test")}
    assert rows == {name: len(tensors[name]) for name in ("train", "test")}
    for entry in card["files"]:
        assert sha256_of_file(Path("data/raw") / dataset / entry["name"]) == entry["sha256"]
    if dataset == "faces":
        assert card["rows_in"] == 40 == sum(card["kept"].values()) + sum(card["dropped"].values())
        assert sum(rows.values()) == sum(card["kept"].values())
    assert str(tmp_path) not in json.dumps(card)
    assert before == {path: sha256_of_file(path) for path in before}  # raw data stay as they were

    first = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    run("preprocess", dataset, change)
    assert first == {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
