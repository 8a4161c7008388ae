"""Publish what follows from a decision: to proctors and socket servers, timers, facts for the log, dead letters.

Every message id is made from a version and the content, so publishing again after a crash has no second effect.
"""

from __future__ import annotations

import asyncio
import functools
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
from actors.state_manager.plan_effects import PlanEffects, plan_messages, purge_messages
from protocol.broker import subjects
from protocol.broker.stream_codecs import encode_wait
from protocol.errors import BrokerUnavailable
from protocol.ids import ExamineeRef
from protocol.log.version import index_of, sequence_of
from protocol.messages.base import Message
from protocol.messages.codec import encode, extract_element, join_batch, split_batches
from protocol.messages.facts import (
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFact,
    MobileSyncCode,
    MobileSyncReason,
    MobileSyncStatus,
    MobileSyncTimeout,
    UnstableTimeout,
)
from protocol.messages.plan_facts import PlanFact
from protocol.messages.proctor_events import Event, PlanStateEvent
from protocol.messages.server_messages import ServerStatus
from protocol.messages.session_messages import SessionClose, SessionLost, SessionState
from protocol.records import keys
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import (
    CloseSocket,
    EndSessions,
    ScheduleStable,
    ScheduleTimeout,
    SendHelp,
    SendMobileSync,
    SendNotice,
    SendSessionLost,
    SendSessionState,
    WatchReconnect,
)
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from protocol.rules.plan_notices import PlanNoticesState
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.state_manager")

