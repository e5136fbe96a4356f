"""normalise and unnormalise: exact inverses, which refuse what they can't represent."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_ladder.data.normalise import IMAGES, Normalisation, normalise, unnormalise
from diffusion_ladder.foundation.errors import UserError

moderate = st.floats(-1e3, 1e3)
deviation = st.floats(1e-2, 1e3)


def test_every_byte_survives_the_round_trip():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = normalise(images, IMAGES)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(unnormalise(x, IMAGES), images)


def test_images_follow_the_formula():
    images = torch.tensor([0, 51, 127, 204], dtype=torch.uint8).reshape(1, 1, 2, 2)
    expected = torch.tensor([(v / 255 - 0.5) / 0.5 for v in (0, 51, 127, 204)]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(normalise(images, IMAGES), expected)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=4, max_size=4))
def test_pixels_outside_the_range_are_clamped_and_never_wrap(values):
    x = torch.tensor(values).reshape(1, 1, 2, 2)
    expected = [round(min(max((v * 0.5 + 0.5) * 255, 0), 255)) for v in values]
    found = unnormalise(x, IMAGES).flatten().tolist()
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))  # float32 may round a half the other way
    clear = [(a, b) for a, b, v in zip(found, expected, values, strict=True) if abs(v) > 1.01]
    assert all(a == b for a, b in clear)


@given(st.lists(st.tuples(moderate, moderate), min_size=1, max_size=20), moderate, moderate, deviation, deviation)
def test_points_survive_the_round_trip(points, mean_x, mean_y, std_x, std_y):
    normalisation = Normalisation((mean_x, mean_y), (std_x, std_y), bytes=False)
    x = torch.tensor(points, dtype=torch.float32)
    back = unnormalise(normalise(x, normalisation), normalisation)
    # Subtracting the mean loses what float32 can't hold beside it.
    tolerance = 1e-6 * (1 + x.abs().max().item() + max(abs(mean_x), abs(mean_y)))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=0, atol=tolerance)


def test_each_channel_and_coordinate_has_its_own_coefficients():
    images = torch.full((5, 2, 3, 4, 4), 255, dtype=torch.uint8)  # frames and samples lead
    channels = Normalisation((0.0, 0.5, 1.0), (1.0, 0.5, 0.25), bytes=True)
    x = normalise(images, channels)
    assert x[0, 0, :, 0, 0].tolist() == [1, 1, 0]
    assert torch.equal(unnormalise(x, channels), images)
    points = normalise(torch.tensor([[[3.0, 8.0]]]), Normalisation((1.0, 2.0), (2.0, 3.0), bytes=False))
    assert points.tolist() == [[[1.0, 2.0]]]


@pytest.mark.parametrize("normalisation", [IMAGES, Normalisation((0.0, 0.0), (1.0, 1.0), bytes=False)])
def test_nan_is_refused(normalisation):
    x = torch.zeros(1, 2, 2, 2)
    x[0, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match="1 of 8 values are NaN"):
        unnormalise(x, normalisation)


def test_the_wrong_kind_of_data_is_refused():
    with pytest.raises(TypeError, match=r"expected uint8 images, found torch\.float32"):
        normalise(torch.zeros(1, 1, 2, 2), IMAGES)
    with pytest.raises(TypeError, match=r"expected float points, found torch\.uint8"):
        normalise(torch.zeros(1, 2, dtype=torch.uint8), Normalisation((0.0,), (1.0,), bytes=False))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.0,)), ((0.5,), (math.nan,)), ((0.5, 0.5), (1.0,)), ((), ())])
def test_impossible_coefficients_are_refused(mean, std):
    with pytest.raises(ValueError, match="std must be positive"):
        Normalisation(mean, std, bytes=True)


@pytest.mark.parametrize(("kind", "is_bytes"), [("points", False), ("digits", True), ("portraits", True)])
def test_metadata_round_trip(kind, is_bytes):
    normalisation = Normalisation((0.25, 0.5), (1.0, 2.0), bytes=is_bytes)
    metadata = {"kind": kind, "normalisation": normalisation.as_metadata()}
    assert Normalisation.from_metadata(metadata) == normalisation
