"""The networks written here against diffusers' UNet2DModel and against closed forms."""

import pytest
import torch
from torch import nn

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.device import choose_attention
from diffusion_ladder.networks import mlp, unet
from diffusion_ladder.networks.embeddings import fold, sinusoidal_embedding, unfold
from diffusion_ladder.params.network import DiffusersUNetNetwork, MLPNetwork, UNetNetwork
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.rungs import Rung, build_network, load_rung, save_rung
from diffusion_ladder.torchvision_import import repair_torchvision

repair_torchvision()

TWO_LEVELS = {"block_out_channels": [16, 32], "layers_per_block": 1, "attention_levels": [False, True], "patch_size": 2}
THREE_LEVELS = {
    "block_out_channels": [16, 32, 48],
    "layers_per_block": 2,
    "attention_levels": [False, True, True],
    "patch_size": 1,
}


NO_ATTENTION = {
    "block_out_channels": [16, 24],
    "layers_per_block": 2,
    "attention_levels": [False, False],
    "patch_size": 1,
    "time_embedding_size": 40,
    "attention_head_size": 8,
}
EVERYWHERE = {
    "block_out_channels": [16, 16, 32],
    "layers_per_block": 1,
    "attention_levels": [True, True, True],
    "patch_size": 1,
    "attention_head_size": 8,
}
LEVELS = {"two": TWO_LEVELS, "three": THREE_LEVELS, "no attention": NO_ATTENTION, "attention everywhere": EVERYWHERE}


def unet_settings(**changes):
    shared = {
        "attention_head_size": 16,
        "norm_groups": 8,
        "scale_shift": True,
        "middle_attention": True,
        "time_embedding_size": 64,
    }
    return TWO_LEVELS | shared | changes


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("middle_attention", [True, False])
@pytest.mark.parametrize("num_class_embeds", [None, 3])
def test_the_weights_of_a_unet2dmodel_load_and_give_the_same_output(
    levels, scale_shift, middle_attention, num_class_embeds
):
    from diffusion_ladder.networks import diffusers_unet

    settings = unet_settings(**levels | {"scale_shift": scale_shift, "middle_attention": middle_attention})
    library = diffusers_unet.build(
        DiffusersUNetNetwork(name="diffusers_unet", **settings), (1, 28, 28), num_class_embeds
    ).eval()
    ours = unet.build(UNetNetwork(name="unet", **settings), (1, 28, 28), num_class_embeds).eval()
    ours.load_state_dict(library.unet.state_dict())
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 28, 28, generator=random)
    timesteps = torch.tensor([0, 1, 500.25, 999])  # Heun visits fractions
    labels = torch.tensor([0, 1, 2, 0]) if num_class_embeds else None
    with torch.no_grad():
        expected = library(x, timesteps, labels)
        torch.testing.assert_close(ours(x, timesteps, labels), expected, atol=1e-5, rtol=1e-5)
    assert expected.abs().mean() > 0.01
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in library.unet.state_dict().items()
    }


def test_the_time_scales_and_shifts_the_norm_or_is_added():
    """ResidualBlock against its two formulas, from its own parts."""
    x, time = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    for scale_shift in (True, False):
        block = unet.ResidualBlock(16, 16, unet.BlockOptions(64, 8, scale_shift, 16))
        first = block.conv1(nn.functional.silu(block.norm1(x)))
        condition = block.time_emb_proj(nn.functional.silu(time))[:, :, None, None]
        if scale_shift:  # AdaGN(h, y) = (1 + y_s) GroupNorm(h) + y_b
            inner = (1 + condition[:, :16]) * block.norm2(first) + condition[:, 16:]
        else:
            inner = block.norm2(first + condition)
        torch.testing.assert_close(block(x, time), x + block.conv2(nn.functional.silu(inner)))


def test_each_label_and_the_null_label_have_a_row_of_their_own():
    torch.manual_seed(0)
    network = unet.build(UNetNetwork(name="unet", **unet_settings()), (1, 28, 28), 3).eval()
    assert network.class_embedding.num_embeddings == 3
    x, timesteps = torch.randn(1, 1, 28, 28).expand(3, -1, -1, -1), torch.full((3,), 500)
    first, second, null = network(x, timesteps, torch.tensor([0, 1, 2]))
    assert min((first - second).abs().max(), (first - null).abs().max(), (second - null).abs().max()) > 1e-4


def test_an_odd_embedding_size_is_refused():
    with pytest.raises(ValueError, match="even, not 7"):
        sinusoidal_embedding(torch.tensor([0]), 7)


def test_folding_moves_each_square_into_channels_and_unfolding_undoes_it():
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).reshape(2, 3, 8, 12)
    folded = fold(images, 4)
    assert folded.shape == (2, 48, 2, 3)
    assert folded[1, 16:32, 1, 2].tolist() == images[1, 1, 4:8, 8:12].flatten().tolist()
    assert torch.equal(unfold(folded, 4), images)
    assert fold(images, 1) is images


