"""The judge of images: a small convolutional classifier, trained on the same training split as the diffusion models."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.foundation.artifacts import read_json, read_tensors, sha256_of_file, write_json, write_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.classifier import Classifier as Settings

WEIGHTS, CARD = "model.safetensors", "classifier.json"


class Classifier(nn.Module):
    """Convolutions of stride 2, a linear layer to the features, and one to the logits, with batch norm between.

    Attributes:
        architecture: the constructor's arguments, from which an empty copy can be made.
    """

    def __init__(
        self, sample_shape: Sequence[int], channels: Sequence[int], feature_size: int, num_classes: int
    ) -> None:
        """Build the network.

        Args:
            sample_shape: (C, H, W) of the images.
            channels: of each convolution; each halves height and width, rounding up.
            feature_size: length of the penultimate features.
            num_classes: number of logits.
        """
        super().__init__()
        self.architecture: dict[str, Any] = {
            "sample_shape": list(sample_shape),
            "channels": list(channels),
            "feature_size": feature_size,
            "num_classes": num_classes,
        }
        in_channels, height, width = sample_shape
        layers: list[nn.Module] = []
        for out_channels in channels:
            layers += [
                nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
            in_channels, height, width = out_channels, math.ceil(height / 2), math.ceil(width / 2)
        self.convolutions = nn.Sequential(*layers)
        self.embed = nn.Linear(in_channels * height * width, feature_size, bias=False)
        self.embed_norm = nn.BatchNorm1d(feature_size)
        self.head = nn.Linear(feature_size, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to the penultimate features (B, feature_size).

        They are taken before the rectifier: so they come closer to the Gaussian that a Frechet distance supposes.
        """
        return self.embed_norm(self.embed(self.convolutions(images).flatten(1)))

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, feature_size) to logits (B, num_classes)."""
        return self.head(nn.functional.relu(features))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, num_classes)."""
        return self.classify(self.features(images))


@dataclass(frozen=True)
class Judgement:
    """What a classifier finds in images; all on the CPU in float64.

    Attributes:
        features: (N, feature_size).
        probabilities: (N, num_classes), rows sum to 1.
    """

    features: Tensor
    probabilities: Tensor

    @property
    def predictions(self) -> Tensor:
        """The likeliest class of each image, (N,) int64."""
        return self.probabilities.argmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """The likeliest class's probability, (N,)."""
        return self.probabilities.amax(dim=1)


@torch.no_grad()
def judge(
    classifier: Classifier,
    images: Tensor,
    normalisation: Normalisation,
    batch_size: int = 256,
    dtype: torch.dtype = torch.float64,
) -> Judgement:
    """Let a classifier look at images, in evaluation mode.

    It computes in float64, so that the numbers hardly depend on the batch size and the device; on the CPU where the
    device has no float64 (mps). The classifier itself is left as it is.

    Args:
        images: (N, C, H, W) uint8.
        batch_size: images per network call.
        dtype: float32 is enough, and faster, where no more than the likeliest class is of interest.
    """
    device = next(classifier.parameters()).device
    device = torch.device("cpu") if device.type == "mps" else device
    network = copy.deepcopy(classifier).to(device=device, dtype=dtype).eval()
    features, probabilities = [], []
    for batch in images.split(batch_size):
        embedded = network.features(normalise(batch, normalisation).to(device, dtype))
        features.append(embedded.cpu().double())
        probabilities.append(network.classify(embedded).softmax(dim=1).cpu().double())
    return Judgement(torch.cat(features), torch.cat(probabilities))


def parameter_count(classifier: Classifier) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in classifier.parameters())


def new_classifier(
    sample_shape: Sequence[int], settings: Settings, num_classes: int, generator: Generator
) -> Classifier:
    """A classifier with fresh weights.

    They are drawn from `generator` alone (see `draw_weights`). Torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):  # the constructors draw weights, which are replaced
        classifier = Classifier(sample_shape, settings.channels, settings.feature_size, num_classes)
    draw_weights(classifier, generator)
    return classifier


def draw_weights(network: nn.Module, generator: Generator) -> None:
    """Draw the weights of all convolutions and linear layers in place: He et al. 2015, eq. 10.

    That is arXiv 1502.01852. Biases are 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def augment(images: Tensor, shift: int, flip: bool, generator: Generator) -> Tensor:
    """Translate each image at random and mirror half of them; border pixels fill what a translation uncovers.

    Args:
        images: (B, C, H, W) of any type, on any device.
        shift: the largest translation in pixels, along each axis.
        flip: whether to mirror left and right, with probability 1/2.

    Returns:
        (B, C, H, W) of the same type, in the memory format channels_last, in which convolutions are faster.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
    mirrored = (torch.rand(count, 1, generator=generator) < 0.5) & flip
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)  # (B, H): which source row each row shows
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)  # (B, W)
    columns = torch.where(mirrored, width - 1 - columns, columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    channels_last = images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return channels_last.permute(0, 3, 1, 2)


def shuffled_batches(count: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Endless batches (batch_size,) of the indices 0 to count - 1, shuffled anew when all of them have been used."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def train(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    normalisation: Normalisation,
    settings: Settings,
    order: Generator,
    augmentation: Generator,
) -> Iterator[Tensor]:
    """Train a classifier in place by AdamW on the cross entropy; the learning rate falls from its peak along a cosine.

    Args:
        classifier: on the device of the data.
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        order: draws which images make up a batch.
        augmentation: draws how they are moved.

    Yields:
        the loss, a scalar on the device, after each step.
    """
    classifier.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=settings.weight_decay, fused=True)
    batches = shuffled_batches(len(images), settings.batch_size, order)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        index = next(batches).to(images.device)
        batch = normalise(augment(images[index], settings.shift, settings.flip, augmentation), normalisation)
        loss = nn.functional.cross_entropy(classifier(batch), labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.detach()
    classifier.eval()


def check_accuracy(accuracy: float, least: float, key: str) -> None:
    """Refuse a classifier as a judge that is itself too often wrong.

    Args:
        accuracy: on held-out images.
        least: the lowest that will do.
        key: of the classifier's settings in params.yaml.

    Raises:
        UserError: it is below the limit.
    """
    if accuracy < least:
        raise UserError(
            f"{key}.min_accuracy: on held-out images the classifier reaches {accuracy:.4f}, less than {least:g}, and so"
            " can't serve as a judge: train it longer, or lower the limit"
        )


def save_classifier(classifier: Classifier, folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Write weights and card to a folder.

    Args:
        facts: what the card says besides the architecture, such as the class names and the held-out accuracy.
    """
    weights = Path(folder) / WEIGHTS
    write_tensors(weights, classifier.state_dict(), {})
    card = {"architecture": classifier.architecture, "weights_sha256": sha256_of_file(weights)}
    write_json(Path(folder) / CARD, card | dict(facts))


def load_classifier(folder: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """Read what `save_classifier` wrote: the classifier in evaluation mode, and its card.

    Raises:
        ValueError: the weights are not those that the card was written for.
    """
    weights, card = Path(folder) / WEIGHTS, read_json(Path(folder) / CARD)
    if sha256_of_file(weights) != card["weights_sha256"]:
        raise ValueError(f"{weights} has another SHA-256 than {CARD} beside it says")
    classifier = Classifier(**card["architecture"])
    classifier.load_state_dict(read_tensors(weights))
    return classifier.eval(), card
