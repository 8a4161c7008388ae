"""Publish what follows from a decision: to proctors and socket servers, timers, facts for the log, dead letters.

Every message id is made from a version and the content, so publishing again after a crash has no second effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.broker.dead_letter import dead_letter, letter_of
from actors.runtime.broker.ordered_publisher import OrderedPublisher, Parcel
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans
from actors.state_manager.decisions import Decision
from protocol.broker import subjects
from protocol.errors import BrokerUnavailable
from protocol.ids import ExamineeRef
from protocol.log.version import index_of, sequence_of
from protocol.messages.base import Message
from protocol.messages.codec import encode, encode_batches, extract_element, join_batch, split_batches
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    MobileSyncCode,
    MobileSyncReason,
    MobileSyncStatus,
    MobileSyncTimeout,
)
from protocol.messages.proctor_events import Event
from protocol.messages.server_messages import ServerStatus
from protocol.messages.session_messages import SessionClose, SessionLost, SessionState
from protocol.records import keys
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import (
    CloseSocket,
    EndSessions,
    ScheduleTimeout,
    SendMobileSync,
    SendNotice,
    SendSessionLost,
    SendSessionState,
    WatchReconnect,
)
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.state_manager")

READ_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Result of publishing a decision: the messages on their way to the broker, and the reconnect watches to follow."""

    sent: Parcel
    watches: list[Outgoing]


class EffectPublisher:
    """Publishes what follows from decisions, in their order.

    Example::

        result = await publisher.publish(decision)  # on its way; the next decision may be published at once
        await publisher.confirm(result, earlier)  # stored by the broker
    """

    def __init__(self, bus: Bus, store: StateStore) -> None:
        self._bus = bus
        self._in_order = OrderedPublisher(bus)
        self._store = store

    async def publish(self, decision: Decision) -> PublishResult:
        """Put all messages on their way, in order. Raises `StateUnavailable` (only when sessions are ended)."""
        urgent = [*_to_proctors(decision.events), *_to_servers(decision)]
        later = [*_timers(decision), *_follow_ups(decision), *await self._endings(decision)]
        later += await self._dead_letters(decision)
        return PublishResult(await self._in_order.send([*urgent, *later]), list(_watches(decision)))

    async def confirm(self, result: PublishResult, earlier: Awaitable[object] | None) -> None:
        """Return when all messages are stored, however long the broker is away.

        The reconnect watches go after those of the `earlier` batch: a newer loss replaces an older one, never the
        other way round.
        """
        await self._in_order.confirm(result.sent)
        if earlier is not None:
            await earlier
        await self._bus.publish_in_batches(result.watches)

    async def dead_letter(self, delivery: Delivery, payload: bytes, reason: str, *, index: int | None = None) -> None:
        """Publish a message that can never be processed to DEADLETTER, with the reason and where it came from."""
        await self._bus.publish_until_stored([letter_of(delivery, "STATUS", payload, reason, index)])

    async def _endings(self, decision: Decision) -> list[Outgoing]:
        """A DISCONNECTED in the log for each session of a process that is no more."""
        out: list[Outgoing] = []
        for ending in (effect for effect in decision.effects if isinstance(effect, EndSessions)):
            held = await self._store.entries(keys.server_sockets(ending.server_id))
            by_plan: dict[str, list[Message]] = {}
            for socket_id, entry in sorted(held.items()):
                version, _, text = entry.partition(" ")
                if int(version) > ending.version:
                    continue  # of the next process, or announced again by this one
                (plan_id, examinee_id), incarnation = keys.SocketEntry.decode(text)
                by_plan.setdefault(plan_id, []).append(
                    ConnectionStatus(
                        plan_id=plan_id,
                        examinee_id=examinee_id,
                        socket_id=socket_id,
                        server_id=ending.server_id,
                        incarnation=incarnation,
                        status=ConnectionStatusCode.DISCONNECTED,
                        timestamp=ending.timestamp,
                        reason=ending.reason,
                    )
                )
            for plan_id, messages in by_plan.items():
                for payload in encode_batches(messages):
                    message_id = f"end:{ending.version}:{_hash(payload)}"
                    out.append(Outgoing(subjects.status_plan(plan_id, subjects.MANAGER), payload, message_id))
        return out

    async def _dead_letters(self, decision: Decision) -> list[Outgoing]:
        out = []
        stored: dict[int, StoredMessage | None] = {}
        for item, reason in decision.damaged:
            about = {"version": item.version, "plan": getattr(item.message, "plan_id", None)}
            about |= {"examinee": getattr(item.message, "examinee_id", None)}
            log.error("version %d goes to the dead letters: %s", item.version, reason, extra=about)
            message = item.message
            if isinstance(message, ServerStatus):
                subject = subjects.status_server(message.server_id)
            else:
                assert isinstance(message, ExamineeFact)
                subject = subjects.status_plan(message.plan_id)
            sequence, index = sequence_of(item.version), index_of(item.version)
            if sequence not in stored:
                stored[sequence] = await self._message_at(sequence)
            source = stored[sequence]
            if source is not None:
                subject = source.subject
            headers = source.headers if source is not None else {}
            # As it was sent: a replay compares the two.
            payload = extract_element(source.payload, index) if source is not None else encode(message)
            letter = dead_letter("STATUS", subject, sequence, payload, reason, index=index, headers=headers)
            out.append(letter)
            if isinstance(message, MobileSyncStatus):
                # The phone has its 201; the people must know that nothing came of it.
                failure = {"status": MobileSyncCode.FAILED, "reason": MobileSyncReason.STATE_CHANGE_FAILED.value}
                failed = message.model_copy(update=failure)
                told = encode(failed.model_copy(update={"version": item.version}))
                for address in (
                    subjects.socket_proctors(message.plan_id),
                    subjects.socket_examinee(message.plan_id, message.examinee_id),
                ):
                    out.append(Outgoing(address, told, f"damage:{item.version}:{address}"))
        return out

    async def _message_at(self, sequence: int) -> StoredMessage | None:
        """A message of the log, which says whether it is a replayed one; however long the broker is away."""
        while True:
            try:
                return await self._bus.message_at("STATUS", sequence)
            except BrokerUnavailable as error:
                log.warning("message %d of the log: %s; again", sequence, error)
                await asyncio.sleep(READ_AGAIN_SECONDS)


