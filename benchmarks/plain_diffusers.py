"""The peer: a training loop as users of diffusers write it, after its example of unconditional image generation.

Float images from a shuffling DataLoader, DDPMScheduler.add_noise, UNet2DModel, AdamW, a cosine schedule, EMAModel, and
the loss read after every step for the log. Left out are Accelerate and the disk, which would only slow it down: the
images are decoded, scaled and folded in advance. Its bf16 is autocast around the network.
"""

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from diffusion_ladder.torchvision_import import repair_torchvision

repair_torchvision()

from diffusers.models.unets.unet_2d import UNet2DModel  # noqa: E402
from diffusers.optimization import get_scheduler  # noqa: E402
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # noqa: E402
from diffusers.training_utils import EMAModel  # noqa: E402


def batches(images: Tensor, labels: Tensor, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless epochs of (B, C, H, W) float images in [-1, 1] and (B,) labels, on the device."""
    pinned = device.type == "cuda"
    loader = DataLoader(
        TensorDataset(images, labels), batch_size=batch_size, shuffle=True, drop_last=True, pin_memory=pinned
    )
    for _ in repeat(None):
        for clean, label in loader:
            yield clean.to(device, non_blocking=pinned), label.to(device, non_blocking=pinned)


def train(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    steps: int,
    bf16: bool,
) -> Iterator[float]:
    """Train; yields each step's loss, after the average of the weights is updated.

    Args:
        images: (N, C, H, W) float32 in [-1, 1], on the CPU.
        labels: (N,) int64, used where the network has a class embedding.
    """
    device = unet.device
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=steps)
    average = EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    unet.train()
    for clean, label in batches(images, labels, batch_size, device):
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), device=device)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            classes = label if unet.class_embedding is not None else None
            prediction = unet(noisy, timesteps, class_labels=classes).sample
        loss = nn.functional.mse_loss(prediction.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        average.step(unet.parameters())
        yield loss.detach().item()
