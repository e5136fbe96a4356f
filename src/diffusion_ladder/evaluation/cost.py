"""Quality against cost: what each sampler makes of a number of network evaluations, and what guidance does.

All settings start from the same noise and are held against the same held-out data, by a distance that is unbiased at
any size. So settings differ by their samplers alone, and the deviation over the sampling seeds is that of the samples.
Points meet a held-out subset for each seed, images all that is held out, which is little.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.bounds import GeneratorOf, averages, by_seed, entry, mean_and_deviation, subsets
from diffusion_ladder.evaluation.classifier import Classifier, judge
from diffusion_ladder.evaluation.findings import Findings, Rows
from diffusion_ladder.evaluation.images import kernel_distance
from diffusion_ladder.evaluation.label_free import Extractor
from diffusion_ladder.evaluation.labels import label_accuracy
from diffusion_ladder.evaluation.points import TUBE_DEVIATIONS, curve_distances, energy_distance, nearest_curve

Distance = Callable[[Tensor, Tensor], float]
Facts = Mapping[str, Any]  # metadata of a file of samples
Row = dict[str, float]  # numbers and their deviations


def knee(evaluations: Sequence[int], values: Sequence[float]) -> int | None:
    """Where more evaluations begin to pay little: the index of the point farthest below the chord of the curve.

    The rule of "Kneedle" (Satopaa et al. 2011, "Finding a Kneedle in a haystack"): both axes are scaled to [0, 1], and
    the difference between curve and chord is largest at the knee. The evaluations are taken by their logarithm.

    Args:
        evaluations: of the network, rising.
        values: of a distance, the lower the better.

    Returns:
        None where no point lies below the chord, or where the last value is no better than the first.
    """
    fall = values[0] - values[-1]
    if fall <= 0:
        return None
    logs = [math.log(each) for each in evaluations]
    along = [(each - logs[0]) / (logs[-1] - logs[0]) for each in logs]
    below = [(values[0] - value) / fall - place for value, place in zip(values, along, strict=True)]
    deepest = max(range(len(below)), key=below.__getitem__)
    return deepest if below[deepest] > 1e-9 else None


def good_ones(means: Sequence[float], deviations: Sequence[float]) -> set[int]:
    """The indices of the means within one standard deviation of the best, which is the least.

    An unbiased distance below nought is none, and no better than nought.
    """
    best = min(range(len(means)), key=means.__getitem__)
    return {index for index, mean in enumerate(means) if mean <= max(0.0, means[best]) + deviations[best]}


def cheapest_good(settings: Sequence[Facts], measured: Sequence[Mapping[str, float]]) -> int:
    """The index of the fewest evaluations that are good by every metric; the better by the first one of two equals.

    Where no setting is good by all of them, the first metric decides. Costs are compared in pairs of evaluations, since
    Heun takes odd numbers of them: its 49 are no cheaper than the 50 of others.

    Args:
        settings: each with its nfe.
        measured: for each setting the metrics and their deviations, as NAME and NAME_std; the lower the better.
    """
    names = [name for name in measured[0] if not name.endswith("_std")]
    good = [good_ones(*([row[name + suffix] for row in measured] for suffix in ("", "_std"))) for name in names]
    pairs = [-(-facts["nfe"] // 2) for facts in settings]
    return min(set.intersection(*good) or good[0], key=lambda index: (pairs[index], measured[index][names[0]]))


def cost_findings(settings: Sequence[Facts], measured: Sequence[Mapping[str, float]], own: Facts) -> Findings:
    """The table `cost` with its knees, the cheapest good setting, and whether it is the rung's own.

    Args:
        settings: each with its sampler, steps and nfe.
        measured: for each setting the metrics and their deviations, as NAME and NAME_std; knees are those of the first.
        own: the sampler and nfe that draw the rung's samples.
    """
    nfe, means = [facts["nfe"] for facts in settings], [next(iter(values.values())) for values in measured]
    chosen = cheapest_good(settings, measured)
    knees = set()
    for sampler in {facts["sampler"]: None for facts in settings}:
        curve = sorted((nfe[i], means[i], i) for i, facts in enumerate(settings) if facts["sampler"] == sampler)
        found = knee([point[0] for point in curve], [point[1] for point in curve])
        knees |= set() if found is None else {curve[found][2]}
    rows: Rows = [
        {"sampler": facts["sampler"], "steps": facts["steps"], "nfe": facts["nfe"], **values}
        | {"is_knee": int(index in knees), "is_cheapest_good": int(index == chosen)}
        for index, (facts, values) in enumerate(zip(settings, measured, strict=True))
    ]
    best = settings[chosen]
    numbers = {
        "cheapest_good_sampler": best["sampler"],
        "cheapest_good_nfe": best["nfe"],
        "default_is_cheapest_good": int((own["sampler"], own["nfe"]) == (best["sampler"], best["nfe"])),
    }
    return Findings(numbers, {"cost": rows})


def distances(
    name: str, samples: Tensor, sampling_seed: Tensor, distance: Distance, real: Sequence[Tensor]
) -> dict[str, float]:
    """NAME and NAME_std, over the sampling seeds, of samples (S N, D), each seed's held against real ones (M, D)."""
    pairs = zip(by_seed(samples, sampling_seed), real, strict=True)
    return entry(name, *mean_and_deviation([distance(part, held_out) for part, held_out in pairs]))