def _to_proctors(events: Sequence[Event]) -> list[Outgoing]:
    by_plan: dict[str, list[Event]] = {}
    for event in events:
        by_plan.setdefault(event.plan_id, []).append(event)
    out = []
    for plan_id, told in by_plan.items():
        encoded = [encode(event) for event in told]
        for cut in split_batches([len(one) for one in encoded]):
            payload = join_batch(encoded[cut])
            message_id = f"ev:{told[cut][0].version}:{_hash(payload)}"
            address = subjects.socket_proctors(plan_id)
            out.append(Outgoing(address, payload, message_id, spans.header(encoded[cut])))
    return out


def _to_servers(decision: Decision) -> list[Outgoing]:
    by_server: dict[str, list[tuple[int, Message]]] = {}
    examinees: list[Outgoing] = []
    for effect in decision.effects:
        match effect:
            case SendSessionState():
                message = _session_state(effect, decision)
                by_server.setdefault(effect.server_id, []).append((effect.version, message))
            case CloseSocket():
                close = SessionClose(socket_id=effect.socket_id, code=effect.code)
                by_server.setdefault(effect.server_id, []).append((effect.version, close))
            case SendSessionLost():
                lost = SessionLost(server_id=effect.server_id, socket_ids=[effect.socket_id])
                by_server.setdefault(effect.server_id, []).append((effect.version, lost))
            case SendMobileSync():
                state = decision.mobile_syncs.get(ExamineeRef(effect.plan_id, effect.examinee_id))
                if state is not None and state.status is not None:
                    address = subjects.socket_examinee(effect.plan_id, effect.examinee_id)
                    examinees.append(Outgoing(address, encode(state.event()), f"ms:{address}:{effect.version}"))
            case SendNotice():
                notices = decision.notices.get(ExamineeRef(effect.plan_id, effect.examinee_id), NoticesState())
                sent = notices.find(effect.action_id)
                if sent is not None and sent.confirmed_at is None:
                    address = subjects.socket_examinee(effect.plan_id, effect.examinee_id)
                    told_now = encode(notices.notice(sent, effect.version))
                    examinees.append(Outgoing(address, told_now, f"no:{address}:{effect.version}:{effect.action_id}"))
            case _:
                pass
    out = []
    for server_id, told in by_server.items():
        encoded = [encode(message) for _, message in told]
        for cut in split_batches([len(one) for one in encoded]):
            payload = join_batch(encoded[cut])
            message_id = f"se:{told[cut][0][0]}:{_hash(payload)}"
            out.append(Outgoing(subjects.socket_server(server_id), payload, message_id))
    return out + examinees


def _session_state(effect: SendSessionState, decision: Decision) -> SessionState:
    examinee = ExamineeRef(effect.plan_id, effect.examinee_id)
    connection = decision.connections.get(examinee, ConnectionState())
    return SessionState(
        plan_id=effect.plan_id,
        examinee_id=effect.examinee_id,
        socket_id=effect.socket_id,
        connection=connection.view(),
        mobile_sync=decision.mobile_syncs.get(examinee, MobileSyncState()).view(),
        reconnect=connection.reconnect_view(),
        notices=decision.notices.get(examinee, NoticesState()).open(),
        version=connection.version,
    )


def _watches(decision: Decision) -> Iterable[Outgoing]:
    for effect in decision.effects:
        if not isinstance(effect, WatchReconnect):
            continue
        state = decision.connections.get(ExamineeRef(effect.plan_id, effect.examinee_id))
        if state is not None and (state.live or state.loss_version != effect.version):
            continue  # came back within the same batch: there is nothing to wait for
        yield Outgoing(
            subjects.reconnect(effect.plan_id, effect.examinee_id),
            b'{"lossVersion":%d}' % effect.version,
            f"loss:{effect.version}",
        )


def _timers(decision: Decision) -> Iterable[Outgoing]:
    for effect in decision.effects:
        if not isinstance(effect, ScheduleTimeout):
            continue
        # NATS takes whole seconds; rounding up never ends a stage early.
        moment = format_time(-(-parse_time(effect.deadline) // 1))
        fired = MobileSyncTimeout(
            plan_id=effect.plan_id,
            examinee_id=effect.examinee_id,
            wait_version=effect.version,
            timestamp=effect.deadline,
        )
        yield Outgoing(
            # A schedule for each stage: that of an earlier one, told late, must not replace the current one's.
            subjects.status_timer(effect.plan_id, effect.examinee_id, f"mobile_sync-{effect.version}"),
            encode(fired),
            f"timer:{effect.version}",
            {
                "Nats-Schedule": f"@at {moment[:19]}Z",
                "Nats-Schedule-Target": subjects.status_plan(effect.plan_id, subjects.TIMER),
            },
        )


def _follow_ups(decision: Decision) -> Iterable[Outgoing]:
    for message_id, message in decision.follow_ups:
        assert isinstance(message, ExamineeFact)
        yield Outgoing(subjects.status_plan(message.plan_id, subjects.MANAGER), encode(message), message_id)


def _hash(payload: bytes) -> str:
    """A short name for a payload, the same in every process."""
    return hashlib.sha256(payload).hexdigest()[:16]
