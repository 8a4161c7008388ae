"""The registry of actors: all that run in this process, by kind, for the metrics of Prometheus.

Metrics are added up at each scrape, so ten thousand sessions cost nothing between scrapes and are one series.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakSet

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from actors.runtime.telemetry.metrics import FAILURES, REGISTRY, RESTARTS

if TYPE_CHECKING:
    from actors.runtime.actor.service import Service


class ActorRegistry(Collector):
    """Counts actors and their messages by kind. An actor adds itself at its start, and removes itself at its stop.

    ACTORS.add(actor)
    ACTORS.running("examinee-session")
    ACTORS.remove(actor)
    """

    def __init__(self) -> None:
        self._running: dict[str, WeakSet[Service]] = {}
        self._handled_before: dict[str, int] = {}

    def add(self, actor: Service) -> None:
        """Add an actor that has started."""
        running = self._running.get(actor.kind)
        if running is None:
            running = self._running[actor.kind] = WeakSet()
            for counter in (FAILURES, RESTARTS):
                counter.labels(actor.kind)  # start at 0: for Prometheus a counter that appears as 1 has not increased
        running.add(actor)

    def remove(self, actor: Service) -> None:
        """Remove an actor that has stopped; the messages that it handled still count. Harmless if it was not added."""
        running = self._running.get(actor.kind)
        if running is not None and actor in running:
            running.remove(actor)
            self._handled_before[actor.kind] = self._handled_before.get(actor.kind, 0) + actor.handled

    def running(self, kind: str) -> list[Service]:
        """Return the running actors of a kind."""
        return list(self._running.get(kind, ()))

    def collect(self) -> Iterator[Metric]:
        """Add up all actors; takes about 0.25 µs for each."""
        actors = GaugeMetricFamily("examwire_actors", "Actors that run in this process", labels=["kind"])
        handled = CounterMetricFamily(
            "examwire_actor_handled_messages", "Messages that handlers have dealt with", labels=["kind"]
        )
        waiting = GaugeMetricFamily(
            "examwire_actor_mailbox_messages", "Messages that wait in the mailboxes of a kind", labels=["kind"]
        )
        deepest = GaugeMetricFamily(
            "examwire_actor_mailbox_fill_ratio", "How full the fullest mailbox of a kind is, 0 to 1", labels=["kind"]
        )
        for kind, running in self._running.items():
            total, depth, fullest = self._handled_before.get(kind, 0), 0, 0.0
            for actor in running:
                total += actor.handled
                if actor.mailbox is not None and (waits := len(actor.mailbox)):
                    depth += waits
                    fullest = max(fullest, waits / actor.mailbox.capacity)
            actors.add_metric([kind], len(running))
            handled.add_metric([kind], total)
            waiting.add_metric([kind], depth)
            deepest.add_metric([kind], fullest)
        yield from (actors, handled, waiting, deepest)


ACTORS = ActorRegistry()
REGISTRY.register(ACTORS)
