"""Metrics of a web server: uploads by outcome, and the time to answer."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from actors.runtime.telemetry.metrics import REGISTRY

UPLOADS = Counter("examwire_web_uploads_total", "Uploads of pictures, by outcome", ["outcome"], registry=REGISTRY)
REQUESTS = Histogram(
    "examwire_web_request_seconds",
    "Time to answer, including the time that a phone takes to send an upload",
    ["route", "method", "status"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
CONNECTIONS = Gauge("examwire_web_connections", "Connections to the web server", registry=REGISTRY)
CONNECTIONS_ENDED = Counter(
    "examwire_web_connections_ended_total",
    "Connections that the web server closed: no_request_in_time, crowded_out (the longest idle one, for a new one), "
    "reads_too_slowly, refused (all allowed connections were busy)",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("no_request_in_time", "crowded_out", "reads_too_slowly", "refused"):
    CONNECTIONS_ENDED.labels(_reason)
CODES = Counter(
    "examwire_web_phone_codes_total",
    "Codes that phones sent, by outcome; NOT_FOUND: wrong codes",
    ["outcome"],
    registry=REGISTRY,
)
CROSS_SITE = Counter(
    "examwire_web_cross_site_requests_total", "Requests of other sites' pages that were refused", registry=REGISTRY
)
PICTURES_WAITING = Gauge(
    "examwire_web_pictures_waiting", "Pictures that were received and wait to be decoded", registry=REGISTRY
)
DECODERS_ENDED = Counter(
    "examwire_web_decoders_ended_total",
    "Decoder processes that a picture ended: too_costly (processor time), too_slow (time), crashed",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("too_costly", "too_slow", "crashed"):
    DECODERS_ENDED.labels(_reason)
for _outcome in ("FOUND", "NOT_FOUND", "TOO_MANY_REQUESTS"):
    CODES.labels(_outcome)
for _outcome in ("STORED", "STORE_FAILED", "UNAVAILABLE", "INTERNAL_ERROR"):
    UPLOADS.labels(_outcome)
