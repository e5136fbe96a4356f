"""The flat numbers of reports/metrics/*.json as rows of a table, each with what it means in plain words.

Keys are NAME, NAME_floor and NAME_ceiling, each with a deviation under KEY_std. A name that is not described here is
shown all the same, under its own name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_ladder.report.rendering import with_spread

LOWER, HIGHER, NEAR = "lower is better", "higher is better", "best near that of real data"
OVER_SEEDS = "± is the standard deviation over the sampling seeds, each against held-out data of its own"
OVER_NOISE = "± is the standard deviation over seeds of the noise that the points are given"
OF_MEAN = "± is the standard deviation over the sampling seeds; of a bound, the standard error of the mean"
CONFUSION = re.compile(r"requested_(?P<asked>.+)_judged_(?P<seen>.+)")
GAUSSIAN = re.compile(r"gaussian_(?P<what>mean|std)_error_of_(?P<steps>\d+)_steps")


@dataclass(frozen=True)
class Description:
    """What a metric is.

    Attributes:
        title: its name in words.
        direction: which values are good; empty where that is not a question.
        words: what it is, with a little Markdown.
        deviation: what its ± means.
    """

    title: str
    direction: str
    words: str
    deviation: str


DESCRIPTIONS = {
    "wasserstein_2": Description(
        "2-Wasserstein distance",
        LOWER,
        "How far points have to move (root of the mean square, in the units of the data) to turn the samples into"
        " held-out data, each point to the partner that makes the whole move cheapest. Computed exactly.",
        OVER_SEEDS,
    ),
    "sliced_wasserstein_2": Description(
        "Sliced Wasserstein distance",
        LOWER,
        "The same distance between the shadows that the points throw on a line, where it is easy to compute: sort both,"
        " and pair them in order. Root of the mean square over lines in many random directions.",
        OVER_SEEDS,
    ),
    "energy_distance": Description(
        "Energy distance",
        LOWER,
        "Twice the mean distance of a sample from a held-out point, less the mean distance of two samples and that of"
        " two held-out points. It is nought for the same distribution alone; this estimate of it does not depend on the"
        " number of points, and falls below nought by chance as often as above it.",
        OVER_SEEDS,
    ),
    "two_sample_accuracy": Description(
        "Told apart by a classifier",
        LOWER,
        "A classifier of its own (of points their nearest neighbours, of images a small convolutional network) learns"
        " from half of both which are samples and which are held-out data; this is how often it is right about those"
        " that it hasn't seen (the classifier two-sample test). One that can only guess is right half the time, give or"
        " take the deviation by chance below.",
        OVER_SEEDS,
    ),
    "two_sample_p_value": Description(
        "Chance of guessing that well",
        HIGHER,
        "How likely the classifier's accuracy, or a better one, is by guessing: the p-value of the two-sample test."
        " Close to nought, samples and data certainly differ, if only a little; otherwise this many points don't show"
        " a difference.",
        "it has no ±, being one number for the points of all seeds",
    ),
    "frechet_distance": Description(
        "Fréchet distance",
        LOWER,
        "How far apart the features of samples and of held-out images lie, in mean and in covariance. The features"
        " are those of the judging classifier named below, so the number means nothing beside a published FID.",
        OVER_SEEDS,
    ),
    "kernel_distance": Description(
        "Kernel distance",
        LOWER,
        "Another distance of the same features: the squared maximum mean discrepancy with a cubic polynomial kernel,"
        " the estimator of KID. It needs no Gaussian and does not depend on the number of images, and falls below"
        " nought by chance as often as above it where samples and data are alike.",
        OVER_SEEDS,
    ),
    "precision": Description(
        "Precision",
        HIGHER,
        "Share of samples that lie among held-out images: closer to one of them than its k-th nearest neighbour is.",
        OVER_SEEDS,
    ),
    "recall": Description(
        "Recall",
        HIGHER,
        "Share of held-out images that lie among the samples in the same way. Samples that are scattered widely reach"
        " round the data, so that noise can score well.",
        OVER_SEEDS,
    ),
    "density": Description(
        "Density",
        HIGHER,
        "Around how many held-out images a sample lies, over k: like precision, but an outlier among the images weighs"
        " less. About one for real data; above one where samples crowd where data are dense.",
        OVER_SEEDS,
    ),
    "coverage": Description(
        "Coverage",
        HIGHER,
        "Share of held-out images that have a sample nearer than their k-th nearest neighbour: how much of the data's"
        " variety is reached.",
        OVER_SEEDS,
    ),
    "label_accuracy": Description(
        "Requested class found",
        HIGHER,
        "Share of samples in which the judge finds the class that was asked for. Real data show how often the judge"
        " itself is right.",
        OF_MEAN,
    ),
    "classifier_accuracy_score": Description(
        "Classifier accuracy score",
        HIGHER,
        "How often a classifier that has learnt from samples and their requested classes alone is right about held-out"
        " images. The bounds are classifiers that have learnt from as many real images, and from noise.",
        OVER_SEEDS,
    ),
    "class_balance_distance": Description(
        "Class balance",
        LOWER,
        "Total variation between the shares of the classes that the judge finds in samples and in held-out data:"
        " nought where they are the same, one where they have no class in common.",
        OVER_SEEDS,
    ),
    "outside_tube_share": Description(
        "Stray points",
        LOWER,
        "Share of samples farther from the noise-free curves than the tube radius below.",
        OF_MEAN,
    ),
    "first_curve_share": Description(
        "Balance of the two curves",
        NEAR,
        "Share of samples nearer to the first curve than to the second: whether both are found equally often.",
        OF_MEAN,
    ),
    "confidence": Description(
        "Confidence of the judge",
        NEAR,
        "The probability that the judge gives to the class it settles on, on average. A classifier can be confident"
        " about anything, so this says something only beside the value for real data.",
        OF_MEAN,
    ),
    "inception_frechet_distance": Description(
        "Fréchet distance by Inception",
        LOWER,
        "The Fréchet distance of the features of the Inception network that the FID is defined by, whose weights are"
        " named below. With so few images it is mostly bias: it says something beside its bounds alone.",
        OVER_SEEDS,
    ),
    "inception_kernel_distance": Description(
        "Kernel distance by Inception",
        LOWER,
        "The kernel distance of the features of the same network.",
        OVER_SEEDS,
    ),
    "random_convolution_frechet_distance": Description(
        "Fréchet distance by random convolutions",
        LOWER,
        "The Fréchet distance of features that know nothing of classes: means and deviations of random filters that"
        " were never trained, each direction in units of its deviation among training images. It sees grain, veils and"
        " shifts of colour that the judge has learnt to look past.",
        OVER_SEEDS,
    ),
    "pixel_component_frechet_distance": Description(
        "Fréchet distance by pixels",
        LOWER,
        "The Fréchet distance of the pixels' principal components, that is along the directions in which training"
        " images vary most: which colour is where, and whether some kind of image is missing.",
        OVER_SEEDS,
    ),
    "high_frequency_ratio": Description(
        "Fine detail, times the data's",
        NEAR,
        "The share of the images' power at periods of less than 2.7 pixels, as a multiple of that of held-out images."
        " Grain makes it larger than one, blur smaller.",
        OVER_SEEDS,
    ),
    "two_pixel_ratio": Description(
        "Checkerboard, times the data's",
        NEAR,
        "The share of the images' power in stripes and checkers with a period of exactly two pixels, as a multiple of"
        " that of held-out images: the mark of a network that draws several pixels at once.",
        OVER_SEEDS,
    ),
    "noise_level": Description(
        "Grain, in grey levels",
        NEAR,
        "The standard deviation of the finest noise in a typical place of an image, from the median of its finest"
        " diagonal wavelet coefficients (Donoho and Johnstone 1994). Flat drawings have none.",
        OF_MEAN,
    ),
    "copied_share": Description(
        "Copies of training data",
        LOWER,
        "Share of samples that are nearer to one training example than a fraction of the distance to any other, which"
        " is the parameter `memorisation.ratio`: how copies look. Some new data look so by chance (in the plane a share"
        " of about the square of that fraction, among images hardly any), which the value for held-out data shows. The"
        " other bound is what training data themselves would score, not noise.",
        OVER_SEEDS,
    ),
    **{
        f"score_error_{level}_noise": Description(
            f"Error of the learnt score with {words} noise",
            LOWER,
            "How far the network's score is from the exact one of the training points, relative to its size: root of"
            " the mean square over noisy training points. In the place of real data stands the exact score of the"
            " held-out points, in that of noise the answer nought, near which an untrained network begins.",
            OVER_NOISE,
        )
        for level, words in {"low": "little", "middle": "middling", "high": "much"}.items()
    },
    "default_is_cheapest_good": Description(
        "The cheapest sampler that is good enough",
        "one is yes, nought is no",
        "One where the samples are drawn in the cheapest of the swept ways whose distance from held-out data is within"
        " one deviation of the best way's, nought where another way would be cheaper or better.",
        "it has no ±, being a yes or a no",
    ),
    "exact_duplicates": Description(
        "Exact copies",
        LOWER,
        "Share of samples that equal a training example in every pixel or coordinate. The bounds are held-out data and"
        " the training data themselves.",
        OVER_SEEDS,
    ),
    "c_t": Description(
        "Distance from the training data, by ranks (C_T)",
        NEAR,
        "Whether samples lie closer to the training data than held-out data do (Meehan, Chaudhuri and Dasgupta,"
        " arXiv 2004.05675): their distances to the nearest training example are sorted together, and the order is"
        " compared with that of chance, in standard deviations. About nought for new data, far below for copies, far"
        " above for samples that are unlike the data. The bounds are held-out data and the training data themselves.",
        OVER_SEEDS,
    ),
    "nearest_training_distance": Description(
        "Distance to the nearest training example",
        NEAR,
        "How far a sample is from the training example most like it, on average, in the space named below. New samples"
        " should be as far as held-out data are; copies would be at nought, as training data are themselves.",
        OVER_SEEDS,
    ),
}
HEADLINES = ("wasserstein_2", "frechet_distance", "label_accuracy", "class_balance_distance", "confidence")

TOLD_ELSEWHERE = ("memorisation_verdict",)  # under its topic

FACTS = {
    "judge": "Judged by",
    "two_sample_null_std": "Deviation of that classifier's accuracy by chance, for one seed",
    "tube_radius": "Tube radius, in units of the data",
    "extractor": "Features and classes from",
    "extractor_accuracy": "Accuracy of that classifier on held-out images",
    "extractor_sha256": "SHA-256 of its weights",
    "inception_sha256": "SHA-256 of the weights of Inception",
    "kernel_distance_low": "Kernel distance by all samples: its interval of confidence begins at",
    "kernel_distance_high": "Kernel distance by all samples: its interval of confidence ends at",
    "sample_count": "Samples in each compared set",
    "known_examples": "Training examples that the ideal denoiser knows",
    "nfe": "Evaluations of the network for one sample",
    "cheapest_good_sampler": "Cheapest sampler within one deviation of the best of the sweep",
    "cheapest_good_nfe": "Evaluations of the network that it takes",
    "sampling_seeds": "Sampling seeds, from each of which the samples were drawn anew",
    "memorisation_verdict": "New or copied?",
    "memorisation_space": "Distances to training data are measured in",
    "memorisation_count": "Samples of a seed whose distances to training data are compared",
    "training_repetitions": "Training examples that repeat an earlier one; they count once",
    "accuracy": "Accuracy on held-out images",
    "train_accuracy": "Accuracy on its training images",
    "worst_class_accuracy": "Accuracy on the class it knows worst",
    "commonest_class_share": "Accuracy of always naming the commonest class",
    "train_count": "Images it was trained on",
    "test_count": "Held-out images it was tested on",
}


PROCESS_FACTS = {
    "first_beta": "Variance added by the first step, β",
    "last_beta": "Variance added by the last step, β",
    "noise_outweighs_from": "Step from which noise outweighs signal",
    "terminal_alpha_bar": "Share of the variance that is still data at the end, ᾱ",
    "terminal_signal": "Weight of the data at the end, √ᾱ",
    "first_log_snr": "Logarithm of the signal-to-noise ratio after the first step",
    "terminal_log_snr": "Logarithm of the signal-to-noise ratio at the end",
}


@dataclass(frozen=True)
class Measured:
    """A number and its deviation, as measured; `text` and `deviation_text` are how they are printed."""

    value: float
    deviation: float | None

    @property
    def text(self) -> str:
        """The value, rounded to where its deviation begins."""
        return with_spread(self.value, self.deviation)[0]

    @property
    def deviation_text(self) -> str:
        """The deviation at two significant digits; empty where there is none."""
        return with_spread(self.value, self.deviation)[1]

    def __str__(self) -> str:
        return f"{self.text} ± {self.deviation_text}" if self.deviation_text else self.text


@dataclass(frozen=True)
class Metric:
    """A metric of one rung beside its bounds; what was not measured is None.

    Attributes:
        key: its name in the metrics file.
        samples: of the rung's samples.
        floor: of real data in the samples' place.
        ceiling: of noise in their place.
    """

    key: str
    description: Description
    samples: Measured
    floor: Measured | None
    ceiling: Measured | None

    def position(self, measured: Measured | None) -> float | None:
        """Where a value lies between floor (0) and ceiling (100), per cent, kept inside.

        None without bounds, and for a metric of which neither end is good.
        """
        if self.description.direction == NEAR:
            return None
        if measured is None or self.floor is None or self.ceiling is None or self.floor.value == self.ceiling.value:
            return None
        share = (measured.value - self.floor.value) / (self.ceiling.value - self.floor.value)
        return round(100 * min(1.0, max(0.0, share)), 1)


@dataclass(frozen=True)
class Fact:
    """A number or a text that is not measured against bounds."""

    key: str
    label: str
    value: float | str
    deviation: float | None = None

    @property
    def measured(self) -> Measured | None:
        """The number with its deviation; None for a text."""
        return None if isinstance(self.value, str) else Measured(self.value, self.deviation)

    def __str__(self) -> str:
        return str(self.measured) if self.measured else str(self.value)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that can be printed: texts and finite numbers."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
    }


def measured_at(values: Mapping[str, Any], key: str) -> Measured | None:
    """The number under a key with its deviation; None where there is no such number."""
    value, deviation = values.get(key), values.get(f"{key}_std")
    if value is None or isinstance(value, str):
        return None
    return Measured(value, None if isinstance(deviation, str) else deviation)


def described(name: str) -> Description:
    """What is known about a metric; of an unknown one, its name in words."""
    return DESCRIPTIONS.get(name) or Description(name.replace("_", " ").capitalize(), "", "", "")


def is_metric(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a key names a measured metric, instead of one of its bounds, its deviation or a fact about it."""
    if name.endswith("_std") and name.removesuffix("_std") in values:
        return False
    bounds = (f"{name}_floor", f"{name}_ceiling")
    return not isinstance(values[name], str) and (name in DESCRIPTIONS or any(key in values for key in bounds))


