"""Judges of digits: the project's classifier, a second one that owes it nothing, and features without labels.

All hold N samples against the same N held-out digits. The other held-out digits train the second classifier: no model
and not the first judge have seen them, and it is built otherwise. The floor is training digits in the samples' place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.evaluation.bounds import mean_and_deviation, subsets
from diffusion_ladder.evaluation.classifier import judge, load_classifier, train
from diffusion_ladder.evaluation.images import frechet_distance
from diffusion_ladder.evaluation.label_free import random_convolutions, whitened
from diffusion_ladder.params.classifier import Classifier as Settings
from diffusion_ladder.randomness import generator, seed_of

SEED = 0
FLOORS = 5  # sets of training digits
CLASSES, FEATURES = 10, 64
SETTINGS = Settings(
    channels=[32, 64], feature_size=FEATURES, steps=1500, batch_size=64, learning_rate=0.002, weight_decay=0.05,
    shift=3, flip=False, min_accuracy=0,
)  # fmt: skip
Features = Callable[[Tensor], Tensor]  # (N, 1, 28, 28) uint8 to (N, D) float64


class SecondClassifier(nn.Module):
    """Convolutions of 5 x 5, maxima, group norm and GELU; the project's has strides, batch norm and rectifiers."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([1, *channels], channels, strict=False):
            layers += [nn.Conv2d(before, after, 5, padding=2), nn.GroupNorm(8, after), nn.GELU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers, nn.Dropout2d(0.1), nn.Flatten())
        self.embed = nn.Sequential(nn.Linear(channels[-1] * 7 * 7, FEATURES), nn.LayerNorm(FEATURES))
        self.head = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, 28, 28) to the penultimate features (B, FEATURES)."""
        return self.embed(self.convolutions(images))

    def classify(self, features: Tensor) -> Tensor:
        """Features (B, FEATURES) to logits (B, CLASSES)."""
        return self.head(nn.functional.gelu(features))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, 28, 28) to logits (B, CLASSES)."""
        return self.classify(self.features(images))


def second_classifier(images: Tensor, labels: Tensor, steps: int) -> SecondClassifier:
    """Trained on (N, 1, 28, 28) uint8 digits, shifted at random."""
    settings = SETTINGS.model_copy(update={"steps": steps})
    order, augmentation = (generator(SEED, "second judge", purpose) for purpose in ("order", "augmentation"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(SEED, "second judge", "weights"))
        classifier = SecondClassifier(settings.channels)
        for _ in train(classifier, images, labels, IMAGES, settings, order, augmentation):
            pass
    return classifier


@dataclass(frozen=True)
class Panel:
    """The judges.

    Attributes:
        features: what each of them sees.
        reference: (N, 1, 28, 28) uint8, held-out digits.
        accuracies: of the classifiers, on the reference.
    """

    features: dict[str, Features]
    reference: Tensor
    accuracies: dict[str, float]

    def distances(self, images: Tensor) -> dict[str, float]:
        """The Frechet distance of N images from the reference by every judge.

        Raises:
            ValueError: they are not as many as the reference.
        """
        if len(images) != len(self.reference):
            raise ValueError(f"{len(images)} images can't be held against {len(self.reference)}")
        return {name: frechet_distance(see(images), see(self.reference)) for name, see in self.features.items()}

    def floor(self, train_images: Tensor) -> dict[str, dict[str, float]]:
        """The distances of training digits: mean and deviation over FLOORS sets of N."""
        sets = subsets(train_images, len(self.reference), FLOORS, generator(SEED, "floor"))
        rows = [self.distances(images) for images in sets]
        figures = {name: mean_and_deviation([row[name] for row in rows]) for name in self.features}
        return {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in figures.items()}


def panel_of(folder: Path, tensors: dict[str, Tensor], count: int, steps: int = SETTINGS.steps) -> Panel:
    """The judges with `count` held-out digits for reference.

    Args:
        folder: of the project's classifier.
        tensors: the splits of the digits.
        steps: of the second classifier's training, on the other held-out digits.
    """
    order = torch.randperm(len(tensors["test"]), generator=generator(SEED, "reference"))
    images, labels = tensors["test"][order], tensors["test_labels"][order]
    reference, answers = images[:count], labels[:count]
    first, _ = load_classifier(folder)
    second = second_classifier(images[count:], labels[count:], steps)
    seen = {name: judge(each, reference, IMAGES) for name, each in (("own", first), ("second", second))}
    accuracies = {name: float((found.predictions == answers).double().mean()) for name, found in seen.items()}
    features = {
        "own": lambda digits: judge(first, digits, IMAGES).features,
        "second": lambda digits: judge(second, digits, IMAGES).features,
        "random": whitened(random_convolutions(1, generator(SEED, "filters")), tensors["train"]),
    }
    return Panel(features, reference, accuracies)
