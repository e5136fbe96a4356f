"""The shorter forwards against diffusers' own, with the same weights."""

import copy

import pytest
import torch
from torch import nn

from diffusion_ladder.networks.attention import attend
from diffusion_ladder.params.network import DiffusersUNetNetwork
from diffusion_ladder.rungs import build_network, network_module
from diffusion_ladder.torchvision_import import repair_torchvision

repair_torchvision()

from diffusers.models.unets.unet_2d import UNet2DModel  # noqa: E402

SETTINGS = {
    "name": "diffusers_unet",
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention_levels": [False, True],
    "attention_head_size": 8,
    "norm_groups": 8,
    "scale_shift": True,
    "middle_attention": True,
    "time_embedding_size": 64,
    "zero_init": False,
    "patch_size": 1,
}


def pair(**changes):
    """Our network, and a plain UNet2DModel of the same weights."""
    settings = DiffusersUNetNetwork(**SETTINGS | changes)
    ours = build_network(settings, (1, 16, 16), 3, 0, "any")
    plain = UNet2DModel.from_config(ours.unet.config)
    plain.load_state_dict(ours.unet.state_dict())
    return ours, plain


def batch(size=4):
    random = torch.Generator().manual_seed(1)
    images = torch.randn(size, 1, 16, 16, generator=random).to(memory_format=torch.channels_last)
    return images, torch.randint(1000, (size,), generator=random), torch.arange(size) % 3


def gradients(network):
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("size", [4, 64])  # from 64 on, diffusers copies before it doubles
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_predictions_and_gradients_are_those_of_the_library(scale_shift, size, precision):
    ours, plain = pair(scale_shift=scale_shift)
    x, timesteps, labels = batch(size)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        predicted = ours(x, timesteps, labels)
    expected = plain(x, timesteps, labels).sample  # in float32
    tolerance = 1e-5 if precision == torch.float32 else 0.03
    torch.testing.assert_close(predicted.float(), expected, atol=tolerance, rtol=tolerance)
    for output in (predicted.float(), expected):
        (output - x).square().mean().backward()
    theirs = gradients(plain)
    least = 0.01 * max(gradient.norm() for gradient in theirs.values())  # that of a key's bias is zero but for rounding
    for name, gradient in gradients(ours.unet).items():
        error = (gradient - theirs[name]).norm() / theirs[name].norm().clamp_min(least)
        assert error < (1e-4 if precision == torch.float32 else 0.1), name


def test_the_weights_are_saved_as_a_plain_unet2dmodel(tmp_path):
    ours, plain = pair()
    module = network_module(DiffusersUNetNetwork(**SETTINGS))
    module.save(ours, tmp_path)
    read = UNet2DModel.from_pretrained(tmp_path)
    assert type(read) is UNet2DModel
    assert not any("forward" in vars(part) for part in read.modules())
    assert {name: value.shape for name, value in read.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    x, timesteps, labels = batch()
    again = module.load(DiffusersUNetNetwork(**SETTINGS), (1, 16, 16), tmp_path)
    torch.testing.assert_close(again(x, timesteps, labels), plain(x, timesteps, labels).sample, atol=1e-5, rtol=1e-5)


def test_a_copy_computes_with_its_own_weights():
    ours, _ = pair()
    x, timesteps, labels = batch()
    before = ours(x, timesteps, labels)
    twin = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(x, timesteps, labels).abs().max() == 0
    assert torch.equal(ours(x, timesteps, labels), before)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_attention_is_the_formula(precision):
    projections = [nn.Linear(12, 12) for _ in range(3)]
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        attended = attend(x, projections, heads=3)
    query, key, value = (layer(x).detach().double().view(2, 5, 3, 4) for layer in projections)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / 4**0.5
    expected = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(3), value).reshape(2, 5, 12)
    tolerance = 1e-5 if precision == torch.float32 else 0.03
    torch.testing.assert_close(attended.double(), expected, atol=tolerance, rtol=tolerance)
