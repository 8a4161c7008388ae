"""The metrics of a process. Names follow Prometheus' conventions; no examinee is ever a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info, PlatformCollector, ProcessCollector

from actors.runtime import VERSION

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
Info("examwire_build", "What is running here", registry=REGISTRY).info({"version": VERSION})
