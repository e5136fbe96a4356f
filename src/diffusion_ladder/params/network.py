"""The networks: a section for each module under networks/."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import Positive, Section, validated


class MLPNetwork(Section):
    """Settings of networks/mlp.py."""

    name: Literal["mlp"]
    hidden_size: Positive
    hidden_layers: Positive
    time_embedding_size: Annotated[int, Field(gt=0, multiple_of=2)]
    zero_init: bool = False


class DiffusersUNetNetwork(Section):
    """Settings of networks/diffusers_unet.py."""

    name: Literal["diffusers_unet"]
    block_out_channels: Annotated[list[Positive], Field(min_length=1)]
    layers_per_block: Positive
    attention_levels: list[bool]
    attention_head_size: Positive
    norm_groups: Positive
    scale_shift: bool
    middle_attention: bool
    time_embedding_size: Annotated[int, Field(gt=0, multiple_of=2)]
    patch_size: Positive
    folding: Literal["haar"] | None = None
    zero_init: bool = False

    @model_validator(mode="after")
    def channels_fit(self) -> "DiffusersUNetNetwork":
        """Every level needs an attention flag, and channels that the norm groups and the attention heads divide."""
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError("attention_levels and block_out_channels must have one entry per level")
        for channels, attention in zip(self.block_out_channels, self.attention_levels, strict=True):
            if channels % self.norm_groups:
                raise ValueError(f"block_out_channels: {channels} is no multiple of norm_groups = {self.norm_groups}")
            if attention and channels % self.attention_head_size:
                head = self.attention_head_size
                raise ValueError(f"block_out_channels: {channels} is no multiple of attention_head_size = {head}")
        if self.middle_attention and self.block_out_channels[-1] % self.attention_head_size:
            raise ValueError("block_out_channels: the last level is no multiple of attention_head_size")
        if self.folding and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(f"folding: the Haar transform needs a patch_size of 2, 4, 8 ..., not {self.patch_size}")
        return self


class UNetNetwork(DiffusersUNetNetwork):
    """Settings of networks/unet.py."""

    name: Literal["unet"]  # type: ignore[assignment]


Network = MLPNetwork | UNetNetwork | DiffusersUNetNetwork
NamedNetwork = Annotated[Network, Field(discriminator="name")]


def network_settings(values: dict[str, Any], key: str = "network") -> Network:
    """The settings of the network that `values["name"]` names; `key` is for complaints.

    Raises:
        ParameterError: a key or a value that this network does not know.
    """
    return validated(NamedNetwork, values, key)  # type: ignore[arg-type, return-value]
