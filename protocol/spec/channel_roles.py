"""Which roles publish on a subject and which read it, from the broker's permissions and the consumers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from protocol.broker.permissions import BrokerRole, permissions
from protocol.broker.streams import (
    ADVISORY_WATCH,
    LEASE_WATCH,
    RECONNECT_WATCH,
    STATE_MANAGERS,
    ConsumerSpec,
    queue_consumers,
    queue_id,
)
from protocol.messages.server_messages import QueueCreate
from protocol.spec.channels import NatsChannel

_SERVER = "SERVER"
_CONSUMERS: dict[BrokerRole, tuple[ConsumerSpec, ...]] = {
    BrokerRole.STATE_MANAGER: (
        *STATE_MANAGERS,
        LEASE_WATCH,
        RECONNECT_WATCH,
        ADVISORY_WATCH,
    ),
    BrokerRole.SOCKET_SERVER: tuple(
        queue_consumers(
            QueueCreate(server_id=_SERVER, queue_id=queue_id(_SERVER), proctor_plans=["P"], examinee_plans=["P"])
        )
    ),
}


def publishers(channel: NatsChannel) -> Iterator[BrokerRole]:
    """Yield the roles that may publish on a channel."""
    for role, publish, _ in _permitted_patterns():
        if any(_overlaps(pattern, channel.address) for pattern in publish):
            yield role


def readers(channel: NatsChannel) -> dict[BrokerRole, list[str]]:
    """Return the roles that read a channel, with their consumers of its stream (none for a core subscription)."""
    roles: dict[BrokerRole, list[str]] = {}
    for role, _, subscribe in _permitted_patterns():
        for consumer in _CONSUMERS.get(role, ()):
            filters = consumer.filters if channel.stream and consumer.stream == channel.stream.name else ()
            if any(_overlaps(pattern, channel.address) for pattern in filters):
                roles.setdefault(role, []).append(consumer.name.replace(_SERVER, "{serverId}"))
        if channel.stream is None and any(_overlaps(pattern, channel.address) for pattern in subscribe):
            roles[role] = []
    return roles


def _permitted_patterns() -> Iterable[tuple[BrokerRole, tuple[str, ...], tuple[str, ...]]]:
    for role in BrokerRole:
        allowed = permissions(role, _SERVER if role is BrokerRole.SOCKET_SERVER else None)
        yield role, allowed.publish, allowed.subscribe


def _overlaps(pattern: str, address: str) -> bool:
    """Return whether any subject matches both a NATS pattern and an address with parameters."""
    address_tokens = address.replace("{address}", ">").replace("{inbox}", "_INBOX_operator.>").split(".")
    pattern_tokens = pattern.split(".")
    for address_token, pattern_token in zip(address_tokens, pattern_tokens, strict=False):
        if ">" in (address_token, pattern_token):
            return True
        if pattern_token not in ("*", address_token) and not address_token.startswith("{"):
            return False
    return len(address_tokens) == len(pattern_tokens)
