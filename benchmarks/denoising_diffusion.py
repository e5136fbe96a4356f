"""A peer of peers.py: digits by the package denoising-diffusion-pytorch, as its README has it.

Its Unet with GaussianDiffusion (v-prediction, sigmoid schedule), Adam with its Trainer's betas and clipping, its
average of the weights, and DDIM in 250 steps. The README's batch of 64 comes in one piece in place of two; images of 28
pixels can be halved twice, so there are three levels; no digit is mirrored. It knows no classes.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from peer import Mode, Peer
from torch import Tensor

from diffusion_ladder.data.normalise import IMAGES, unnormalise
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.torchvision_import import repair_torchvision

PACKAGES = Path(__file__).parent / ".packages"
NAME = "denoising-diffusion-pytorch"
SAMPLER = "DDIM"
EVALUATIONS = 250  # of the network for a sample, as in the README
SETTINGS = [
    {"channels": 64, "learning_rate": 8e-5},
    {"channels": 64, "learning_rate": 1e-3},
    {"channels": 32, "learning_rate": 3e-4},
    {"channels": 32, "learning_rate": 1e-3},
]
BATCH_SIZE = 64


def load_package() -> tuple[Any, Any]:
    """The package and that of its average, from where `make bench-peers` puts them, or from the environment.

    Raises:
        UserError: one isn't there.
    """
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))  # after the project's own packages
    repair_torchvision()
    try:
        import denoising_diffusion_pytorch
        import ema_pytorch
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is missing, which only this benchmark needs: run `make bench-peers`, or"
            f" python -m pip install --no-deps --target {PACKAGES} -r {PACKAGES.parent / 'requirements.txt'}"
        ) from None
    return denoising_diffusion_pytorch, ema_pytorch


def build(settings: dict[str, Any], mode: Mode) -> Peer:
    """The recipe with fresh weights, in the faster mode."""
    package, averaging = load_package()
    unet = mode.laid_out(package.Unet(dim=settings["channels"], dim_mults=(1, 2, 4), channels=1))
    diffusion = package.GaussianDiffusion(unet, image_size=28, timesteps=1000, sampling_timesteps=EVALUATIONS)
    average = averaging.EMA(diffusion, beta=0.995, update_every=10)

    def loss_by(model: Any, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.bf16):
            return model((images + 1) / 2)

    def draw(count: int, evaluations: int) -> Tensor:
        average.ema_model.sampling_timesteps = evaluations
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.bf16):
            return unnormalise(2 * average.ema_model.sample(batch_size=count).float() - 1, IMAGES)

    parameters = list(diffusion.parameters())
    optimiser = torch.optim.Adam(parameters, lr=settings["learning_rate"], betas=(0.9, 0.99))
    return Peer(
        loss=lambda images, labels: loss_by(diffusion, images),
        averaged_loss=lambda images, labels: loss_by(average.ema_model, images),
        parameters=parameters,
        optimiser=optimiser,
        batch_size=BATCH_SIZE,
        draw=draw,
        gradient_clip=1.0,
        after_step=average.update,
    )
