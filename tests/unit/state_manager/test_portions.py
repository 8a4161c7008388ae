"""Portions of a batch: how it is cut, decoded, counted and traced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.runtime.config.sections import TracingSettings
from actors.runtime.telemetry import tracing
from actors.runtime.telemetry.metrics import REGISTRY
from actors.state_manager.order_of_work import decode, portions
from protocol.messages.base import Message
from protocol.messages.proctor_events import Event
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.records import keys
from tests.unit.support.facts import DAWN, EXAMINEE, PLAN, at, connected, disconnected, open_plan, server, wait
from tests.unit.support.memory_broker import publish
from tests.unit.support.state_manager_world import Hall

A = "SOCK001-a"
OF_ANOTHER_PLAN = connected(A, 5).model_copy(update={"plan_id": "P002"})
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure_tracing(TracingSettings(sample=1.0), "test", "test", exporter=exporter)
    yield exporter
    tracing.end_tracing()


@pytest.mark.parametrize(
    ("more", "expected"), [(0, [[1], [2], [3], [4], [5]]), (1, [[1, 2], [3, 4], [5]]), (1000, [[1, 2, 3, 4, 5]])]
)
def test_a_portion_holds_whole_messages_of_at_least_the_size(more: int, expected: list[list[int]]) -> None:
    hall = Hall(*(connected(A, second) for second in range(5)))
    size = len(hall.broker.payloads[0]) + more
    cut = portions([hall.broker.delivery(sequence) for sequence in range(1, 6)], size)
    assert [[delivery.sequence for delivery in portion.deliveries] for portion in cut] == expected


OPENED, ONE, TWO = open_plan(), connected(A), connected("SOCK001-b").model_copy(update={"examinee_id": "E002"})


@pytest.mark.parametrize(
    ("earlier", "later", "depends"),
    [
        (ONE, ONE, True),
        (ONE, TWO, False),
        (ONE, OF_ANOTHER_PLAN, False),
        (OPENED, ONE, True),
        (ONE, OPENED, True),
        (OPENED, OPENED, True),
        (OPENED, OF_ANOTHER_PLAN, False),
        (OF_ANOTHER_PLAN, OPENED, False),
        (server(ServerStatusCode.STARTING), server(ServerStatusCode.READY), True),
        (server(ServerStatusCode.READY), ONE, False),
    ],
)
def test_a_portion_waits_for_one_about_the_same_examinee_plan_or_server(
    earlier: Message, later: Message, depends: bool
) -> None:
    hall = Hall()
    for fact in (earlier, later):
        about = "server.SOCK001" if isinstance(fact, ServerStatus) else f"plan.{getattr(fact, 'plan_id', None)}"
        publish(hall.broker, [fact], f"status.{about}")
    first, second = portions([hall.broker.delivery(1), hall.broker.delivery(2)], 1)
    assert second.depends_on(first) is depends


class Growth:
    """How much metrics have grown since this was made; `seconds`: the time since then."""

    def __init__(self, *names: str) -> None:
        self._before = {name: _sample(name) for name in names}
        self._began = time.perf_counter()

    def of(self, name: str) -> float:
        return _sample(name) - self._before[name]

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began


def _sample(name: str) -> float:
    """The value of a metric; of one with a label: `name:value`, of the one label that state managers' metrics have."""
    metric, _, value = name.partition(":")
    labels = {"stage" if "stage" in metric else "outcome": value} if value else {}
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def test_metrics_count_what_became_of_facts_and_measure_each_step() -> None:
    facts = "examwire_state_facts_total"
    stages = ("examwire_state_stage_seconds_sum:settle", "examwire_state_stage_seconds_sum:tell")
    batch = ("examwire_state_batch_messages_count", "examwire_state_batch_messages_sum")
    grown = Growth(*(f"{facts}:{outcome}" for outcome in ("applied", "malformed", "dead")), *stages, *batch)
    hall = Hall()
    publish(hall.broker, [connected(A), OF_ANOTHER_PLAN, disconnected(A, 5)], f"status.plan.{PLAN}")
    hall.work_off(1)
    assert [grown.of(f"{facts}:{outcome}") for outcome in ("applied", "malformed", "dead")] == [2, 1, 0]
    assert [grown.of(name) for name in batch] == [1, 2]
    settle, tell = (grown.of(stage) for stage in stages)
    assert 0 < settle < settle + tell < grown.seconds
    hall.happens(wait(9))
    hall.store.refused = {keys.mobile_sync(PLAN, EXAMINEE)}
    hall.work_off(2)
    assert [grown.of(f"{facts}:{outcome}") for outcome in ("applied", "malformed", "dead")] == [2, 1, 1]


def test_a_traced_fact_has_a_span_and_its_event_continues_the_trace(spans: InMemorySpanExporter) -> None:
    hall = Hall(connected(A).model_copy(update={"traceparent": TRACE}), wait(5))
    events: list[Event] = []
    hall.broker.on_event = events.append
    began = time.time_ns()
    hall.work_off(1, 2)
    (span,) = spans.get_finished_spans()
    assert (span.name, (span.attributes or {})["version"]) == ("state settled", "256")
    assert span.start_time is not None
    assert began <= span.start_time <= time.time_ns()
    assert [event.traceparent and event.traceparent.split("-")[1:3] for event in events] == [
        [TRACE.split("-")[1], f"{span.context.span_id:016x}"],
        None,
    ]


@pytest.mark.parametrize(("facts", "traces"), [([connected(A)], [TRACE]), ([connected(A), wait(1)], [None, None])])
def test_a_message_of_one_fact_may_have_its_trace_in_a_header(facts: list[Message], traces: list[str | None]) -> None:
    hall = Hall()
    publish(hall.broker, facts, f"status.plan.{PLAN}")
    delivery = replace(hall.broker.delivery(1), headers={"traceparent": TRACE})
    assert [getattr(item.message, "traceparent", "") for item in decode([delivery]).items] == traces


def test_a_server_status_that_a_schedule_has_published_is_malformed() -> None:
    hall = Hall(server(ServerStatusCode.READY))
    delivery = replace(hall.broker.delivery(1), headers={"Nats-Scheduler": "status.timer.P001.E001.x"})
    portion = decode([delivery])
    assert (portion.items, [message.error.field for _, message in portion.malformed]) == ([], ["type"])


def test_a_stage_begins_when_the_log_took_its_fact() -> None:
    hall = Hall(wait(5).model_copy(update={"by_log_time": True}))
    (item,) = decode([replace(hall.broker.delivery(1), stored_at=DAWN + 60)]).items
    assert getattr(item.message, "timestamp", None) == at(60)
