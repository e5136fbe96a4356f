"""How good images are, as a classifier of the same data sees them, and as others do that know nothing of its classes.

The Frechet distance without another name is that of the classifier's features. It is not the FID, which is defined by
another network, and must not be compared with one. Both distances agree with those of torchmetrics, which the tests
hold them against. That library isn't used here, because it draws the kernel distance's subsets from the global random
state, where all pairs can be counted, because it sums squares that are not centred, and because importing it takes
longer than all this.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.accuracy_score import accuracy_score
from diffusion_ladder.evaluation.bounds import (
    EqualSets,
    GeneratorOf,
    averages,
    by_seed,
    by_size,
    equal_sets,
    noise_like,
    over_seeds,
    rounded,
    subsets,
)
from diffusion_ladder.evaluation.classifier import Classifier, Judgement, judge
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.inception import inception_features
from diffusion_ladder.evaluation.label_free import principal_components, random_convolutions, whitened
from diffusion_ladder.evaluation.labels import Answers, label_findings, one_hot
from diffusion_ladder.evaluation.manifolds import manifold_metrics
from diffusion_ladder.evaluation.spectrum import noise_level, spectrum_ratios, spectrum_rows
from diffusion_ladder.evaluation.two_sample import two_sample_accuracy
from diffusion_ladder.params.classifier import Classifier as Settings
from diffusion_ladder.params.evaluation import AccuracyScore, ImageEvaluation, TwoSampleTest

SAMPLES_PER_FEATURE = 4  # a covariance of d features needs well over d samples


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


def kernel_interval(first: Tensor, second: Tensor, units: Tensor | None = None) -> tuple[float, float]:
    """Within which the kernel distance of what the two sets were drawn from lies, with a confidence of 95 per cent.

    The estimate with 1.96 standard errors on both sides. The error is the jackknife's of two independent samples (Efron
    and Stein 1981, "The jackknife estimate of variance"): how the estimate changes without one
    independent unit.

    Args:
        first, second: (N, D) and (M, D) features; N and M of three or more.
        units: (N,) the unit that each member of the first belongs to, counted from 0 and of one size: samples that
            start from the same noise are one. None where each member is one.
    """
    first, second = first.double(), second.double()
    between, estimate, variance = kernel(first, second), kernel_distance(first, second), 0.0
    alone = torch.arange(len(first)) if units is None else units
    for part, sums, of in ((first, between.sum(1), alone), (second, between.sum(0), torch.arange(len(second)))):
        n, others, count = len(part), between.numel() // len(part), int(of.max()) + 1
        inner, rest = kernel(part, part).fill_diagonal_(0), n - n // count
        alike = inner * (of[:, None] == of)
        own, within, cross = (
            torch.zeros(count, dtype=torch.float64).index_add_(0, of, each)  # (G,) of each unit
            for each in (inner.sum(dim=1), alike.sum(dim=1), sums)
        )
        without = (inner.sum() - 2 * own + within) / (rest * (rest - 1)) - 2 * (sums.sum() - cross) / (rest * others)
        variance += float(without.var(correction=0)) * (count - 1)
    margin = 1.96 * math.sqrt(variance)
    return estimate - margin, estimate + margin


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


@dataclass(frozen=True)
class Judged:
    """What a classifier finds in images from four sources, and what they were meant to show.

    Attributes:
        images: "samples", "train", "noise" and "held_out", each (N, C, H, W) uint8.
        labels: (N,) of the same, -1 in samples of which no class was requested; of noise, every class equally often.
        seen: what the classifier finds in them.
        seeds: (N,) the sampling seeds of the samples.
        size: members of each set that a distance compares.
        generator_of: draws those sets.
    """

    images: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    seen: Mapping[str, Judgement]
    seeds: Tensor
    size: int
    generator_of: GeneratorOf

    @property
    def is_conditional(self) -> bool:
        """Whether a class was requested of every sample."""
        return bool((self.labels["samples"] >= 0).all())

    @property
    def units(self) -> Tensor:
        """(N,) which samples start from the same noise, and so are no independent ones: those of each class in turn."""
        classes = len(self.labels["samples"].unique())
        noises = len(self.seeds) // len(self.seeds.unique()) // classes  # of each sampling seed
        return self.seeds * noises + torch.arange(len(self.seeds)) % noises

    @property
    def answers(self) -> Answers:
        """The classes that were meant and found; those of training images don't matter."""
        names = ("samples", "held_out", "noise")
        found = {name: self.seen[name].predictions for name in names}
        return Answers({name: self.labels[name] for name in names}, found, self.seeds)

    def equal_sets(self, values: Mapping[str, Tensor]) -> list[EqualSets]:
        """Sets of one size for each sampling seed, of whatever is known of the images: the same images every time."""
        parts = by_seed(values["samples"], self.seeds), values["train"], values["noise"], values["held_out"]
        return equal_sets(*parts, self.size, self.generator_of)

    def averages(self, name: str, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The average of a number that is known of each image; see evaluation/bounds.py."""
        return averages(name, by_seed(values["samples"], self.seeds), values["held_out"], values["noise"])


@dataclass(frozen=True)
class Trial:
    """What is judged, and by what.

    Attributes:
        samples: `samples`, uint8 (S N, C, H, W), `labels` (S N,), -1 where nothing was requested, and `sampling_seed`.
        data: `train`, `test`, uint8 (N, C, H, W), `train_labels` and `test_labels` (N,).
        classifier: the judge; on its device everything is computed.
        training: how it was trained, for others like it.
        class_names: of its classes.
        generator_of: the generators of all that is drawn.
        batch_size: images per call of the classifier; doesn't change the numbers.
        inception: that network, where its weights are given.
    """

    samples: Mapping[str, Tensor]
    data: Mapping[str, Tensor]
    normalisation: Normalisation
    classifier: Classifier
    training: Settings
    class_names: Sequence[str]
    settings: ImageEvaluation
    generator_of: GeneratorOf
    batch_size: int = 256
    inception: nn.Module | None = None


def let_judge(trial: Trial) -> Judged:
    """Show the classifier the samples, all held-out images, and of training images and noise as many as are needed."""
    samples, data, generator_of = trial.samples, trial.data, trial.generator_of
    seeds, size = samples["sampling_seed"], trial.settings.sample_count
    pool = size * len(seeds.unique())  # as many as the seeds can use: judging more would be in vain
    train, train_labels = (
        subsets(data[name], min(pool, len(data[name])), 1, generator_of("train"))[0]
        for name in ("train", "train_labels")
    )
    noise = noise_like(data["test"], pool, trial.normalisation, generator_of("noise"))
    images = {"samples": samples["samples"], "train": train, "noise": noise, "held_out": data["test"]}
    labels = {"samples": samples["labels"], "train": train_labels, "held_out": data["test_labels"]}
    labels["noise"] = torch.arange(pool) % len(trial.class_names)
    how = trial.normalisation, trial.batch_size
    seen = {name: judge(trial.classifier, batch, *how) for name, batch in images.items()}
    return Judged(images, labels, seen, seeds, size, generator_of)


def feature_distances(some: Tensor, real: Tensor) -> dict[str, float]:
    """The distances between two sets of features."""
    return {"frechet_distance": frechet_distance(some, real), "kernel_distance": kernel_distance(some, real)}


def distance_alone(some: Tensor, real: Tensor) -> dict[str, float]:
    """The Frechet distance between two sets of features."""
    return {"frechet_distance": frechet_distance(some, real)}


def feature_findings(judged: Judged, settings: ImageEvaluation) -> Findings:
    """Distances of features with their curve over the sample size, and where the samples lie among the real ones."""
    features = {name: seen.features for name, seen in judged.seen.items()}
    sets = judged.equal_sets(features)
    curve = by_size("distances", feature_distances, sets, [*settings.smaller_counts, settings.sample_count])
    numbers = {key: value for key, value in curve[-1].items() if key != "size"}
    if settings.sample_count < SAMPLES_PER_FEATURE * features["held_out"].shape[1]:
        numbers = {key: value for key, value in numbers.items() if not key.startswith("frechet_distance")}
    low, high = kernel_interval(features["samples"], features["held_out"], judged.units)
    numbers |= {"kernel_distance_low": rounded(low), "kernel_distance_high": rounded(high)}
    numbers |= over_seeds("neighbours", lambda some, real: manifold_metrics(some, real, settings.neighbours), sets)
    return Findings(numbers, {"sample_size": curve})


def class_findings(judged: Judged, class_names: Sequence[str]) -> Findings:
    """Which classes the judge finds, how often, and how sure it is."""
    classes = {name: one_hot(seen.predictions, len(class_names)) for name, seen in judged.seen.items()}
    numbers = over_seeds(
        "classes",
        lambda some, real: {"class_balance_distance": class_balance_distance(some, real)},
        judged.equal_sets(classes),
    )
    numbers |= judged.averages("confidence", {name: seen.confidence for name, seen in judged.seen.items()})
    shares = torch.stack([of_seed.mean(dim=0) for of_seed in by_seed(classes["samples"], judged.seeds)])  # (S, K)
    std, mean = torch.std_mean(shares, dim=0)
    columns = zip(class_names, mean.tolist(), std.tolist(), classes["held_out"].mean(dim=0).tolist(), strict=True)
    rows = [dict(zip(("class", "share", "share_std", "held_out"), row, strict=True)) for row in columns]
    return Findings(numbers, {"class_shares": rows})


def inception_findings(judged: Judged, network: nn.Module, device: torch.device) -> Findings:
    """The same distances on the features of the Inception network, named after it."""
    features = {name: inception_features(network, images, device) for name, images in judged.images.items()}
    numbers = over_seeds("Inception", feature_distances, judged.equal_sets(features))
    return Findings({f"inception_{key}": value for key, value in numbers.items()})


def label_free_findings(judged: Judged, settings: ImageEvaluation) -> Findings:
    """Frechet distances of features that know nothing of labels, each named after them; see evaluation/label_free.py.

    One with fewer than SAMPLES_PER_FEATURE images a feature is left out.
    """
    train, images = judged.images["train"], judged.images
    extractors = {
        "random_convolution": whitened(random_convolutions(train.shape[1], judged.generator_of("filters")), train),
        "pixel_component": principal_components(train),
    }
    numbers: dict[str, float] = {}
    for name, extract in extractors.items():
        features = {source: extract(batch) for source, batch in images.items()}
        if settings.sample_count < SAMPLES_PER_FEATURE * features["train"].shape[1]:
            continue
        found = over_seeds(name, distance_alone, judged.equal_sets(features))
        numbers |= {f"{name}_{key}": value for key, value in found.items()}
    return Findings(numbers)


def spectrum_findings(judged: Judged) -> Findings:
    """How the images are grained, beside data; see evaluation/spectrum.py."""
    sets = judged.equal_sets(judged.images)
    numbers = over_seeds("spectra", spectrum_ratios, sets)
    numbers |= judged.averages("noise_level", {name: noise_level(batch) for name, batch in judged.images.items()})
    return Findings(numbers, {"spectrum": spectrum_rows(sets)})


def two_sample_findings(judged: Judged, how: TwoSampleTest, device: torch.device) -> Findings:
    """How well a network that is trained for it tells samples from held-out images; see evaluation/two_sample.py."""

    def measure(some: Tensor, real: Tensor) -> dict[str, float]:
        return {"two_sample_accuracy": two_sample_accuracy(some, real, how, judged.generator_of("two_sample"), device)}

    numbers = over_seeds("two-sample test", measure, judged.equal_sets(judged.images))
    return Findings(numbers | {"two_sample_null_std": rounded(0.5 / math.sqrt(2 * judged.size))})


def evaluate_images(trial: Trial) -> Findings:
    """Everything that is measured of images; each number with its floor and ceiling (see evaluation/bounds.py).

    - frechet_distance and kernel_distance of the classifier's features from those of held-out images, with the table
      sample_size. The first is left out with fewer than four images a feature: it would then be mostly bias.
      kernel_distance_low and _high enclose the second, estimated from all samples and all held-out images;
    - precision, recall, density and coverage of the features (evaluation/manifolds.py);
    - class_balance_distance from the predicted classes of held-out images, total variation, with the table
      class_shares;
    - confidence: the classifier's mean highest probability. It can be higher on noise than on real images, as its
      bounds then show: it says little alone;
    - of conditional models, label_accuracy with the table confusion (the floor is the classifier's own accuracy), and
      classifier_accuracy_score (evaluation/accuracy_score.py);
    - inception_frechet_distance and inception_kernel_distance, where that network is given;
    - random_convolution_frechet_distance and pixel_component_frechet_distance, of features that know no labels;
    - high_frequency_ratio, two_pixel_ratio and noise_level, with the table spectrum;
    - two_sample_accuracy, where it is said how that test's network is trained.
    """
    judged, settings = let_judge(trial), trial.settings
    device = next(trial.classifier.parameters()).device
    findings = feature_findings(judged, settings) | class_findings(judged, trial.class_names)
    if judged.is_conditional:
        findings |= label_findings(judged.answers, trial.class_names)
    if judged.is_conditional and settings.accuracy_score is not None:
        findings |= accuracy_findings(judged, trial, settings.accuracy_score, device)
    if trial.inception is not None:
        findings |= inception_findings(judged, trial.inception, device)
    if settings.two_sample is not None:
        findings |= two_sample_findings(judged, settings.two_sample, device)
    return findings | label_free_findings(judged, settings) | spectrum_findings(judged)


def accuracy_findings(judged: Judged, trial: Trial, less: AccuracyScore, device: torch.device) -> Findings:
    """How well a classifier like the judge learns from the samples alone; see evaluation/accuracy_score.py."""
    images, labels = judged.equal_sets(judged.images), judged.equal_sets(judged.labels)
    test = judged.images["held_out"], judged.labels["held_out"]
    training, count = trial.training.model_copy(update=less.model_dump()), len(trial.class_names)
    how = trial.normalisation, training, trial.generator_of, device
    return Findings(accuracy_score(images, labels, test, count, *how))
