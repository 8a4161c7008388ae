"""Tracing by OpenTelemetry, an optional extra: one loss is one trace, from the socket to the proctor's frame.

    socket lost -> status published -> state settled -> proctor told

The context travels as `traceparent` (W3C): a field of facts and events, since those travel in batches, and a NATS
header beside it when one travels alone. Off, as by default, nothing is in any payload, and `on()` is all that it costs.

A span's id may be made from what it is about (`key`): a redelivered fact is settled again by the same span, so what is
told about it is the same to the byte and keeps its message id.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.runtime import VERSION
from actors.runtime.config.sections import TracingSettings
from protocol.errors import ConfigurationError
from protocol.messages.trace_context import TraceContext, parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.trace import Tracer

Attribute = str | int | float | bool | None

QUEUE_SPANS = 32768  # a hall that is lost at once makes four thousand traces of four spans
BATCH_SPANS = 2048
EXPORT_SECONDS = 5.0
FLUSH_SECONDS = 2.0


class Span:
    """Something that is going on in a trace; `traceparent` names it to whoever goes on with it."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OpenTelemetrySpan) -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = str(TraceContext(context.trace_id, context.span_id, True))

    def end(self, **attributes: Attribute) -> None:
        """End the span."""
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(name, value)
        self._span.end()


class _Tracing:
    """The tracing that `configure_tracing` has set up in this process."""

    def __init__(self, provider: TracerProvider, ids: _Ids, share: float) -> None:
        self.provider = provider
        self.tracer: Tracer = provider.get_tracer("examwire", VERSION)
        self.ids = ids
        self.share = share


class _Ids:
    """OpenTelemetry's random ids, or for the next span the one that is wanted."""

    def __init__(self, random: IdGenerator) -> None:
        self._random = random
        self.wanted: int | None = None

    def generate_span_id(self) -> int:
        wanted, self.wanted = self.wanted, None
        return wanted or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return self._random.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return self._random.is_trace_id_random()


_tracing: _Tracing | None = None


def on() -> bool:
    """Return whether this process traces."""
    return _tracing is not None


def configure_tracing(settings: TracingSettings, role: str, name: str, *, exporter: SpanExporter | None = None) -> None:
    """Trace from now on if `tracing.endpoint` is set; `exporter` takes the spans at once instead (tests).

    Raises `ConfigurationError` when it is set and cannot be: no such address, or the extra is not installed.
    """
    global _tracing
    if settings.endpoint is None and exporter is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigurationError(
            f"tracing.endpoint is set, but the extra `tracing` is not installed ({error}): "
            "pip install 'examwire[tracing]', or unset it"
        ) from None
    resource = {"service.name": f"examwire-{role}", "service.instance.id": name, "service.version": VERSION}
    ids = _Ids(RandomIdGenerator())
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample)),
        resource=Resource.create(resource),
        id_generator=ids,  # type: ignore[arg-type]  # duck-typed: their base class is not there without the extra
        shutdown_on_exit=False,
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        assert settings.endpoint is not None
        to_collector = OTLPSpanExporter(endpoint=traces_url(settings.endpoint), timeout=EXPORT_SECONDS)
        provider.add_span_processor(
            BatchSpanProcessor(to_collector, max_queue_size=QUEUE_SPANS, max_export_batch_size=BATCH_SPANS)
        )
    _tracing = _Tracing(provider, ids, settings.sample)


def traces_url(endpoint: str) -> str:
    """The address that spans go to: `/v1/traces` of a collector, unless a path is given."""
    try:
        parts = urlsplit(endpoint)
        parts.port  # noqa: B018 - raises when it is none
    except ValueError as error:
        raise ConfigurationError(f"tracing.endpoint: {endpoint!r} is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"tracing.endpoint: {endpoint!r} is not an http(s):// address of a collector")
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def end_tracing() -> None:
    """Send what is left, for a moment, and trace no more."""
    global _tracing
    if _tracing is not None:
        provider, _tracing = _tracing.provider, None
        provider.force_flush(int(FLUSH_SECONDS * 1000))
        provider.shutdown()


def begin(
    name: str,
    parent: str | None = None,
    about: Mapping[str, Attribute] | None = None,
    *,
    key: str | None = None,
    since: float | None = None,
) -> Span | None:
    """Begin a span, under `parent` (a `traceparent`) or as the first of a trace. `None`: it is not traced.

    `about` are its attributes, `None` left out; `key` makes its id (see above); `since` is when it began (seconds
    since the epoch; default: now).
    """
    if _tracing is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    context = Context()
    if parent is not None:
        traceparent = parse_traceparent(parent)
        if traceparent is None or not traceparent.sampled:
            return None
        flags = TraceFlags(TraceFlags.SAMPLED)
        remote = SpanContext(traceparent.trace_id, traceparent.span_id, is_remote=True, trace_flags=flags)
        context = set_span_in_context(NonRecordingSpan(remote), context)
        if key is not None:
            _tracing.ids.wanted = _span_id(traceparent.trace_id, name, key)
    span = _tracing.tracer.start_span(
        name,
        context,
        attributes={attribute: value for attribute, value in (about or {}).items() if value is not None},
        start_time=int((since if since is not None else time.time()) * 1e9),
    )
    return Span(span) if span.is_recording() else None


def from_client(traceparent: str | None) -> str | None:
    """The `traceparent` that a client gave, if it is to be gone on with; clients do not decide how much is traced."""
    context = parse_traceparent(traceparent) if _tracing is not None else None
    if _tracing is None or context is None or not context.sampled:
        return None
    # The trace's share of all, as OpenTelemetry's own sampler sees it.
    return traceparent if context.trace_id & (2**64 - 1) < _tracing.share * 2**64 else None


def _span_id(trace_id: int, name: str, key: str) -> int:
    made = hashlib.sha256(f"{trace_id:032x} {name} {key}".encode()).digest()[:8]
    return int.from_bytes(made) or 1
