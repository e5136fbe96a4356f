"""A peer of peers.py: digits by the recipe of the Hugging Face diffusion course (unit 2, "class-conditioned").

A UNet2DModel of 32, 64 and 64 channels, as in the notebook from scratch of unit 1, that is told the class by four more
input channels; DDPMScheduler with squaredcos_cap_v2, mean squared error of the noise, batches of 128, a constant
learning rate of 1e-3. The samples are drawn in all 1000 steps. AdamW stands in place of Adam, and 4e-4 is the rate of
the course's introduction to diffusers.
"""

from typing import Any

import torch
from peer import Mode, Peer
from plain_diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from diffusion_ladder.data.normalise import IMAGES, unnormalise

NAME = "diffusion course"
SAMPLER = "DDPM"
EVALUATIONS = 1000  # of the network for a sample: all steps
SETTINGS = [{"learning_rate": 1e-3}, {"learning_rate": 4e-4}, {"learning_rate": 3e-3}]
BATCH_SIZE = 128
CLASSES, CLASS_CHANNELS = 10, 4


class LabelledUNet(nn.Module):
    """A UNet2DModel that sees an embedding of the class beside every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Embedding(CLASSES, CLASS_CHANNELS)
        self.unet = UNet2DModel(
            sample_size=28,
            in_channels=1 + CLASS_CHANNELS,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """(B, 1, H, W) noisy images, timesteps and (B,) labels to the predicted noise."""
        told = self.classes(labels)[:, :, None, None].expand(-1, -1, *noisy.shape[2:])  # (B, 4, H, W)
        return self.unet(torch.cat([noisy, told], dim=1), timesteps).sample


def build(settings: dict[str, Any], mode: Mode) -> Peer:
    """The recipe with fresh weights, in the faster mode."""
    network = mode.laid_out(LabelledUNet())
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")

    def predict(noisy: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode.bf16):
            return network(noisy, timesteps, labels).float()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        noise = torch.randn_like(images)
        timesteps = torch.randint(1000, (len(images),))
        return nn.functional.mse_loss(predict(scheduler.add_noise(images, noise, timesteps), timesteps, labels), noise)

    @torch.no_grad()
    def draw(count: int, evaluations: int) -> Tensor:
        x, labels = torch.randn(count, 1, 28, 28), torch.arange(count) % CLASSES
        scheduler.set_timesteps(evaluations)
        for timestep in scheduler.timesteps:
            x = scheduler.step(predict(x, timestep, labels), timestep, x).prev_sample
        return unnormalise(x, IMAGES)

    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=settings["learning_rate"])
    return Peer(loss, loss, parameters, optimiser, BATCH_SIZE, draw)
