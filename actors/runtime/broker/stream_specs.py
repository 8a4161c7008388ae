"""Convert the specs of `protocol.broker.streams` for nats-py, and compare them with the server's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    StorageType,
    StreamConfig,
    SubjectTransform,
)

from protocol.broker.streams import MAX_BYTES, PIN_GROUP, ConsumerSpec, StreamSpec

BEGINNING = ("deliver_policy", "opt_start_seq", "opt_start_time")


@dataclass
class PinnedConfig(ConsumerConfig):
    """A consumer's configuration with the priority group (NATS ADR-42), which nats-py lacks.

    Example::

        config = PinnedConfig(durable_name="state-manager-0", priority_groups=[PIN_GROUP])
    """

    priority_groups: list[str] | None = None
    priority_policy: str | None = None
    priority_timeout: int | None = None  # nanoseconds


def stream_config(spec: StreamSpec, replicas: int = 1) -> StreamConfig:
    """Convert the spec of a stream with `replicas` copies."""
    return StreamConfig(
        name=spec.name,
        description=spec.description,
        subjects=list(spec.subjects),
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=spec.max_age,
        duplicate_window=min(spec.duplicate_window, spec.max_age or spec.duplicate_window),
        max_msgs_per_subject=spec.max_msgs_per_subject,
        allow_direct=True,
        # The server enables this itself where it is needed; set here so that a comparison finds no difference.
        allow_rollup_hdrs=spec.allow_rollup or spec.allow_msg_schedules or spec.delete_marker_ttl is not None,
        max_bytes=-1 if spec.guarded else spec.max_bytes,
        metadata={MAX_BYTES: str(spec.max_bytes)} if spec.guarded else None,
        discard=DiscardPolicy.NEW if spec.refuse_when_full else DiscardPolicy.OLD,
        allow_msg_ttl=spec.allow_msg_ttl or None,
        allow_msg_schedules=spec.allow_msg_schedules or None,
        allow_atomic=spec.allow_atomic or None,
        subject_delete_marker_ttl=spec.delete_marker_ttl,
        subject_transform=SubjectTransform(*spec.subject_transform) if spec.subject_transform else None,
    )


def consumer_config(spec: ConsumerSpec) -> ConsumerConfig:
    """Convert the spec of a consumer."""
    pinned: dict[str, Any] = {}
    if spec.pin_seconds is not None:
        pinned = {"priority_groups": [PIN_GROUP], "priority_policy": "pinned_client"}
        pinned["priority_timeout"] = int(spec.pin_seconds * 1e9)
    return PinnedConfig(
        durable_name=spec.name,
        name=spec.name,
        description=spec.description,
        deliver_policy=DeliverPolicy.NEW if spec.deliver_new else DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait,
        max_deliver=spec.max_deliver,
        backoff=list(spec.backoff) or None,
        filter_subjects=list(spec.filters),
        max_ack_pending=spec.max_ack_pending,
        inactive_threshold=spec.inactive_threshold,
        metadata=spec.metadata or None,
        **pinned,
    )


def beginning(config: ConsumerConfig, existing: Mapping[str, Any] | None, first: int | None) -> ConsumerConfig:
    """Add to a consumer's configuration where it begins; of an existing consumer this cannot be changed."""
    if existing is not None:
        return config.evolve(**{name: existing.get(name) for name in BEGINNING})
    if first is not None:
        return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first)
    return config


def config_difference(wanted: StreamConfig | ConsumerConfig, actual: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ on the server: name -> (actual, wanted), without where a consumer began."""
    difference = {}
    for name, value in plain(wanted).items():
        if name in BEGINNING:
            continue
        actual_value = actual.get(name)
        if name == "metadata":
            actual_value = {key: actual_value.get(key) for key in value} if actual_value else actual_value
        if name == "filter_subjects" and actual_value is None and actual.get("filter_subject"):
            actual_value = [actual["filter_subject"]]
        if actual_value != value:
            difference[name] = (actual_value, value)
    return difference


def plain(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration that are set, by name."""
    return {name: value for name, value in vars(config).items() if value is not None and name != "first_seq"}
