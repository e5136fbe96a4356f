"""The optimisers: AdamW, and Muon beside it."""

from typing import Any

import torch
from torch import nn

from diffusion_ladder.params.training import Training


def build_optimiser(network: nn.Module, settings: Training, data_channels: int) -> Any:
    """The optimiser that training.optimiser names: an object with `param_groups`, `state`, `zero_grad` and `step`."""
    if settings.optimiser == "adamw":
        return adamw(list(network.parameters()), settings)
    return MuonAndAdamW(network, settings, data_channels)


def adamw(parameters: list[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101), all parameters updated by one kernel."""
    beta_1, beta_2 = settings.adam_betas
    return torch.optim.AdamW(parameters, betas=(beta_1, beta_2), weight_decay=settings.weight_decay, fused=True)


def hidden_matrices(network: nn.Module, data_channels: int) -> list[nn.Parameter]:
    """The weights of the linear layers between hidden features: neither of the two ends is as narrow as the data."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [layer.weight for layer in linear if min(layer.weight.shape) > data_channels]  # type: ignore[misc]


class MuonAndAdamW:
    """Muon for the hidden matrices, AdamW for everything else (convolutions, norms, biases, embeddings, both ends).

    Muon (arXiv 2502.16982) orthogonalises the momentum of a matrix; with its steps scaled to the size of AdamW's
    (eq. 4), both take the same learning rate. They share their `state`, so that a checkpoint finds every moment.
    """

    def __init__(self, network: nn.Module, settings: Training, data_channels: int) -> None:
        matrices = hidden_matrices(network, data_channels)
        chosen = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
        self.muon = torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = adamw(others, settings)
        self.state = self.adamw.state = self.muon.state
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.muon.zero_grad()
        self.adamw.zero_grad()

    def step(self) -> None:
        """Update every parameter."""
        self.muon.step()
        self.adamw.step()
