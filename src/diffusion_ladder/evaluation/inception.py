"""Features of the Inception network that the FID is defined by, for those who have its weights.

The weights are those of the port to torch that pytorch-fid and torch-fidelity load: a file such as
pt_inception-2015-12-05-6726825d.pth. Nothing is downloaded. The network is torchvision's Inception v3, with the pooling
of the original, which the weights were made for: so its features are those of torch-fidelity's network.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion_ladder.foundation.artifacts import sha256_of_file
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.evaluation import Inception as Settings
from diffusion_ladder.torchvision_import import repair_torchvision

CLASSES = 1008  # of the original: ImageNet's 1,000, and eight that were never used
SIDE = 299  # of the images that it was trained on, in pixels
AVERAGED = ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b")  # blocks with a branch of average pooling
MAXIMUM = "7c"  # the last block: maxima instead


def empty_inception() -> nn.Module:
    """The network without weights of its own, from (B, 3, 299, 299) in [-1, 1] to the pooled features (B, 2048)."""
    repair_torchvision()
    from torchvision.models import inception_v3  # here, because it takes a second that most evaluations needn't wait

    with torch.random.fork_rng(devices=[]):  # the constructor draws weights, which are replaced
        options: dict[str, Any] = {"aux_logits": False, "init_weights": False, "transform_input": False}
        network = inception_v3(weights=None, num_classes=CLASSES, **options)
    for name in AVERAGED:
        pool_by(getattr(network, f"Mixed_{name}"), nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))
    pool_by(getattr(network, f"Mixed_{MAXIMUM}"), nn.MaxPool2d(3, stride=1, padding=1))
    return network.eval()


def pool_by(block: Any, pool: Callable[[Tensor], Tensor]) -> None:
    """Let a block of torchvision's pool in another way in its last branch."""
    branches = block._forward
    block._forward = lambda values: [*branches(values)[:-1], block.branch_pool(pool(values))]


def load_inception(settings: Settings, key: str) -> nn.Module:
    """The network with the weights of a file, with the features as its output.

    Args:
        key: of the settings in params.yaml, for complaints.

    Raises:
        UserError: the file is missing, is another one than the settings say, or holds another network.
    """
    path = Path(settings.path)
    if not path.is_file():
        raise UserError(f"{key}.path: there is no file {path}")
    if (found := sha256_of_file(path)) != settings.sha256:
        raise UserError(f"{key}.sha256: {path} has {found}, not {settings.sha256}")
    network = empty_inception()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, AttributeError, pickle.UnpicklingError, EOFError):
        raise UserError(f"{key}.path: {path} doesn't hold Inception weights in the layout of pytorch-fid") from None
    network.fc = nn.Identity()
    return network


@torch.no_grad()
def inception_features(network: nn.Module, images: Tensor, device: torch.device, batch_size: int = 32) -> Tensor:
    """The features (N, 2048) of images (N, C, H, W) uint8, in float64 on the CPU; grey ones are taken as coloured.

    The network itself computes in float32, as wherever the FID is measured.
    """
    network = network.to(device)
    return torch.cat([network(enlarged(batch).to(device)).cpu().double() for batch in images.split(batch_size)])


def enlarged(images: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 as the network expects them: (B, 3, 299, 299) in [-1, 1], by bilinear interpolation."""
    coloured = images.expand(-1, 3, -1, -1).float() / 255
    return 2 * functional.interpolate(coloured, size=(SIDE, SIDE), mode="bilinear", align_corners=False) - 1
