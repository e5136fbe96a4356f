"""Shorter ways through diffusers' blocks: the same weights and the same results, without the detours.

The library copies activations from channels last to channels first and back (before shortcuts, in the attention, before
large batches are doubled), divides by scale factors of one, and normalises, modulates and activates one after another,
which on a processor takes longer than the convolutions.
"""

from types import MethodType
from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from diffusion_ladder.networks.attention import attend
from diffusion_ladder.networks.fused_norms import norm_silu, normalised


def streamline(unet: UNet2DModel) -> UNet2DModel:
    """Give the blocks of a UNet2DModel, as diffusers_unet.py configures it, shorter forwards; nothing else changes."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = MethodType(residual_block, module)  # type: ignore[method-assign]
        elif isinstance(module, Attention):
            module.forward = MethodType(attention_block, module)  # type: ignore[method-assign]
        elif isinstance(module, Upsample2D):
            module.forward = MethodType(upsample, module)  # type: ignore[method-assign]
    unet.conv_norm_out.forward = MethodType(norm_silu, unet.conv_norm_out)  # type: ignore[method-assign]
    unet.conv_act = nn.Identity()  # type: ignore[assignment]  # it is activated by then
    return unet


def residual_block(block: ResnetBlock2D, x: Tensor, time: Tensor, *_: Any) -> Tensor:
    """(B, C, H, W) and (B, time_size) to (B, C', H, W)."""
    hidden = block.conv1(norm_silu(block.norm1, x))
    condition = block.time_emb_proj(nn.functional.silu(time))
    if block.time_embedding_norm == "scale_shift":
        hidden = norm_silu(block.norm2, hidden, *condition.chunk(2, dim=1))
    else:
        hidden = norm_silu(block.norm2, hidden + condition[:, :, None, None])
    return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + block.conv2(hidden)


def attention_block(block: Attention, x: Tensor, **_: Any) -> Tensor:
    """(B, C, H, W) to the same shape."""
    pixels = normalised(block.group_norm, x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, HW, C)
    attended = attend(pixels, [block.to_q, block.to_k, block.to_v], block.heads)
    return x + block.to_out[0](attended).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def upsample(block: Upsample2D, x: Tensor, *_: Any) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W)."""
    return block.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[misc]
