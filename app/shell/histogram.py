"""A histogram that takes many equal values at once: a transaction says how many rows it has of each second."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

_INFINITE: Final = "+Inf"


class CountedHistogram(Collector):
    """Like prometheus_client's Histogram, whose `observe` takes one value a call.

    Args:
        name: of the metric.
        documentation: of the metric.
        labels: names of its labels.
        buckets: upper bounds, ascending.
        registry: it exports the metric.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], buckets: Sequence[float],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:  # fmt: skip
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(buckets)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float, count: int = 1) -> None:
        """Count `count` observations of `value`."""
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, value)] += count
            self._sums[labels] = self._sums.get(labels, 0.0) + value * count

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The metric with its values."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [*map(str, map(float, self._bounds)), _INFINITE]
        with self._lock:
            for labels, counts in self._counts.items():
                family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), self._sums[labels])
        yield family