@dataclass(frozen=True)
class Drawn:
    """The samples of a sweep, how they were drawn, and how the rung's own are.

    Attributes:
        swept: `cost` and, of a rung with a null label, `guidance`, (settings, S N, ...) samples; `labels` and
            `sampling_seed` (S N,).
        facts: of these, with the settings under `cost` and `guidance`.
        own: of the rung's samples.
    """

    swept: Mapping[str, Tensor]
    facts: Facts
    own: Facts


def measured_sweep(drawn: Drawn, measure: Callable[[Tensor], tuple[Row, Tensor]]) -> Findings:
    """The table `cost` with what follows from it, and the table `guidance` where that was swept.

    Args:
        measure: gives for samples (S N, ...) metrics with their deviations, the lower the better, and the classes
            (S N,) that the judge finds.
    """
    swept, rows = drawn.swept, dict[str, list[Row]](cost=[], guidance=[])
    for table, measured in rows.items():
        for samples in swept.get(table, ()):
            values, found = measure(samples)
            asked = label_accuracy(found, swept["labels"], swept["sampling_seed"]) if table == "guidance" else {}
            measured.append(asked | values)
    findings = cost_findings(drawn.facts["cost"], rows["cost"], drawn.own)
    pairs = zip(drawn.facts.get("guidance", ()), rows["guidance"], strict=True)
    guidance: Rows = [{"scale": setting["guidance_scale"], "nfe": setting["nfe"], **row} for setting, row in pairs]
    return findings | Findings(tables={"guidance": guidance} if guidance else {})


def evaluate_points_cost(
    swept: Mapping[str, Tensor],
    facts: Facts,
    own: Facts,
    held_out: Tensor,
    size: int,
    generator_of: GeneratorOf,
    card: Mapping[str, Any],
) -> Findings:
    """The energy distance of points against the evaluations that they took, with the share of stray ones; guidance.

    The distance hardly notices a few points that lie between the curves. Without noise in the data there is no tube
    that points could be outside of, and the distance stands alone.

    Args:
        swept, facts, own: see `Drawn`; samples are points (settings, S N, 2).
        held_out: (M, 2), of which `size` are compared with each seed's samples.
        card: data/raw/D/card.json, of the noise-free curves.
    """
    seeds = swept["sampling_seed"]
    real = subsets(held_out, size, len(seeds.unique()), generator_of("cost"))
    radius = TUBE_DEVIATIONS * card["parameters"]["noise"]

    def measure(points: Tensor) -> tuple[Row, Tensor]:
        row = distances("energy_distance", points, seeds, energy_distance, real)
        outside = curve_distances(points, card).amin(dim=1) > radius
        strays = averages("outside_tube_share", by_seed(outside, seeds)) if radius else {}
        return row | strays, nearest_curve(points, card)

    return measured_sweep(Drawn(swept, facts, own), measure)


def evaluate_images_cost(
    swept: Mapping[str, Tensor],
    facts: Facts,
    own: Facts,
    held_out: Tensor,
    classifier: Classifier,
    normalisation: Normalisation,
    texture: Extractor | None = None,
    batch_size: int = 256,
) -> Findings:
    """The kernel distances of images against the evaluations that they took, and what guidance does to classes.

    The classifier's features know what is shown, and look past grain, which is what few evaluations leave.

    Args:
        swept, facts, own: see `Drawn`; samples are images (settings, S N, C, H, W) uint8.
        held_out: (M, C, H, W) uint8.
        texture: features of grain (evaluation/label_free.py), by which a second distance is measured.
        batch_size: images per call of the classifier; doesn't change the numbers.
    """
    seeds = swept["sampling_seed"]
    count = len(seeds.unique())
    real = [judge(classifier, held_out, normalisation, batch_size).features] * count
    grain = [texture(held_out)] * count if texture else []

    def measure(images: Tensor) -> tuple[Row, Tensor]:
        seen = judge(classifier, images, normalisation, batch_size)
        row = distances("kernel_distance", seen.features, seeds, kernel_distance, real)
        if texture:
            row |= distances("texture_kernel_distance", texture(images), seeds, kernel_distance, grain)
        return row, seen.predictions

    return measured_sweep(Drawn(swept, facts, own), measure)
