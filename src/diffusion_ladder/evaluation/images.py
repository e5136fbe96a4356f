"""How good images are, as a classifier of the same data sees them.

The Frechet distance here is that of the classifier's features. It is not the FID, which is defined by another network,
and must not be compared with one.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import (
    EqualSets,
    GeneratorOf,
    averages,
    by_seed,
    equal_sets,
    noise_like,
    over_seeds,
    rounded,
    subsets,
)
from diffusion_ladder.evaluation.classifier import Classifier, Judgement, judge
from diffusion_ladder.evaluation.findings import Findings

SAMPLES_PER_FEATURE = 4  # a covariance of d features needs well over d samples
MOST_CONFUSED_CLASSES = 3  # with more classes, the confusion matrix is too long for a list of metrics


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The squared Frechet distance of the Gaussians with the means and covariances of two sets of features.

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau 1982, "The Frechet distance between multivariate
    normal distributions". The eigenvalues of C1 C2 are the squares of the singular values of C1^(1/2) C2^(1/2), whose
    sum is therefore the last trace. So no root of an unsymmetric matrix is needed, the result is real, and it stays
    exact where a covariance is singular.

    Args:
        first, second: (N, D) and (M, D) features; N and M of two or more.
    """
    first, second = first.double(), second.double()
    means = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    covariances = covariance(first), covariance(second)
    root_product = symmetric_root(covariances[0]) @ symmetric_root(covariances[1])
    traces = covariances[0].trace() + covariances[1].trace() - 2 * torch.linalg.svdvals(root_product).sum()
    return float((means + traces).clamp(min=0))


def covariance(features: Tensor) -> Tensor:
    """The unbiased covariance (D, D) of features (N, D)."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def symmetric_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a symmetric positive semidefinite matrix (D, D), by its eigenvalues."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The squared maximum mean discrepancy of two sets of features, unbiased: it can come out a little below 0.

    Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401), section 4: eq. 4 of Gretton et al. 2012 with the
    kernel k(x, y) = (x . y / D + 1)^3, which compares means, variances and skewness.

    Args:
        first, second: (N, D) and (M, D) features; N and M of two or more.
    """
    first, second = first.double(), second.double()
    within = [(kernel(part, part).sum() - kernel_diagonal(part).sum()) for part in (first, second)]
    pairs = [len(part) * (len(part) - 1) for part in (first, second)]
    return float(within[0] / pairs[0] + within[1] / pairs[1] - 2 * kernel(first, second).mean())


