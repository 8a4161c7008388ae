"""Who speaks on a subject and who reads it, from the broker's permissions and the consumers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.broker.permissions import BrokerRole, permissions
from protocol.broker.streams import (
    ADVISORY_WATCH,
    LEASE_WATCH,
    RECONNECT_EXHAUSTED,
    STATE_MANAGERS,
    ConsumerSpec,
    queue_consumers,
    queue_id,
    reconnect_watch,
)
from protocol.messages.server_messages import QueueCreate
from protocol.spec.channels import NatsChannel

_SERVER = "SERVER"
_CONSUMERS: dict[BrokerRole, tuple[ConsumerSpec, ...]] = {
    BrokerRole.STATE_MANAGER: (
        *STATE_MANAGERS,
        LEASE_WATCH,
        reconnect_watch(1, [1.0]),
        RECONNECT_EXHAUSTED,
        ADVISORY_WATCH,
    ),
    BrokerRole.SOCKET_SERVER: tuple(
        queue_consumers(
            QueueCreate(server_id=_SERVER, queue_id=queue_id(_SERVER), proctor_plans=["P"], examinee_plans=["P"])
        )
    ),
}


def publishers(channel: NatsChannel) -> Iterator[BrokerRole]:
    """The roles that may publish on it."""
    for role, publish, _ in _permitted_patterns():
        if any(_overlaps(pattern, channel.address) for pattern in publish):
            yield role


def readers(channel: NatsChannel) -> dict[BrokerRole, list[str]]:
    """The roles that get what is said on it, with the consumers of its stream (none: by a plain subscription)."""
    found: dict[BrokerRole, list[str]] = {}
    for role, _, subscribe in _permitted_patterns():
        for consumer in _CONSUMERS.get(role, ()):
            filters = consumer.filters if channel.stream and consumer.stream == channel.stream.name else ()
            if any(_overlaps(pattern, channel.address) for pattern in filters):
                found.setdefault(role, []).append(consumer.name.replace(_SERVER, "{serverId}"))
        if channel.stream is None and any(_overlaps(pattern, channel.address) for pattern in subscribe):
            found[role] = []
    return found


def _permitted_patterns() -> Iterable[tuple[BrokerRole, tuple[str, ...], tuple[str, ...]]]:
    for role in BrokerRole:
        may = permissions(role, _SERVER if role is BrokerRole.SOCKET_SERVER else None)
        yield role, may.publish, may.subscribe


def _overlaps(pattern: str, address: str) -> bool:
    """Whether a NATS pattern and an address with parameters have a subject in common."""
    ours = address.replace("{address}", ">").replace("{inbox}", "_INBOX_operator.>").split(".")
    theirs = pattern.split(".")
    for mine, other in zip(ours, theirs, strict=False):
        if ">" in (mine, other):
            return True
        if mine != other and other != "*" and not mine.startswith("{"):
            return False
    return len(ours) == len(theirs)
