"""Whether two groups of runs differ: a t-test between a variant and a baseline, corrected where many are tried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy import special  # a quarter of the time that scipy.stats takes to import

LEVEL = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """A variant held against the baseline.

    Attributes:
        effect: mean of the variant less that of the baseline.
        standard_error: of the effect.
        interval: in which the effect lies with 95 % confidence, for this comparison alone.
        p_value: of the two-sided test that the effect is nought; corrected by `corrected`.
        runs: of the variant and of the baseline.
    """

    effect: float
    standard_error: float
    interval: tuple[float, float]
    p_value: float
    runs: tuple[int, int]

    @property
    def is_significant(self) -> bool:
        """Whether there is a difference."""
        return self.p_value < LEVEL

    @property
    def bound(self) -> float:
        """The largest difference, either way, that the runs leave possible."""
        return max(abs(end) for end in self.interval)


def compare(variant: Sequence[float], baseline: Sequence[float], paired: bool) -> Comparison | None:
    """Welch's t-test, or Student's on the differences of paired runs; None with fewer than two runs on a side.

    Args:
        variant, baseline: one number a run; paired ones in the same order.

    Raises:
        ValueError: paired groups of different sizes.
    """
    a, b = numpy.asarray(variant, dtype=float), numpy.asarray(baseline, dtype=float)
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} runs can't be paired with {len(b)}")
    if min(len(a), len(b)) < 2:
        return None
    effect = float((a - b).mean() if paired else a.mean() - b.mean())
    parts = [a - b] if paired else [a, b]
    variances = [part.var(ddof=1) / len(part) for part in parts]
    error = math.sqrt(sum(variances))
    rounding = 1e-12 * float(abs(b).max())
    if error <= rounding:  # all runs of a side are alike
        alike = abs(effect) <= rounding
        return Comparison(effect, 0.0, (effect, effect), 1.0 if alike else 0.0, (len(a), len(b)))
    # Welch and Satterthwaite's degrees of freedom; of one part, n - 1.
    freedom = sum(variances) ** 2 / sum(each**2 / (len(part) - 1) for each, part in zip(variances, parts, strict=True))
    reach = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p_value = float(2 * special.stdtr(freedom, -abs(effect) / error))
    return Comparison(effect, error, (effect - reach, effect + reach), p_value, (len(a), len(b)))


def corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (Scand. J. Statist. 6, 1979): the chance of one false finding among all stays at the level."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = largest
    return found
