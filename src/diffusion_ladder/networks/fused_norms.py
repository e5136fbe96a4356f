"""Group norm, its modulation by the time, and SiLU: what a U-Net does between two convolutions, as one operation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffusion_ladder.networks.norm_kernel import kernel


def norm_silu(norm: nn.GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """silu(norm(x) * (1 + scale) + shift), computed in float32 whatever the precision of x.

    Args:
        norm: with weight and bias.
        x: (B, C, H, W).
        scale: (B, C), with `shift`: the modulation of AdaGN (arXiv 2105.05233, section 3.1); None for none.
        shift: (B, C).

    Returns:
        (B, C, H, W) in the precision of x.
    """
    return normalised(norm, x, scale, shift, activate=True)


def normalised(
    norm: nn.GroupNorm, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, activate: bool = False
) -> Tensor:
    """The same as `norm_silu`, with SiLU only where it is to `activate`."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and kernel(x.dtype):
        gain, offset = norm.weight.expand(len(x), -1), norm.bias.expand(len(x), -1)  # (B, C)
        if scale is not None and shift is not None:
            gain, offset = gain * (1 + scale.float()), offset * (1 + scale.float()) + shift
        return ModulatedNorm.apply(x, gain, offset, norm.num_groups, norm.eps, activate)  # type: ignore[no-any-return]
    hidden = nn.functional.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    if scale is not None and shift is not None:
        hidden = hidden * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return (nn.functional.silu(hidden) if activate else hidden).to(x.dtype)


class ModulatedNorm(torch.autograd.Function):
    """act(gain (x - mean) / std + offset), mean and std over each group's channels and pixels (arXiv 1803.08494).

    Of the activations only x is kept for the way back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float, activate: bool) -> Tensor:
        """(B, C, H, W), (B, C) and (B, C) to (B, C, H, W)."""
        x = x.contiguous(memory_format=torch.channels_last)
        gain, offset = gain.float().contiguous(), offset.float().contiguous()
        y, statistics = torch.empty_like(x), gain.new_empty(len(gain), 2, gain.shape[1])
        run("forward", [x, gain, offset, y, statistics], x, groups, eps, activate)
        ctx.save_for_backward(x, gain, offset, statistics)
        ctx.groups, ctx.activate = groups, activate
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, gain and offset."""
        x, gain, offset, statistics = ctx.saved_tensors
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, d_gain, d_offset = torch.empty_like(x), torch.empty_like(gain), torch.empty_like(offset)
        scratch = gain.new_empty(torch.get_num_threads(), x[0].numel())
        tensors = [x, dy, gain, offset, statistics, dx, d_gain, d_offset, scratch]
        run("backward", tensors, x, ctx.groups, ctx.activate)
        return dx, d_gain, d_offset, None, None, None


def run(function: str, tensors: list[Tensor], x: Tensor, groups: int, *options: float) -> None:
    """Call a function of the kernel for x, (B, C, H, W) channels last."""
    images, channels, height, width = x.shape
    pointers = [tensor.data_ptr() for tensor in tensors]
    sizes = images, height * width, channels, groups
    getattr(kernel(x.dtype), function)(*pointers, *sizes, *options, torch.get_num_threads())
