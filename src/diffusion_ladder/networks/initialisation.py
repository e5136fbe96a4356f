"""First weights: what a residual network does before it has learnt anything."""

from torch import nn

LAST_LAYERS = ("conv_out", "conv2", "to_out", "linear_out", "layers.linear_2")  # as the networks' modules call them


def zero_last_layers(network: nn.Module) -> None:
    """Set the last layer of the network and of each of its residual branches to zero, in place.

    Every block is then the identity and the answer zero, so that what is learnt first is not the undoing of random
    weights (Goyal et al. 2017, arXiv 1706.02677, section 5.1, for branches; DDPM's code for both).

    Raises:
        ValueError: the network has none of the layers that are known to be last ones.
    """
    found = [module for name, module in network.named_modules() if is_last(name)]
    if not found:
        raise ValueError(f"no module of {type(network).__name__} is called like one of {', '.join(LAST_LAYERS)}")
    for module in found:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


def is_last(name: str) -> bool:
    """Whether a module of this dotted name ends the network or a residual branch; list positions don't matter."""
    path = ".".join(part for part in name.split(".") if not part.isdigit())
    return any(path == last or path.endswith("." + last) for last in LAST_LAYERS)
