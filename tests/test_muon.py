"""Muon for hidden weights against PyTorch's own, and on convolutions."""

import copy

import pytest
import torch
from torch import nn

from diffusion_ladder.params.training import Training
from diffusion_ladder.training.optimisers import build_optimiser, hidden_weights, orthogonalised

SETTINGS = Training(
    seed=0,
    steps=10,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=1,
    weight_decay=0.1,
    optimiser="muon",
    adam_betas=[0.9, 0.99],
    ema_decay=0.9,
    ema_warmup=10,
    log_every=5,
)


def small_network():
    """Linear and convolutional layers, some of one shape."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 5))
    return network


def some_gradients(network, seed):
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)


def test_hidden_weights_take_the_steps_of_torch_on_the_weights_as_matrices():
    network = small_network()
    ours = build_optimiser(network, SETTINGS, 2)
    matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in ours.weights]
    theirs = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for group in ours.param_groups:
        group["lr"] = 0.01
    for step in range(3):
        some_gradients(network, step)
        for weight, matrix in zip(ours.weights, matrices, strict=True):
            matrix.grad = weight.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    assert len(matrices) == 4
    for weight, matrix in zip(ours.weights, matrices, strict=True):
        torch.testing.assert_close(weight.detach().flatten(1), matrix.detach(), atol=1e-3, rtol=0.02)


def test_the_memory_format_changes_no_step():
    networks = [small_network(), small_network().to(memory_format=torch.channels_last)]
    for network in networks:
        optimiser = build_optimiser(network, SETTINGS, 2)
        some_gradients(network, 0)
        for group in optimiser.param_groups:
            group["lr"] = 0.01
        optimiser.step()
    for first, second in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(first, second)


def test_the_two_ends_and_everything_that_is_no_matrix_are_left_to_adamw():
    network = nn.ModuleDict({"conv_in": nn.Conv2d(2, 8, 3), "norm": nn.GroupNorm(2, 8), "conv": nn.Conv2d(8, 8, 3)})
    network["linear_out"], network["conv_out"] = nn.Linear(8, 2), nn.Conv2d(8, 2, 3)
    assert [id(weight) for weight in hidden_weights(network, 2)] == [id(network["conv"].weight)]
    some_gradients(network, 0)
    before = copy.deepcopy(network)
    optimiser = build_optimiser(network, SETTINGS, 2)
    for group in optimiser.param_groups:
        group["lr"] = 0.01
    optimiser.step()
    assert all(not torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True))
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(3, 8, 40), (2, 40, 8), (1, 16, 16)])
def test_singular_values_come_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3
