"""Shorter ways through diffusers' blocks: the same weights and the same results, without the detours.

The library copies activations from channels last to channels first and back (before shortcuts, in the attention, before
large batches are doubled) and divides by scale factors of one, which on a processor costs as much as a convolution.
"""

from types import MethodType
from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from diffusion_ladder.networks.attention import attend


def streamline(unet: UNet2DModel) -> UNet2DModel:
    """Give the blocks of a UNet2DModel, as diffusers_unet.py configures it, shorter forwards; nothing else changes."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = MethodType(residual_block, module)  # type: ignore[method-assign]
        elif isinstance(module, Attention):
            module.forward = MethodType(attention_block, module)  # type: ignore[method-assign]
        elif isinstance(module, Upsample2D):
            module.forward = MethodType(upsample, module)  # type: ignore[method-assign]
    return unet


def residual_block(block: ResnetBlock2D, x: Tensor, time: Tensor, *_: Any) -> Tensor:
    """(B, C, H, W) and (B, time_size) to (B, C', H, W)."""
    hidden = block.conv1(nn.functional.silu(block.norm1(x)))
    condition = block.time_emb_proj(nn.functional.silu(time))[:, :, None, None]
    if block.time_embedding_norm == "scale_shift":
        scale, shift = condition.chunk(2, dim=1)  # each (B, C', 1, 1)
        hidden = block.norm2(hidden) * (1 + scale) + shift
    else:
        hidden = block.norm2(hidden + condition)
    hidden = block.conv2(nn.functional.silu(hidden))
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + hidden


def attention_block(block: Attention, x: Tensor, **_: Any) -> Tensor:
    """(B, C, H, W) to the same shape."""
    pixels = block.group_norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C)
    attended = attend(pixels, [block.to_q, block.to_k, block.to_v], block.heads)
    return x + block.to_out[0](attended).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def upsample(block: Upsample2D, x: Tensor, *_: Any) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W)."""
    return block.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[misc]
