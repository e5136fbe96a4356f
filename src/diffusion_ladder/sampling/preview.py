"""Samples drawn while a network is trained: few, quickly, and from the same noise every time."""

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import unnormalise
from diffusion_ladder.params.training import Previews
from diffusion_ladder.rungs import Rung, build_scheduler
from diffusion_ladder.sampling.guidance import conditional
from diffusion_ladder.sampling.loop import noise_of, reverse_process


@torch.no_grad()
def draw_preview(rung: Rung, settings: Previews, seed: int, precision: torch.dtype = torch.float32) -> Tensor:
    """(N, ...) samples by DDIM in data units, on the CPU; an equal share for each class, with the same noise.

    The noise is that of the rung's finished samples of sampling seed 0: the previews show how those come about.

    Args:
        rung: its network with the weights to draw with, in evaluation mode.
        settings: N, the steps and the spacing.
        seed: the root seed.
        precision: of matrix products.
    """
    options = {"timestep_spacing": settings.spacing, "clip_sample": settings.clip_sample}
    scheduler = build_scheduler("ddim", rung.schedule, **options)
    scheduler.set_timesteps(settings.steps)
    classes = max(1, rung.num_classes)
    indices = torch.arange(settings.count) % (settings.count // classes)
    x_T, generators = noise_of(rung, indices, torch.zeros_like(indices), seed)
    labels = torch.arange(classes).repeat_interleave(settings.count // classes).to(x_T.device)
    predict = conditional(rung, labels if rung.num_classes else None, precision)
    for state in reverse_process(predict, scheduler, x_T, generators, use_clipped_model_output=settings.clip_sample):
        x_0 = state.previous
    return unnormalise(x_0, rung.normalisation).cpu()
