"""The classifier accuracy score: how well a classifier recognises real images that has seen generated ones alone.

Ravuri and Vinyals 2019 (arXiv 1905.10887). It asks of conditional samples that they show their class, and show it in
all its variety: where samples of a class are all alike, or other ones than the real data, the classifier learns less.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import ROLES, EqualSets, GeneratorOf, between_bounds
from diffusion_ladder.evaluation.classifier import judge, new_classifier, train
from diffusion_ladder.params.classifier import Classifier as Settings


def accuracy_after_training(
    images: Tensor,
    labels: Tensor,
    test: tuple[Tensor, Tensor],
    num_classes: int,
    normalisation: Normalisation,
    settings: Settings,
    generator_of: GeneratorOf,
    device: torch.device,
) -> float:
    """The accuracy on the images and labels of `test` of a new classifier that was trained on others.

    Args:
        images, labels: (N, C, H, W) uint8 and (N,), to train on.
        generator_of: gives the generators of the weights, of the order and of the augmentation.
    """
    draws = [generator_of(purpose) for purpose in ("weights", "order", "augmentation")]
    classifier = new_classifier(images.shape[1:], settings, num_classes, draws[0]).to(device)
    for _ in train(classifier, images.to(device), labels.to(device), normalisation, settings, *draws[1:]):
        pass
    found = judge(classifier, test[0], normalisation, dtype=torch.float32).predictions
    return float((found == test[1]).double().mean())


def accuracy_score(
    images: Sequence[EqualSets],
    labels: Sequence[EqualSets],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    normalisation: Normalisation,
    settings: Settings,
    generator_of: GeneratorOf,
    device: torch.device,
) -> dict[str, float]:
    """classifier_accuracy_score between its bounds, with mean and deviation over the sampling seeds.

    The floor is what as many real images teach, the ceiling what noise under random labels does. All three begin with
    the same weights, and look at the members of their sets in the same order.

    Args:
        images, labels: the sets of each sampling seed and the labels of their members.
        test: all held-out images, (M, C, H, W) uint8, and their labels (M,).
    """
    scores: Mapping[str, list[dict[str, float]]] = {role: [] for role in ROLES}
    for seed in tqdm(range(len(images)), desc="accuracy score", unit=" seeds"):
        for role in ROLES:
            accuracy = accuracy_after_training(
                getattr(images[seed], role),
                getattr(labels[seed], role),
                test,
                num_classes,
                normalisation,
                settings,
                lambda purpose, s=seed: generator_of("accuracy_score", s, purpose),
                device,
            )
            scores[role].append({"classifier_accuracy_score": accuracy})
    return between_bounds(scores)
