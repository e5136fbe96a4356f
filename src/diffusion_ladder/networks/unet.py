"""The U-Net of Part 2.1, from scratch: the network of DDPM (arXiv 2006.11239, appendix B).

Its topology, and so its parameter names, follow diffusers' UNet2DModel: the weights of an equally configured
UNet2DModel load into it unchanged, by `load_state_dict`. What the library hides, this file shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_ladder.foundation.artifacts import read_tensors, write_tensors
from diffusion_ladder.networks.attention import attend
from diffusion_ladder.networks.embeddings import TimeEmbedding, condition, fold, unfold
from diffusion_ladder.networks.fused_norms import norm_silu, normalised
from diffusion_ladder.networks.initialisation import zero_last_layers
from diffusion_ladder.params.network import UNetNetwork


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a U-Net share."""

    time_size: int
    norm_groups: int
    scale_shift: bool
    head_size: int


class ResidualBlock(nn.Module):
    """Two convolutions around a time conditioning, with a shortcut: x + conv2(f(conv1(x), time)).

    With `scale_shift` the time scales and shifts the second norm's output (Dhariwal and Nichol 2021,
    arXiv 2105.05233, section 3.1, as AdaGN); without, it is added after the first convolution, as in DDPM.
    """

    def __init__(self, in_channels: int, out_channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.scale_shift = options.scale_shift
        self.norm1 = nn.GroupNorm(options.norm_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(options.time_size, out_channels * (2 if options.scale_shift else 1))
        self.norm2 = nn.GroupNorm(options.norm_groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, in_channels, H, W) and (B, time_size) to (B, out_channels, H, W)."""
        hidden = self.conv1(norm_silu(self.norm1, x))
        condition = self.time_emb_proj(nn.functional.silu(time))
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)  # each (B, out_channels)
            hidden = norm_silu(self.norm2, hidden, scale, shift)  # silu(norm2(hidden) * (1 + scale) + shift)
        else:
            hidden = norm_silu(self.norm2, hidden + condition[:, :, None, None])
        return self.conv_shortcut(x) + self.conv2(hidden)


class SelfAttention(nn.Module):
    """Every pixel attends to every pixel: softmax(Q K^T / sqrt(d)) V, with a residual connection."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        self.heads = channels // options.head_size
        self.group_norm = nn.GroupNorm(options.norm_groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        pixels = normalised(self.group_norm, x).flatten(2).transpose(1, 2)  # (B, HW, C)
        attended = self.to_out[0](attend(pixels, [self.to_q, self.to_k, self.to_v], self.heads))  # (B, HW, C)
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve height and width by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, ceil(H/2), ceil(W/2))."""
        return self.conv(x)


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def residual_blocks(in_channels: Sequence[int], out_channels: int, options: BlockOptions) -> nn.ModuleList:
    """One residual block for each entry of `in_channels`, all with the same output channels."""
    return nn.ModuleList(ResidualBlock(channels, out_channels, options) for channels in in_channels)


def attention_blocks(count: int, channels: int, options: BlockOptions) -> nn.ModuleList:
    """`count` self-attention blocks."""
    return nn.ModuleList(SelfAttention(channels, options) for _ in range(count))


class DownLevel(nn.Module):
    """One resolution on the way down: residual blocks, each followed by attention where there is any, then halving."""

    def __init__(
        self, in_channels: int, channels: int, layers: int, attention: bool, halve: bool, options: BlockOptions
    ) -> None:
        super().__init__()
        self.resnets = residual_blocks([in_channels] + [channels] * (layers - 1), channels, options)
        self.attentions = attention_blocks(layers if attention else 0, channels, options)
        self.downsamplers = nn.ModuleList([Downsample(channels)] if halve else [])

    def forward(self, x: Tensor, time: Tensor) -> list[Tensor]:
        """(B, C, H, W) and (B, time_size) to every output of the level, for the skip connections; the last goes on."""
        outputs = []
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = resnet(x, time)
            x = attention(x) if attention else x
            outputs.append(x)
        for downsample in self.downsamplers:
            outputs.append(downsample(x))
        return outputs


class UpLevel(nn.Module):
    """One resolution on the way up: residual blocks that each take a skip connection, then doubling."""

    def __init__(
        self, in_channels: Sequence[int], channels: int, attention: bool, double: bool, options: BlockOptions
    ) -> None:
        super().__init__()
        self.resnets = residual_blocks(in_channels, channels, options)
        self.attentions = attention_blocks(len(in_channels) if attention else 0, channels, options)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if double else [])

    def forward(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        """(B, C, H, W), (B, time_size) and the skip connections, the latest last, which it uses up."""
        for resnet, attention in zip_longest(self.resnets, self.attentions):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            x = attention(x) if attention else x
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class Middle(nn.Module):
    """The bottom of the U: block, attention, block."""

    def __init__(self, channels: int, attention: bool, options: BlockOptions) -> None:
        super().__init__()
        self.resnets = residual_blocks([channels, channels], channels, options)
        self.attentions = attention_blocks(1 if attention else 0, channels, options)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) and (B, time_size) to (B, C, H, W)."""
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, time)


class UNet(nn.Module):
    """Predicts the noise in a noisy image: (B, C, H, W), (B,) timesteps [, (B,) labels] to (B, C, H, W).

    Args:
        in_channels: channels of the images.
        settings: see params.yaml, `models.mnist_scratch.network`.
        num_class_embeds: rows of the class embedding (null label included), or None for no labels.
    """

    def __init__(self, in_channels: int, settings: UNetNetwork, num_class_embeds: int | None) -> None:
        super().__init__()
        channels, layers, time_size = (
            settings.block_out_channels,
            settings.layers_per_block,
            settings.time_embedding_size,
        )
        options = BlockOptions(time_size, settings.norm_groups, settings.scale_shift, settings.attention_head_size)
        folded = in_channels * settings.patch_size**2
        self.patch_size = settings.patch_size
        self.haar = settings.folding == "haar"
        self.time_embedding = TimeEmbedding(channels[0], time_size)
        self.class_embedding = nn.Embedding(num_class_embeds, time_size) if num_class_embeds else None
        self.conv_in = nn.Conv2d(folded, channels[0], 3, padding=1)
        self.down_blocks = down_levels(channels, layers, settings.attention_levels, options)
        self.mid_block = Middle(channels[-1], settings.middle_attention, options)
        self.up_blocks = up_levels(channels, layers, settings.attention_levels, options)
        self.conv_norm_out = nn.GroupNorm(settings.norm_groups, channels[0])
        self.conv_out = nn.Conv2d(channels[0], folded, 3, padding=1)

    def condition(self, timestep: Tensor, class_labels: Tensor | None) -> Tensor:
        """(B,) timesteps and labels to the (B, time_size) vector that conditions every block."""
        return condition(self.time_embedding(timestep), self.class_embedding, class_labels)

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the target of a noisy image.

        Args:
            sample: (B, in_channels, H, W) noisy images x_t.
            timestep: (B,) int64 in [0, T).
            class_labels: (B,) int64 in [0, num_class_embeds), or None without a class embedding.

        Returns:
            (B, in_channels, H, W) prediction (of epsilon, unless another target is trained).
        """
        time = self.condition(timestep, class_labels)
        hidden = self.conv_in(fold(sample, self.patch_size, self.haar))
        skips = [hidden]
        for down in self.down_blocks:
            skips += down(skips[-1], time)
        hidden = self.mid_block(skips[-1], time)
        for up in self.up_blocks:
            hidden = up(hidden, time, skips)
        hidden = self.conv_out(norm_silu(self.conv_norm_out, hidden))
        return unfold(hidden, self.patch_size, self.haar)


def down_levels(
    channels: Sequence[int], layers: int, attention: Sequence[bool], options: BlockOptions
) -> nn.ModuleList:
    """The levels from full resolution down; all but the last halve the size."""
    inputs = [channels[0], *channels[:-1]]
    last = len(channels) - 1
    return nn.ModuleList(
        DownLevel(inputs[i], channels[i], layers, attention[i], i < last, options) for i in range(len(channels))
    )


def up_levels(channels: Sequence[int], layers: int, attention: Sequence[bool], options: BlockOptions) -> nn.ModuleList:
    """The levels from the bottom up, with one block more than on the way down; all but the last double the size."""
    skips = [channels[0]]  # the channels of every tensor that a skip connection carries, in the order of the way down
    for i, out in enumerate(channels):
        skips += [out] * (layers + (i < len(channels) - 1))
    levels = nn.ModuleList()
    current = channels[-1]
    for i in reversed(range(len(channels))):
        carried = [current] + [channels[i]] * layers
        inputs = [hidden + skips.pop() for hidden in carried]
        current = channels[i]
        levels.append(UpLevel(inputs, current, attention[i], i > 0, options))
    return levels


WEIGHTS = "model.safetensors"


def build(settings: UNetNetwork, sample_shape: tuple[int, ...], num_class_embeds: int | None) -> UNet:
    """The network for samples of `sample_shape` (C, H, W), with fresh weights from torch's current random state."""
    network = UNet(sample_shape[0], settings, num_class_embeds)
    if settings.zero_init:
        zero_last_layers(network)
    return network


def save(network: UNet, folder: Path) -> None:
    """Write the weights to model.safetensors."""
    write_tensors(folder / WEIGHTS, network.state_dict(), {})


def load(settings: UNetNetwork, sample_shape: tuple[int, ...], folder: Path) -> UNet:
    """Read what `save` wrote."""
    weights = read_tensors(folder / WEIGHTS)
    classes = weights.get("class_embedding.weight")
    network = build(settings, sample_shape, None if classes is None else len(classes))
    network.load_state_dict(weights)
    return network
