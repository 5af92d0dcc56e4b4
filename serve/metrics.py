"""`/metrics`: what Prometheus reads. Values are taken when it asks; nothing is kept beside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from .measurements import Histogram
from .served import Served

_STATISTICS = {  # of a service, those that only grow
    "requests": "Requests that were taken.",
    "refused": "Requests that were refused as there was no room.",
    "steps": "Steps of the batch.",
    "tokens": "Tokens that were drawn.",
    "prompt_tokens": "Tokens of prompts.",
    "restored_tokens": "Tokens that were taken from the store and not computed.",
    "draft_calls": "Calls that appended tokens of texts with drafts.",
    "drafted": "Tokens that were drafted and checked.",
    "accepted": "Drafted tokens that came.",
}
_NOW = {
    "slots": "Texts that decode at once.",
    "running": "Texts that have a slot.",
    "reading": "Prompts that are being read.",
    "waiting": "Prompts and texts that wait for a slot.",
}
_STORE = {
    "hits": "Sessions that were asked for and were there.",
    "misses": "Sessions that were asked for and were not there.",
    "prefix_hits": "Prompts that began as some sequence did.",
    "prefix_misses": "Prompts that began as none did.",
    "spills": "Sequences that went from memory to disk.",
    "evictions": "Sequences that were dropped for want of room.",
    "damaged": "Sequences that were dropped as their files were damaged.",
}
_STORE_NOW = {
    "sequences": "Sequences in the store.",
    "memory_bytes": "Memory that they take.",
    "disk_bytes": "Room on disk that they take.",
}


@dataclass
class Answered:
    """Answers so far.

    Attributes:
        counts: by route and status.
    """

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)


class ServerCollector(Collector):
    """What a server's models have to do, and have done."""

    def __init__(self, served: Mapping[str, Served], answered: Answered) -> None:
        self._served, self._answered = served, answered

    def collect(self) -> Iterator[Metric]:
        """All families."""
        answers = CounterMetricFamily("foveal_http_responses", "Answers.", labels=("route", "status"))
        for (route, status), count in list(self._answered.counts.items()):
            answers.add_metric((route, str(status)), count)
        yield answers
        yield from self._sums()
        yield from self._times()
        yield from self._stores()

    def _sums(self) -> Iterator[Metric]:
        found = {name: one.service.statistics for name, one in self._served.items()}
        for field_name, said in _STATISTICS.items():
            counter = CounterMetricFamily(f"foveal_{field_name}", said, labels=("model",))
            for name, one in found.items():
                counter.add_metric((name,), getattr(one, field_name))
            yield counter
        for field_name, said in _NOW.items():
            gauge = GaugeMetricFamily(f"foveal_{field_name}", said, labels=("model",))
            for name, one in found.items():
                gauge.add_metric((name,), getattr(one, field_name))
            yield gauge
        fires = CounterMetricFamily("foveal_fires", "Firings of a stage.", labels=("model", "stage"))
        ends = CounterMetricFamily("foveal_texts", "Texts that ended, by why.", labels=("model", "reason"))
        for name, one in found.items():
            for stage, count in one.fires.items():
                fires.add_metric((name, stage), count)
            for reason, count in list(self._served[name].measurements.ends.items()):
                ends.add_metric((name, reason), count)
        yield from (fires, ends)

    def _times(self) -> Iterator[Metric]:
        by_model = {name: one.measurements for name, one in self._served.items()}
        yield _histogram(
            "foveal_time_to_first_token_seconds",
            "From a request to a text's first token.",
            ("model",),
            (((name,), one.first) for name, one in by_model.items()),
        )
        yield _histogram(
            "foveal_inter_token_seconds",
            "Between two tokens of a text, by the coarsest stage that fired for the second.",
            ("model", "fired"),
            (((name, fired), found) for name, one in by_model.items() for fired, found in one.between.items()),
        )
        yield _histogram(
            "foveal_text_seconds",
            "From a request to the end of a text.",
            ("model",),
            (((name,), one.texts) for name, one in by_model.items()),
        )
        yield _histogram(
            "foveal_step_seconds",
            "That steps of the batch took.",
            ("model",),
            (((name,), one.steps) for name, one in by_model.items()),
        )
        yield _histogram(
            "foveal_step_texts",
            "Texts that a step brought tokens to.",
            ("model",),
            (((name,), one.step_texts) for name, one in by_model.items()),
        )

    def _stores(self) -> Iterator[Metric]:
        stores = {name: one.service.sessions.store for name, one in self._served.items()}
        found = {name: store.statistics for name, store in stores.items() if store is not None}
        for field_name, said in _STORE.items():
            counter = CounterMetricFamily(f"foveal_store_{field_name}", said, labels=("model",))
            for name, one in found.items():
                counter.add_metric((name,), getattr(one, field_name))
            yield counter
        for field_name, said in _STORE_NOW.items():
            gauge = GaugeMetricFamily(f"foveal_store_{field_name}", said, labels=("model",))
            for name, one in found.items():
                gauge.add_metric((name,), getattr(one, field_name))
            yield gauge


def _histogram(
    name: str, said: str, labels: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, said, labels=labels)
    for values, one in found:
        family.add_metric(values, one.buckets, one.sum)
    return family


def registry_of(served: Mapping[str, Served], answered: Answered) -> CollectorRegistry:
    """A registry of its own, so that several servers in one process tell their own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(served, answered))
    return registry
