"""The library's U-Net: diffusers' UNet2DModel, with the same settings as the U-Net written here.

With `patch_size` above 1 the UNet2DModel works on folded images: squares of pixels become channels before it and pixels
again after it. Nothing is lost, and the noise stays independent from value to value, so the diffusion process is the
same; the network is cheaper, and its convolutions reach further by that factor. The weights are saved as a plain
UNet2DModel, which `UNet2DModel.from_pretrained` loads back.

diffusers imports torchvision: where that fails, call `torchvision_import.repair_torchvision` first, as rungs.py does.
"""

from pathlib import Path

from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from diffusion_ladder.networks.diffusers_blocks import streamline
from diffusion_ladder.networks.embeddings import fold, unfold
from diffusion_ladder.networks.initialisation import zero_last_layers
from diffusion_ladder.params.network import DiffusersUNetNetwork


class DiffusersUNet(nn.Module):
    """UNet2DModel between folding and unfolding, called as the networks written here are."""

    def __init__(self, unet: UNet2DModel, patch_size: int, haar: bool) -> None:
        super().__init__()
        self.unet = streamline(unet)
        self.patch_size = patch_size
        self.haar = haar

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) noisy images, (B,) timesteps and, for a conditional model, (B,) labels to (B, C, H, W)."""
        folded = fold(sample, self.patch_size, self.haar)
        return unfold(self.unet(folded, timestep, class_labels=class_labels).sample, self.patch_size, self.haar)


def build(settings: DiffusersUNetNetwork, sample_shape: tuple[int, ...], num_class_embeds: int | None) -> DiffusersUNet:
    """The network for samples of `sample_shape` (C, H, W), with fresh weights from torch's current random state."""
    channels, height, width = sample_shape
    folded_channels = channels * settings.patch_size**2
    attention = list(settings.attention_levels)
    unet = UNet2DModel(
        sample_size=(height // settings.patch_size, width // settings.patch_size),
        in_channels=folded_channels,
        out_channels=folded_channels,
        layers_per_block=settings.layers_per_block,
        block_out_channels=tuple(settings.block_out_channels),
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attention),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention)),
        attention_head_dim=settings.attention_head_size,
        norm_num_groups=settings.norm_groups,
        attn_norm_num_groups=settings.norm_groups,  # by default there would be no norm with scale_shift
        resnet_time_scale_shift="scale_shift" if settings.scale_shift else "default",
        add_attention=settings.middle_attention,
        time_embedding_dim=settings.time_embedding_size,
        num_class_embeds=num_class_embeds,
    )
    if settings.zero_init:
        zero_last_layers(unet)
    return DiffusersUNet(unet, settings.patch_size, settings.folding == "haar")


def save(network: DiffusersUNet, folder: Path) -> None:
    """Write config.json and diffusion_pytorch_model.safetensors, as diffusers' `save_pretrained` has it."""
    network.unet.save_pretrained(folder)


def load(settings: DiffusersUNetNetwork, sample_shape: tuple[int, ...], folder: Path) -> DiffusersUNet:
    """Read what `save` wrote."""
    unet = UNet2DModel.from_pretrained(folder, local_files_only=True)
    return DiffusersUNet(unet, settings.patch_size, settings.folding == "haar")
