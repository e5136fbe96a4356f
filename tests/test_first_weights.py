"""Zero initialisation and folding by the Haar transform, for every network."""

from functools import partial

import pytest
import torch
from torch import nn

from diffusion_ladder.networks.embeddings import fold, unfold
from diffusion_ladder.params.network import network_settings
from diffusion_ladder.rungs import build_network

UNET = {
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention_levels": [False, True],
    "attention_head_size": 16,
    "norm_groups": 8,
    "scale_shift": True,
    "middle_attention": True,
    "time_embedding_size": 64,
    "patch_size": 2,
}
MLP = {"hidden_size": 16, "hidden_layers": 2, "time_embedding_size": 8}
NETWORKS = {"mlp": (MLP, (2,)), "unet": (UNET, (1, 16, 16)), "diffusers_unet": (UNET, (1, 16, 16))}
BRANCHED = ("ResidualLayer", "ResidualBlock", "ResnetBlock2D", "SelfAttention", "Attention")


def built(name, **changes):
    values, shape = NETWORKS[name]
    return build_network(network_settings({"name": name} | values | changes), shape, None, 0, "test"), shape


def note(calls, block, inputs, output):
    """A forward hook that keeps what a block was given and what it gave."""
    calls.append((block, inputs[0], output))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_zeroed_network_answers_zero_and_its_branches_add_nothing(name):
    network, shape = built(name, zero_init=True)
    calls = []
    for module in network.modules():
        if type(module).__name__ in BRANCHED:
            module.register_forward_hook(partial(note, calls))
    assert not network(torch.randn(3, *shape), torch.arange(3)).any()
    assert calls
    for block, before, after in calls:
        shortcut = getattr(block, "conv_shortcut", None) or nn.Identity()
        torch.testing.assert_close(after, shortcut(before))


@pytest.mark.parametrize("name", NETWORKS)
def test_zeroing_changes_no_other_weight(name):
    plain, zeroed = (dict(built(name, zero_init=zero)[0].named_parameters()) for zero in (False, True))
    changed = [key for key in plain if not torch.equal(plain[key], zeroed[key])]
    assert changed
    assert not any(zeroed[key].any() for key in changed)


@pytest.mark.parametrize("side", [2, 4])
def test_haar_folding_is_orthonormal_and_leaves_flat_areas_without_details(side):
    images = torch.randn(2, 3, 8, 12)
    folded = fold(images, side, haar=True)
    assert folded.square().sum().item() == pytest.approx(images.square().sum().item(), rel=1e-5)
    torch.testing.assert_close(unfold(folded, side, haar=True), images)
    flat = fold(torch.full((1, 1, 8, 8), 0.7), side, haar=True)
    torch.testing.assert_close(flat[:, 0], torch.full((1, 8 // side, 8 // side), 0.7 * side))
    assert flat[:, 1:].abs().max() < 1e-6


def test_haar_coefficients_of_a_square_of_two_are_its_sum_and_differences_halved():
    a, b, c, d = 1.0, 2.0, 5.0, 11.0
    folded = fold(torch.tensor([[[[a, b], [c, d]]]]), 2, haar=True).flatten().tolist()
    expected = [(a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    assert folded == pytest.approx(expected)


def test_a_unet_with_haar_folding_is_the_same_network_on_other_coefficients():
    (plain, shape), (haar, _) = built("unet"), built("unet", folding="haar")
    images, timesteps = torch.randn(2, *shape), torch.tensor([3, 500])
    disguised = unfold(fold(images, 2, haar=True), 2)  # pixels whose squares are the coefficients
    torch.testing.assert_close(fold(haar(images, timesteps), 2, haar=True), fold(plain(disguised, timesteps), 2))
