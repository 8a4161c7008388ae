"""Traces: ids, sampling, what is ignored, and what happens without the extra."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.runtime.config.sections import TracingSettings
from actors.runtime.telemetry import tracing
from protocol.errors import ConfigurationError
from protocol.messages.codec import encode
from protocol.messages.facts import STATUS_CODEC, ConnectionStatus
from protocol.messages.trace_context import parse_traceparent

CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure_tracing(TracingSettings(sample=1.0), "test", "test", exporter=exporter)
    yield exporter
    tracing.end_tracing()


def test_off_nothing_is_begun() -> None:
    assert not tracing.on()
    assert tracing.begin("socket lost") is None
    assert tracing.from_client(CLIENTS) is None


def test_a_child_is_of_its_parents_trace(spans: InMemorySpanExporter) -> None:
    root = tracing.begin("socket lost", about={"plan": "P001", "reason": None})
    assert root is not None
    child = tracing.begin("status published", root.traceparent)
    assert child is not None
    child.end()
    root.end(reason="PING_TIMEOUT")
    published, loss = spans.get_finished_spans()
    assert published.context.trace_id == loss.context.trace_id
    assert published.parent is not None
    assert published.parent.span_id == loss.context.span_id
    assert dict(loss.attributes or {}) == {"plan": "P001", "reason": "PING_TIMEOUT"}


def test_a_key_makes_the_same_span_again(spans: InMemorySpanExporter) -> None:
    def settle(key: str) -> str:
        span = tracing.begin("state settled", CLIENTS, key=key)
        assert span is not None
        return span.traceparent

    assert settle("256") == settle("256")
    assert settle("256") != settle("257")
    assert tracing.begin("state settled", CLIENTS) is not None  # the wish of an earlier one does not linger
    assert len({settle("1"), settle("2"), settle("1")}) == 2


@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_the_share_decides_about_new_traces_and_those_of_clients_but_not_within_one(sample: float) -> None:
    exporter = InMemorySpanExporter()
    tracing.configure_tracing(TracingSettings(sample=sample), "test", "test", exporter=exporter)
    try:
        assert (tracing.begin("socket lost") is not None) is (sample == 1.0)
        assert (tracing.from_client(CLIENTS) == CLIENTS) is (sample == 1.0)
        assert tracing.begin("state settled", CLIENTS) is not None
    finally:
        tracing.end_tracing()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        17,
        "",
        CLIENTS.upper(),
        CLIENTS + "-more",
        CLIENTS.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_an_invalid_traceparent_is_ignored(bad: object, spans: InMemorySpanExporter) -> None:
    assert parse_traceparent(bad) is None
    data = {
        "planId": "P001",
        "examineeId": "E001",
        "socketId": "S1-1",
        "status": "CONNECTED",
        "timestamp": "2026-01-05T09:00:00Z",
        "traceparent": bad,
    }
    message = STATUS_CODEC.from_element({"type": "connection_status", "data": data})
    assert isinstance(message, ConnectionStatus)
    assert message.traceparent is None
    assert b"traceparent" not in encode(message)


def test_a_context_that_is_not_sampled_is_not_traced_on(spans: InMemorySpanExporter) -> None:
    unsampled = CLIENTS[:-2] + "00"
    assert tracing.begin("state settled", unsampled) is None
    assert tracing.from_client(unsampled) is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector/custom", "https://collector/custom"),
    ],
)
def test_spans_go_to_the_collectors_address_for_traces(endpoint: str, url: str) -> None:
    assert tracing.traces_url(endpoint) == url


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "http://collector:port"])
def test_an_invalid_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tracing\.endpoint"):
        tracing.traces_url(endpoint)


def test_without_the_extra_a_configured_endpoint_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"examwire\[tracing\]"):
        tracing.configure_tracing(TracingSettings(endpoint="http://127.0.0.1:4318"), "test", "test")
    tracing.configure_tracing(TracingSettings(), "test", "test")  # not asked for, not missed
    assert not tracing.on()
