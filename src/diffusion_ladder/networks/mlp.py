"""The network of Part 1: a residual multilayer perceptron on points of the plane."""

from pathlib import Path

from torch import Tensor, nn

from diffusion_ladder.foundation.artifacts import read_tensors, write_tensors
from diffusion_ladder.networks.embeddings import TimeEmbedding, condition
from diffusion_ladder.networks.initialisation import zero_last_layers
from diffusion_ladder.params.network import MLPNetwork

WEIGHTS = "model.safetensors"


class ResidualLayer(nn.Module):
    """h + W2 silu(W1 silu(norm(h)) + W_t c): one step of the perceptron, conditioned on the time c."""

    def __init__(self, hidden_size: int, time_embedding_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.linear_1 = nn.Linear(hidden_size, hidden_size)
        self.time_projection = nn.Linear(time_embedding_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """(B, hidden_size) and (B, time_embedding_size) to (B, hidden_size)."""
        inner = self.linear_1(nn.functional.silu(self.norm(hidden))) + self.time_projection(time)
        return hidden + self.linear_2(nn.functional.silu(inner))


class MLP(nn.Module):
    """Predicts the noise in a noisy point: (B, in_channels), (B,) timesteps [, (B,) labels] to (B, in_channels).

    Args:
        in_channels: numbers in a point.
        settings: see params.yaml, `rungs.circles.network`.
        num_class_embeds: rows of the class embedding (null label included), or None for no labels.
    """

    def __init__(self, in_channels: int, settings: MLPNetwork, num_class_embeds: int | None = None) -> None:
        super().__init__()
        hidden_size, time_embedding_size = settings.hidden_size, settings.time_embedding_size
        self.time_embedding = TimeEmbedding(time_embedding_size, time_embedding_size)
        self.class_embedding = nn.Embedding(num_class_embeds, time_embedding_size) if num_class_embeds else None
        self.linear_in = nn.Linear(in_channels, hidden_size)
        self.layers = nn.ModuleList(
            ResidualLayer(hidden_size, time_embedding_size) for _ in range(settings.hidden_layers)
        )
        self.norm_out = nn.LayerNorm(hidden_size)
        self.linear_out = nn.Linear(hidden_size, in_channels)

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict the target of a noisy sample.

        Args:
            sample: (B, in_channels) noisy points x_t, in standardised units.
            timestep: (B,) int64 in [0, T).
            class_labels: (B,) int64 in [0, num_class_embeds), or None without a class embedding.

        Returns:
            (B, in_channels) prediction (of epsilon, unless another target is trained).
        """
        time = condition(self.time_embedding(timestep), self.class_embedding, class_labels)  # (B, time_embedding_size)
        time = nn.functional.silu(time)
        hidden = self.linear_in(sample)  # (B, hidden_size)
        for layer in self.layers:
            hidden = layer(hidden, time)
        return self.linear_out(nn.functional.silu(self.norm_out(hidden)))


def build(settings: MLPNetwork, sample_shape: tuple[int, ...], num_class_embeds: int | None) -> MLP:
    """The network for samples of `sample_shape` (D,), with fresh weights from torch's current random state."""
    network = MLP(sample_shape[0], settings, num_class_embeds)
    if settings.zero_init:
        zero_last_layers(network)
    return network


def save(network: MLP, folder: Path) -> None:
    """Write the weights to model.safetensors."""
    write_tensors(folder / WEIGHTS, network.state_dict(), {})


def load(settings: MLPNetwork, sample_shape: tuple[int, ...], folder: Path) -> MLP:
    """Read what `save` wrote."""
    weights = read_tensors(folder / WEIGHTS)
    classes = weights.get("class_embedding.weight")
    network = build(settings, sample_shape, None if classes is None else len(classes))
    network.load_state_dict(weights)
    return network