READ_AGAIN_SECONDS = 0.5
_NO_CONNECTION, _NO_NOTICES, _NO_PLAN_NOTICES = ConnectionState(), NoticesState(), PlanNoticesState()
_NO_MOBILE_SYNC = MobileSyncState().view()


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Result of publishing a decision: the messages on their way to the broker, and the reconnect watches to follow."""

    sent: Parcel
    watches: list[Outgoing]


class EffectPublisher:
    """Publishes what follows from decisions, in the order of the decisions.

    Example::

        result = await publisher.publish(decision)  # on its way; the next decision may be published at once
        await publisher.confirm(result, earlier)  # stored by the broker
    """

    def __init__(self, bus: Bus, store: StateStore) -> None:
        self._bus = bus
        self._in_order = OrderedPublisher(bus)
        self._store = store
        self._plans = PlanEffects(store)

    async def publish(self, decision: Decision) -> PublishResult:
        """Send all messages, in order, and wait for no ack.

        Raises `StateUnavailable`, only when the sessions of a server end or a plan does.
        """
        urgent = [*_to_proctors(decision.events), *_to_servers(decision), *plan_messages(decision)]
        urgent += purge_messages(decision)
        later = [*_timers(decision), *_follow_ups(decision), *await self._endings(decision)]
        later += await self._plans.messages(decision)
        later += await self._dead_letters(decision)
        return PublishResult(await self._in_order.send([*urgent, *later]), list(_watches(decision)))

    async def confirm(self, result: PublishResult, earlier: Awaitable[object] | None) -> None:
        """Wait until all messages are stored, however long the broker is away.

        The reconnect watches are published after those of the `earlier` batch, so that a newer loss replaces an older
        one.
        """
        await self._in_order.confirm(result.sent)
        if earlier is not None:
            await earlier
        await self._bus.publish_in_batches(result.watches)

    async def dead_letter(self, delivery: Delivery, payload: bytes, reason: str, *, index: int | None = None) -> None:
        """Publish a message that can never be processed to DEADLETTER, with the reason and where it came from."""
        await self._bus.publish_until_stored([letter_of(delivery, "STATUS", payload, reason, index)])

    async def _endings(self, decision: Decision) -> list[Outgoing]:
        """Report each session of a socket server process that has ended as DISCONNECTED."""
        outgoing: list[Outgoing] = []
        for ending in (effect for effect in decision.effects if isinstance(effect, EndSessions)):
            entries = await self._store.entries(keys.server_sockets(ending.server_id))
            by_plan: dict[str, list[Message]] = {}
            for socket_id, entry in sorted(entries.items()):
                version, _, text = entry.partition(" ")
                if int(version) > ending.version:
                    continue  # opened by the next process, or reported again by this one
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
            message_id = functools.partial(_message_id, "end", ending.version)
            for plan_id, messages in by_plan.items():
                subject = subjects.status_plan(plan_id, subjects.MANAGER)
                outgoing += Outgoing.batches(subject, messages, message_id)
        return outgoing

    async def _dead_letters(self, decision: Decision) -> list[Outgoing]:
        """Make a dead letter of each fact that no rule could process; tell proctors and phone of a failed upload."""
        outgoing = []
        stored: dict[int, StoredMessage | None] = {}
        for item, reason in decision.damaged:
            about = {"version": item.version, "plan": getattr(item.message, "plan_id", None)}
            about |= {"examinee": getattr(item.message, "examinee_id", None)}
            log.error("version %d becomes a dead letter: %s", item.version, reason, extra=about)
            message = item.message
            if isinstance(message, ServerStatus):
                subject = subjects.status_server(message.server_id)
            else:
                assert isinstance(message, ExamineeFact | PlanFact)
                subject = subjects.status_plan(message.plan_id)
            sequence, index = sequence_of(item.version), index_of(item.version)
            if sequence not in stored:
                stored[sequence] = await self._message_at(sequence)
            source = stored[sequence]
            if source is not None:
                subject = source.subject
            headers = source.headers if source is not None else {}
            # The payload as it was sent, because a replay compares both.
            payload = extract_element(source.payload, index) if source is not None else encode(message)
            letter = dead_letter("STATUS", subject, sequence, payload, reason, index=index, headers=headers)
            outgoing.append(letter)
            if isinstance(message, MobileSyncStatus):
                # The phone was answered 201 already; proctors and examinee must see that the upload has no effect.
                failure = {"status": MobileSyncCode.FAILED, "reason": MobileSyncReason.STATE_CHANGE_FAILED.value}
                failed = message.model_copy(update=failure | {"version": item.version})
                for address in (
                    subjects.socket_proctors(message.plan_id),
                    subjects.socket_examinee(message.plan_id, message.examinee_id),
                ):
                    outgoing.append(Outgoing.of(address, failed, message_id=f"damage:{item.version}:{address}"))
        return outgoing

    async def _message_at(self, sequence: int) -> StoredMessage | None:
        """Read a message of STATUS; its headers say whether it is a replay. Waits while the broker is away."""
        while True:
            try:
                return await self._bus.message_at("STATUS", sequence)
            except BrokerUnavailable as error:
                log.warning("message %d of the log: %s; deciding again", sequence, error)
                await asyncio.sleep(READ_AGAIN_SECONDS)


def _to_proctors(events: Sequence[Event]) -> list[Outgoing]:
    # Not `Outgoing.batches`: the message id has the first version of a payload, and the header its trace.
    by_plan: dict[str, list[Event]] = {}
    for event in _without_superseded(events):
        by_plan.setdefault(event.plan_id, []).append(event)
    outgoing = []
    for plan_id, plan_events in by_plan.items():
        encoded = [encode(event) for event in plan_events]
        for batch in split_batches([len(event) for event in encoded]):
            payload = join_batch(encoded[batch])
            message_id = _message_id("ev", plan_events[batch.start].version, payload)
            subject = subjects.socket_proctors(plan_id)
            outgoing.append(Outgoing(subject, payload, message_id, spans.header(encoded[batch])))
    return outgoing


def _without_superseded(events: Sequence[Event]) -> Iterable[Event]:
    """Yield the events without states of a plan that a later event replaces.

    Each tells the whole plan: a roster with 500 own times would make 500 states of 500 examinees each.
    """
    newest = {event.plan_id: event.version for event in events if isinstance(event, PlanStateEvent)}
    for event in events:
        if not isinstance(event, PlanStateEvent) or event.version == newest[event.plan_id]:
            yield event


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
                    examinees.append(Outgoing.of(address, state.event(), message_id=f"ms:{address}:{effect.version}"))
            case SendNotice():
                notices = decision.notices.get(ExamineeRef(effect.plan_id, effect.examinee_id), _NO_NOTICES)
                sent = notices.find(effect.action_id)
                if sent is not None and sent.confirmed_at is None:
                    address = subjects.socket_examinee(effect.plan_id, effect.examinee_id)
                    message_id = f"no:{address}:{effect.version}:{effect.action_id}"
                    notice = notices.notice(sent, effect.version)
                    examinees.append(Outgoing.of(address, notice, message_id=message_id))
            case SendHelp():
                notices = decision.notices.get(ExamineeRef(effect.plan_id, effect.examinee_id), _NO_NOTICES)
                if notices.help is not None:
                    address = subjects.socket_examinee(effect.plan_id, effect.examinee_id)
                    event = notices.help_event(effect.version)
                    examinees.append(Outgoing.of(address, event, message_id=f"he:{address}:{effect.version}"))
            case _:
                pass
    outgoing = []
    for server_id, versioned in by_server.items():
        encoded = [encode(message) for _, message in versioned]
        for batch in split_batches([len(message) for message in encoded]):
            payload = join_batch(encoded[batch])
            first_version, _ = versioned[batch.start]
            message_id = _message_id("se", first_version, payload)
            outgoing.append(Outgoing(subjects.socket_server(server_id), payload, message_id))
    return outgoing + examinees


def _session_state(effect: SendSessionState, decision: Decision) -> SessionState:
    examinee = ExamineeRef(effect.plan_id, effect.examinee_id)
    connection = decision.connections.get(examinee, _NO_CONNECTION)
    mobile_sync = decision.mobile_syncs.get(examinee)
    notices = decision.notices.get(examinee, _NO_NOTICES)
    to_several = decision.plan_notices.get(effect.plan_id, _NO_PLAN_NOTICES)
    return SessionState(
        plan_id=effect.plan_id,
        examinee_id=effect.examinee_id,
        socket_id=effect.socket_id,
        name=connection.name,
        connection=connection.view(),
        mobile_sync=mobile_sync.view() if mobile_sync is not None else _NO_MOBILE_SYNC,
        reconnect=connection.reconnect_view(),
        notices=sorted(
            [*notices.open(), *to_several.open(effect.examinee_id, notices.confirmed_plan_notices)],
            key=lambda notice: notice.sent_at,
        ),
        help=notices.open_help,
        notices_version=notices.version,
        version=connection.version,
    )


def _watches(decision: Decision) -> Iterable[Outgoing]:
    for effect in decision.effects:
        if not isinstance(effect, WatchReconnect):
            continue
        state = decision.connections.get(ExamineeRef(effect.plan_id, effect.examinee_id))
        if state is not None and (state.live or state.loss_version != effect.version):
            continue  # the examinee has reconnected within the same batch
        yield Outgoing(
            subjects.reconnect(effect.plan_id, effect.examinee_id),
            encode_wait(effect.version),
            f"loss:{effect.version}",
        )


def _timers(decision: Decision) -> Iterable[Outgoing]:
    for effect in decision.effects:
        match effect:
            case ScheduleTimeout():
                timeout = MobileSyncTimeout(
                    plan_id=effect.plan_id,
                    examinee_id=effect.examinee_id,
                    wait_version=effect.version,
                    timestamp=effect.deadline,
                )
                yield _timer(timeout, f"mobile_sync-{effect.version}", f"timer:{effect.version}")
            case ScheduleStable():
                stable = UnstableTimeout(
                    plan_id=effect.plan_id,
                    examinee_id=effect.examinee_id,
                    connected_version=effect.version,
                    timestamp=effect.at,
                )
                yield _timer(stable, f"unstable-{effect.version}", f"stable:{effect.version}:{effect.at}")
            case _:
                pass


def _timer(fact: MobileSyncTimeout | UnstableTimeout, timer: str, message_id: str) -> Outgoing:
    # NATS takes whole seconds; rounding up never ends a stage early.
    moment = format_time(-(-parse_time(fact.timestamp) // 1))
    return Outgoing.of(
        # A subject for each stage: the schedule of an earlier one, published late, must not replace this one.
        subjects.status_timer(fact.plan_id, fact.examinee_id, timer),
        fact,
        message_id=message_id,
        headers={
            "Nats-Schedule": f"@at {moment[:19]}Z",
            "Nats-Schedule-Target": subjects.status_plan(fact.plan_id, subjects.TIMER),
        },
    )


def _follow_ups(decision: Decision) -> Iterable[Outgoing]:
    for message_id, message in decision.follow_ups:
        assert isinstance(message, ExamineeFact | PlanFact)
        subject = subjects.status_plan(message.plan_id, subjects.MANAGER)
        yield Outgoing.of(subject, message, message_id=message_id)


def _message_id(prefix: str, version: int | None, payload: bytes) -> str:
    """Make a message id that is the same in every process: of a version, and a hash of the payload."""
    return f"{prefix}:{version}:{hashlib.sha256(payload).hexdigest()[:16]}"