def kernel(first: Tensor, second: Tensor) -> Tensor:
    """The polynomial kernel of degree 3 between all members of (N, D) and (M, D): (N, M)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def kernel_diagonal(features: Tensor) -> Tensor:
    """The same kernel of each member of (N, D) with itself: (N,)."""
    return (features.square().mean(dim=1) + 1) ** 3


def class_balance_distance(first: Tensor, second: Tensor) -> float:
    """Total variation distance of two sets' class shares, in [0, 1]: half the sum of absolute differences.

    Args:
        first, second: (N, K) and (M, K) one-hot rows.
    """
    return float((first.double().mean(dim=0) - second.double().mean(dim=0)).abs().sum() / 2)


def one_hot_predictions(judgement: Judgement) -> Tensor:
    """The predicted classes as one-hot rows (N, K), float64."""
    classes = judgement.probabilities.shape[1]
    return torch.nn.functional.one_hot(judgement.predictions, classes).double()


def confusions(predictions: Tensor, requested: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """The shares of a requested class that were judged to be another, by keys such as requested_female_judged_male.

    Empty with more than three classes. A class that was never requested has no keys.

    Args:
        predictions, requested: (N,) class indices.
    """
    if len(class_names) > MOST_CONFUSED_CLASSES:
        return {}
    shares = {}
    for asked, seen in permutations(range(len(class_names)), 2):
        judged = predictions[requested == asked]
        if len(judged):
            key = f"requested_{class_names[asked]}_judged_{class_names[seen]}"
            shares[key] = rounded(float((judged == seen).double().mean()))
    return shares


def label_metrics(
    judgements: Mapping[str, Judgement],
    labels: Mapping[str, Tensor],
    sampling_seed: Tensor,
    class_names: Sequence[str],
) -> dict[str, float]:
    """label_accuracy, the share of images that the classifier finds to be what was asked for, and its confusions.

    Args:
        judgements, labels: of "samples", "held_out" and "noise", (N,) of the same images.
        sampling_seed: (N,) of the samples.
    """
    correct = {name: judgements[name].predictions == labels[name] for name in labels}
    samples = by_seed(correct["samples"], sampling_seed)
    found = averages("label_accuracy", samples, correct["held_out"], correct["noise"])
    return found | confusions(judgements["samples"].predictions, labels["samples"], class_names)


def evaluate_images(
    samples: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    normalisation: Normalisation,
    classifier: Classifier,
    class_names: Sequence[str],
    sample_count: int,
    generator_of: GeneratorOf,
    batch_size: int = 256,
) -> Findings:
    """Everything that is measured of images; each number with its floor and ceiling (see evaluation/bounds.py).

    - frechet_distance of the classifier's features from those of held-out images. Left out with fewer than four images
      a feature: the estimate would then be mostly bias.
    - confidence: the classifier's mean highest probability. It can be higher on noise than on real images, as its
      bounds then show: it says little alone.
    - label_accuracy, with the rates of confusion (conditional models): the floor is the classifier's own accuracy.
    - class_balance_distance (unconditional models): from the predicted classes of held-out images, total variation.

    Args:
        samples: `samples`, uint8 (S N, C, H, W), `labels` (S N,), -1 where nothing was requested, and `sampling_seed`.
        data: `train`, `test`, uint8 (N, C, H, W), and `test_labels` (N,).
        class_names: of the classifier's classes.
        sample_count: members of each set that a distance compares.
        batch_size: images per network call; doesn't change the numbers.
    """
    seeds = samples["sampling_seed"]
    pool = sample_count * len(seeds.unique())  # as many as the seeds can use: judging more would be in vain
    train = subsets(data["train"], min(pool, len(data["train"])), 1, generator_of("train"))[0]
    noise = noise_like(data["test"], pool, normalisation, generator_of("noise"))
    images = {"samples": samples["samples"], "train": train, "noise": noise, "held_out": data["test"]}
    judged = {name: judge(classifier, batch, normalisation, batch_size) for name, batch in images.items()}

    def equal(values: Mapping[str, Tensor]) -> list[EqualSets]:
        parts = by_seed(values["samples"], seeds), values["train"], values["noise"], values["held_out"]
        return equal_sets(*parts, sample_count, generator_of)

    confidence = {name: seen.confidence for name, seen in judged.items()}
    numbers: dict[str, Any] = averages(
        "confidence", by_seed(confidence["samples"], seeds), confidence["held_out"], confidence["noise"]
    )
    if sample_count >= SAMPLES_PER_FEATURE * judged["held_out"].features.shape[1]:
        features = equal({name: seen.features for name, seen in judged.items()})
        numbers |= over_seeds(
            "Frechet", lambda some, real: {"frechet_distance": frechet_distance(some, real)}, features
        )
    if bool((samples["labels"] >= 0).all()):
        asked = torch.arange(pool) % len(class_names)
        labels = {"samples": samples["labels"], "held_out": data["test_labels"], "noise": asked}
        return Findings(numbers | label_metrics(judged, labels, seeds, class_names))
    classes = equal({name: one_hot_predictions(seen) for name, seen in judged.items()})
    return Findings(
        numbers
        | over_seeds(
            "classes", lambda some, real: {"class_balance_distance": class_balance_distance(some, real)}, classes
        )
    )
