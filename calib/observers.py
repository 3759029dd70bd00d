"""From the magnitudes that a matrix input took to the largest one that its int8 grid should hold.

======================  ==========================================================================================
``minmax``              the largest magnitude seen: nothing is clipped
``percentile``          the magnitude that 99.99 % of the values stay below
``mse``                 the least mean squared rounding and clipping error
``entropy``             the least Kullback-Leibler divergence between the histogram and its rounded self (Migacz,
                        "8-bit Inference with TensorRT", 2017)
======================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from trm_edge.inputs import Array
from trm_edge.quantization import LEVELS

BINS = 2048
PERCENTILE = 99.99

_CANDIDATES = 128  # thresholds that mse and entropy try


class Histogram:
    """Magnitudes in equal bins over 0..limit; the limit is a power of two and doubles as larger values come."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.largest = 0.0

    def add(self, values: Array) -> None:
        """Count the magnitudes of ``values``, which must be finite."""
        sizes = np.abs(values).ravel()
        largest = float(sizes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if largest == 0:
            self.counts[0] += len(sizes)
            return
        self._reach(largest)
        place = (sizes / self.limit * BINS).astype(np.int64)
        self.counts += np.bincount(np.minimum(place, BINS - 1), minlength=BINS)

    def _reach(self, largest: float) -> None:
        """Make room for ``largest`` by joining bins in pairs, which loses nothing but resolution."""
        if self.limit == 0:
            self.limit = float(2.0 ** np.ceil(np.log2(largest)))
        while largest > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2

    @staticmethod
    def joined(parts: Iterable[Histogram]) -> Histogram:
        """Return the histogram of all values of ``parts``."""
        total, copies = Histogram(), []
        for part in parts:
            copy = Histogram()
            copy.counts, copy.limit, copy.largest = part.counts.copy(), part.limit, part.largest
            copies.append(copy)
            total.largest = max(total.largest, part.largest)
        total.limit = max(copy.limit for copy in copies)
        for copy in copies:
            if copy.limit:
                copy._reach(total.limit)
            total.counts += copy.counts
        return total


def input_scale(histogram: Histogram, observer: str) -> np.float32:
    """Return the scale that ``observer`` chooses; an input that was always 0 gets one that changes nothing."""
    most = OBSERVERS[observer](histogram) if histogram.largest > 0 else 1.0
    least = 2.0**-126  # the smallest normal float32
    scale: np.float32 = np.float32(max(most / LEVELS, least))
    return scale


def _minmax(histogram: Histogram) -> float:
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    place = int(np.searchsorted(share, PERCENTILE / 100))
    return min(histogram.largest, float((place + 1) * histogram.limit / BINS))


def _mse(histogram: Histogram) -> float:
    middles = (np.arange(BINS) + 0.5) * (histogram.limit / BINS)
    thresholds = histogram.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    scales = thresholds[:, None] / LEVELS
    rounded = np.minimum(np.rint(middles / scales), LEVELS) * scales
    return float(thresholds[((rounded - middles) ** 2 @ histogram.counts).argmin()])


def _entropy(histogram: Histogram) -> float:
    used = min(BINS, int(np.ceil(histogram.largest * BINS / histogram.limit)))
    if used <= LEVELS:
        return histogram.largest
    sizes = np.unique(np.linspace(LEVELS + 1, used, _CANDIDATES).astype(int))
    divergence = [_divergence(histogram.counts, int(size)) for size in sizes]
    return min(histogram.largest, float(sizes[int(np.argmin(divergence))] * histogram.limit / BINS))


def _divergence(counts: Array, size: int) -> float:
    """KL divergence of the first ``size`` bins, the rest clipped into the last, from their image on the int8 grid."""
    kept = counts[:size].astype(np.float64)
    reference = kept.copy()
    reference[-1] += counts[size:].sum()
    level = np.arange(size) * (LEVELS + 1) // size  # the grid's cell of each bin; values spread over its filled bins
    filled = kept > 0
    total, number = np.bincount(level, kept), np.bincount(level, filled)
    image = np.where(filled, (total / np.maximum(number, 1))[level], 0)
    p, q = reference / reference.sum(), image / max(image.sum(), 1)
    with np.errstate(divide="ignore"):
        terms = np.where(p > 0, p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-12))), 0)
    return float(terms.sum())


OBSERVERS: dict[str, Callable[[Histogram], float]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
"""Observers by name; each returns the largest magnitude that is not clipped."""
