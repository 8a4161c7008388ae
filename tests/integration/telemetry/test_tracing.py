"""One loss is one trace, from the socket to every proctor's server; with tracing off, nothing of it is anywhere."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.runtime.broker.connection import Bus
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.config.sections import TracingSettings
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import tracing
from actors.state_manager.manager import StateManager
from actors.web_server.server import WebServer
from protocol.messages.trace_context import parse_traceparent
from protocol.records import keys
from tests.integration.support.clients.phones import Site, picture, upload_path
from tests.integration.support.system import RawClient, System, eventually

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure_tracing(TracingSettings(sample=1.0), "test", "test", exporter=exporter)
    yield exporter
    tracing.end_tracing()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


async def trace_of(exporter: InMemorySpanExporter, first: str, proctors: int = 1) -> list[ReadableSpan]:
    """The spans of the trace that began with `first`, when all are there: each is the parent of the next one."""

    async def complete() -> list[ReadableSpan]:
        for root in named(exporter, first):
            trace = [span for span in exporter.get_finished_spans() if span.context.trace_id == root.context.trace_id]
            if sum(span.name == "proctor told" for span in trace) >= proctors:
                return trace
        return []

    trace: list[ReadableSpan] = await eventually(complete, f"a whole trace of {first}")
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in trace:
        by_name.setdefault(span.name, []).append(span)
    chain = [first, "status published", "state settled", "proctor told"]
    assert sorted(by_name) == sorted(chain)
    assert [len(by_name[name]) for name in chain] == [1, 1, 1, proctors]
    for parent, child in itertools.pairwise(chain):
        for span in by_name[child]:
            assert span.parent is not None
            assert span.parent.span_id == by_name[parent][0].context.span_id, f"{parent} -> {child}"
    return [*by_name[first], *by_name["status published"], *by_name["state settled"], *by_name["proctor told"]]


async def test_one_loss_is_one_trace_from_the_socket_to_every_proctor(
    settings: Settings, bus: Bus, store: StateStore, spans: InMemorySpanExporter
) -> None:
    async with System(settings) as system:
        first_proctor, second_proctor = (
            await system.proctor("SOCK001", name="T1"),
            await system.proctor("SOCK002", name="T2"),
        )
        examinee = await system.examinee("E001")
        await trace_of(spans, "socket opened", proctors=2)
        examinee.abort()
        event = await first_proctor.expect("examinee_disconnected")
        await second_proctor.expect("examinee_disconnected")
        loss, published, settled, *proctor_spans = await trace_of(spans, "socket lost", proctors=2)
        assert loss.parent is None
        for span in (loss, published, settled, *proctor_spans):
            about = dict(span.attributes or {})
            assert (about["plan"], about["examinee"], about["reason"]) == ("P001", "E001", "SOCKET_CLOSED")
            assert about["socket"] == event["data"]["socketId"]
        for span in (settled, *proctor_spans):
            assert (span.attributes or {})["version"] == str(event["data"]["version"])
        # The frame says where the trace goes on, and a lone message in NATS has it as a header as well.
        traceparent = parse_traceparent(event["data"]["traceparent"])
        assert traceparent is not None
        assert traceparent.span_id == settled.context.span_id
        headers = [
            stored.headers.get("traceparent") async for stored in read_stream(bus, "SOCKET", subject="socket.plan.>")
        ]
        assert event["data"]["traceparent"] in headers


async def test_a_redelivered_loss_is_published_once_and_keeps_its_span(
    settings: Settings, bus: Bus, store: StateStore, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        examinee = await system.examinee("E001")
        manager = system.actors["state-manager"]
        assert isinstance(manager, StateManager)

        async def never(*_arguments: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(manager._order_of_work, "_confirm", never)  # it publishes, and dies before acknowledging
        examinee.abort()
        await proctor.expect("examinee_disconnected")
        monkeypatch.undo()
        await system.stop("state-manager")
        await system.start("state-manager", lambda bus: StateManager(settings, bus, store, "sm2"))

        async def settled_twice() -> list[ReadableSpan]:
            losses = [span for span in named(spans, "state settled") if (span.attributes or {}).get("reason")]
            return losses if len(losses) > 1 else []

        losses = await eventually(settled_twice, "the redelivery", 15)
        assert len({span.context.span_id for span in losses}) == 1
        await system.examinee("E002")  # what comes after it has arrived: so would a second one have
        await proctor.expect("examinee_connected", examineeId="E002")
        assert [frame["type"] for frame in proctor.about("E001")] == ["examinee_connected", "examinee_disconnected"]


async def test_an_upload_continues_the_trace_of_the_phone(
    settings: Settings, bus: Bus, store: StateStore, spans: InMemorySpanExporter
) -> None:
    async with System(settings, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        examinee = await system.examinee("E001")
        await examinee.say("mobile_sync_wait", traceparent=GIVEN.replace("0af7", "1bf8"))
        await proctor.expect("mobile_sync_status", status="WAITING")
        entered, *_ = await trace_of(spans, "mobile sync entered")
        assert f"{entered.context.trace_id:032x}".startswith("1bf8")

        web = await system.start("web-server", lambda bus: WebServer(settings, bus, store))
        assert isinstance(web, WebServer)
        site = Site(web, settings, bus)
        answer = await site.http.put(
            upload_path(),
            content=picture(),
            headers={"Authorization": f"Bearer {system.token('mobile', 'E001')}", "traceparent": GIVEN},
        )
        await site.http.aclose()
        assert answer.status_code == 201
        await proctor.expect("mobile_sync_completed")
        uploaded, *_ = await trace_of(spans, "picture uploaded")
        assert uploaded.parent is not None
        parent = parse_traceparent(GIVEN)
        assert parent is not None
        assert (uploaded.context.trace_id, uploaded.parent.span_id) == (parent.trace_id, parent.span_id)


async def everything(bus: Bus, store: StateStore, clients: list[RawClient]) -> str:
    """All that was written down or sent."""
    texts = [str(frame) for client in clients for frame in client.frames]
    for stream in ("STATUS", "SOCKET"):
        texts += [f"{stored.payload!r} {stored.headers}" async for stored in read_stream(bus, stream)]
    texts.append(str(await store.entries(keys.progress("P001", "E001"))))
    return "\n".join(texts)


@pytest.mark.parametrize("traced", [False, True])
async def test_untraced_messages_have_no_traceparent(
    settings: Settings, bus: Bus, store: StateStore, traced: bool, request: pytest.FixtureRequest
) -> None:
    if traced:  # the check itself must be able to find something
        request.getfixturevalue("spans")
    async with System(settings, servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        examinee = await system.raw()
        await examinee.say(
            "hello", token=system.token("examinee", "E001"), clientId="b", connectionNo=1, traceparent=GIVEN
        )
        await examinee.expect("session_state")
        await examinee.say("mobile_sync_wait", traceparent=GIVEN)
        await proctor.expect("mobile_sync_status")
        examinee.abort()
        await proctor.expect("examinee_disconnected")
        assert ("traceparent" in await everything(bus, store, [proctor, examinee])) is traced


class _Collector(BaseHTTPRequestHandler):
    """The receiving end of OTLP/HTTP."""

    received: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}[
                "service.name"
            ]
            type(self).received += [(service, span.name) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not on the tests' stderr."""


def test_spans_are_flushed_before_the_role_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, str]] = []
    monkeypatch.setattr(_Collector, "received", received, raising=False)
    with HTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        tracing.configure_tracing(TracingSettings(endpoint=endpoint, sample=1.0), "socket-server", "SOCK001")
        span = tracing.begin("socket lost", about={"plan": "P001"})
        assert span is not None
        span.end()
        tracing.end_tracing()
        server.shutdown()
        thread.join()
    assert received == [("examwire-socket-server", "socket lost")]