def test_folding_refuses_a_size_that_does_not_divide():
    with pytest.raises(ValueError, match="28x30 can't be cut into squares of 4x4"):
        fold(torch.zeros(1, 1, 28, 30), 4)


def test_labels_are_needed_exactly_by_a_conditional_unet():
    settings = UNetNetwork(name="unet", **unet_settings())
    x, timesteps, labels = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="class labels"):
        unet.build(settings, (1, 28, 28), None)(x, timesteps, labels)
    with pytest.raises(ValueError, match="class labels"):
        unet.build(settings, (1, 28, 28), 2)(x, timesteps)


def test_the_mlp_depends_on_the_point_and_on_the_time():
    torch.manual_seed(0)
    network = mlp.build(MLPNetwork(name="mlp", hidden_size=32, hidden_layers=2, time_embedding_size=16), (2,), None)
    x = torch.randn(5, 2)
    early, late = network(x, torch.full((5,), 1)), network(x, torch.full((5,), 900))
    assert early.shape == (5, 2)
    assert (early - late).abs().min() > 1e-4
    torch.testing.assert_close(network(x[:2], torch.full((2,), 1)), early[:2])


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_saving_and_loading_give_the_same_network(name, tmp_path):
    if name == "mlp":
        module, shape = mlp, (2,)
        settings = MLPNetwork(name="mlp", hidden_size=16, hidden_layers=1, time_embedding_size=8)
    else:
        module, shape = unet, (1, 28, 28)
        settings = UNetNetwork(name="unet", **unet_settings())
    network = module.build(settings, shape, None)
    module.save(network, tmp_path)
    loaded = module.load(settings, shape, tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_a_saved_diffusers_network_is_a_plain_unet2dmodel(tmp_path):
    from diffusers import UNet2DModel

    from diffusion_ladder.networks import diffusers_unet

    settings = DiffusersUNetNetwork(name="diffusers_unet", **unet_settings())
    network = diffusers_unet.build(settings, (3, 16, 16), 3).eval()
    diffusers_unet.save(network, tmp_path)
    plain = UNet2DModel.from_pretrained(tmp_path).eval()
    x, timesteps, labels = torch.randn(2, 3, 16, 16), torch.tensor([3, 400]), torch.tensor([1, 2])
    with torch.no_grad():
        expected = unfold(plain(fold(x, 2), timesteps, class_labels=labels).sample, 2)
        torch.testing.assert_close(network(x, timesteps, labels), expected, atol=1e-5, rtol=1e-5)
        loaded = diffusers_unet.load(settings, (3, 16, 16), tmp_path).eval()
        assert torch.equal(loaded(x, timesteps, labels), network(x, timesteps, labels))


def image_network(name):
    kind = UNetNetwork if name == "unet" else DiffusersUNetNetwork
    return build_network(kind(name=name, **unet_settings()), (3, 16, 16), None, 0, "test")


@pytest.mark.parametrize("name", ["unet", "diffusers_unet"])
@pytest.mark.parametrize("plain_attention", [False, True])
def test_bf16_and_float32_predictions_and_gradients_agree(name, plain_attention, attention_switches):
    choose_attention(torch.device("cpu"), torch.bfloat16 if plain_attention else torch.float32)
    network, x = image_network(name), torch.randn(8, 3, 16, 16)
    losses, gradients = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            prediction = network(x, torch.arange(8) * 120)
        losses.append((prediction.float() - x).square().mean())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(losses[-1], list(network.parameters()))]))
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.fixture
def attention_switches():
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    yield
    torch.backends.cuda.enable_flash_sdp(before[0])
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before[1])


@pytest.mark.slow
def test_a_compiled_network_keeps_the_names_of_its_weights_and_its_answers():
    """Traced and run by PyTorch's own kernels: no C++ compiler is asked for."""
    network, x = image_network("diffusers_unet"), torch.randn(2, 3, 16, 16)
    names = list(network.state_dict())
    answers = []
    for compiled in (False, True):
        if compiled:
            network.compile(backend="aot_eager")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answers.append(network(x, torch.tensor([3, 900])).float())
    assert list(network.state_dict()) == names
    assert (answers[0] - answers[1]).norm() < 0.03 * answers[0].norm()  # the norms are rounded otherwise
    assert not torch.equal(answers[0], torch.zeros_like(answers[0]))


def test_what_save_rung_writes_is_all_that_load_rung_needs(tmp_path):
    settings = MLPNetwork(name="mlp", hidden_size=8, hidden_layers=1, time_embedding_size=8)
    schedule = Schedule(name="linear", T=10, beta_start=1e-4, beta_end=0.01, prediction_type="epsilon")
    plane = Normalisation((0.5, 1.0), (2.0, 3.0), bytes=False)
    rung = Rung("toy", "toy", build_network(settings, (2,), None, 0, "toy"), settings, schedule, (2,), 0, None, plane)
    save_rung(rung, tmp_path / "toy", {}, {})
    loaded = load_rung(tmp_path / "toy")
    assert (loaded.normalisation, loaded.schedule, loaded.settings) == (plane, schedule, settings)
    for name, weight in rung.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], weight)
