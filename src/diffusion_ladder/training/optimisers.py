"""The optimisers: AdamW, and Muon beside it."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_ladder.params.training import Training

MOMENTUM = 0.95  # Muon's
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"


def build_optimiser(network: nn.Module, settings: Training, data_channels: int) -> Any:
    """The optimiser that training.optimiser names: an object with `param_groups`, `state`, `zero_grad` and `step`."""
    if settings.optimiser == "adamw":
        return adamw(list(network.parameters()), settings)
    return MuonAndAdamW(network, settings, data_channels)


def adamw(parameters: list[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101), all parameters updated by one kernel."""
    beta_1, beta_2 = settings.adam_betas
    return torch.optim.AdamW(parameters, betas=(beta_1, beta_2), weight_decay=settings.weight_decay, fused=True)


def hidden_weights(network: nn.Module, data_channels: int) -> list[nn.Parameter]:
    """The weights between hidden features: of linear layers without an end as narrow as the data, and of convolutions.

    The convolutions that the U-Nets begin and end with are not among them.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    ends = ("conv_in", "conv_out")
    convolutions = [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.rpartition(".")[2] not in ends
    ]
    matrices = [layer.weight for layer in linear if min(layer.weight.shape) > data_channels]
    return matrices + [layer.weight for layer in convolutions]  # type: ignore[return-value]


class MuonAndAdamW:
    """Muon for the hidden weights, AdamW for everything else (norms, biases, embeddings, both ends).

    Muon (arXiv 2502.16982) orthogonalises the momentum of a matrix; with its steps scaled to the size of AdamW's
    (eq. 4), both take the same learning rate. The weight of a convolution is a matrix of its outputs by its inputs at
    all places of the kernel. They share their `state`, so that a checkpoint finds every moment.
    """

    def __init__(self, network: nn.Module, settings: Training, data_channels: int) -> None:
        self.weights = hidden_weights(network, data_channels)
        chosen = {id(weight) for weight in self.weights}
        others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
        self.adamw = adamw(others, settings)
        self.state = self.adamw.state
        self.muon: dict[str, Any] = {"params": self.weights, "lr": 0.0, "weight_decay": settings.weight_decay}
        self.param_groups = [self.muon, *self.adamw.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None
        self.adamw.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter; weights of one shape together, which saves most of the time."""
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in self.weights:
            alike[weight.shape].append(weight)
        for weights in alike.values():
            self.update(weights)
        self.adamw.step()

    def update(self, weights: list[nn.Parameter]) -> None:
        """One step of Muon for weights of one shape."""
        rate, decay = self.muon["lr"], self.muon["weight_decay"]
        values: list[Tensor] = [*weights]
        momenta = [self.momentum(weight) for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's look ahead
        directions = orthogonalised(torch.stack([as_matrix(each) for each in ahead]))  # (K, out, in)
        changes = [as_weight(each, weights[0].shape) for each in directions]
        torch._foreach_mul_(values, 1 - rate * decay)
        torch._foreach_add_(values, changes, alpha=-rate * 0.2 * max(directions.shape[1:]) ** 0.5)

    def momentum(self, weight: nn.Parameter) -> Tensor:
        """The momentum of a weight: zero before the first step."""
        if not self.state[weight]:
            self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return self.state[weight]["momentum_buffer"]


def as_matrix(weight: Tensor) -> Tensor:
    """The weight of a layer as (out, in); a convolution's inputs come place by place, as channels last they lie."""
    return weight.movedim(1, -1).flatten(1)


def as_weight(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo `as_matrix`."""
    return matrix.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring all singular values of matrices (K, m, n) near 1, in bfloat16: five steps of a Newton-Schulz iteration."""
    a, b, c = QUINTIC
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).bfloat16().contiguous()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).float()