def metrics_of(raw: Mapping[str, Any]) -> list[Metric]:
    """All metrics of a file: the described ones in the order of DESCRIPTIONS, then others by name."""
    values = finite(raw)
    known = [name for name in DESCRIPTIONS if name in values]
    names = [*known, *sorted(name for name in values if name not in known)]
    return [
        Metric(
            key=name,
            description=described(name),
            samples=found,
            floor=measured_at(values, f"{name}_floor"),
            ceiling=measured_at(values, f"{name}_ceiling"),
        )
        for name in names
        if is_metric(name, values) and (found := measured_at(values, name)) is not None
    ]


def headline_of(metrics: list[Metric]) -> Metric | None:
    """The metric that stands for a rung in the first table."""
    by_key = {metric.key: metric for metric in metrics}
    return next((by_key[key] for key in HEADLINES if key in by_key), metrics[0] if metrics else None)


def facts_of(raw: Mapping[str, Any]) -> list[Fact]:
    """What a file holds besides metrics: known facts in the order of FACTS, then others by name."""
    values = {key: value for key, value in finite(raw).items() if key not in TOLD_ELSEWHERE}
    measured = [name for name in values if is_metric(name, values)]
    parts = {part for name in measured for part in (name, f"{name}_floor", f"{name}_ceiling")}
    taken = parts | {f"{part}_std" for part in parts}
    deviations = {f"{key}_std" for key in values}
    known = [key for key in FACTS if key in values and key not in taken]
    others = sorted(key for key in values if key not in taken and key not in deviations and key not in known)
    return [Fact(key, label_of(key), values[key], values.get(f"{key}_std")) for key in [*known, *others]]


def process_facts(values: Mapping[str, Any]) -> list[Fact]:
    """The forward process of a rung in numbers, from its rung.json."""
    return [Fact(key, label, values[key]) for key, label in PROCESS_FACTS.items() if values.get(key) is not None]


def label_of(key: str) -> str:
    """A fact's name in words."""
    if match := GAUSSIAN.fullmatch(key):
        what = {"mean": "mean", "std": "standard deviation"}[match["what"]]
        return f"Gaussian chain of {match['steps']} steps: error of the {what} at its end, in deviations of the data"
    if match := CONFUSION.fullmatch(key):
        return f"Asked for {match['asked']}, judged {match['seen']}"
    return FACTS.get(key) or key.replace("_", " ").capitalize()
