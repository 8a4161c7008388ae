"""A small world for the state managers, and what is so in it: what its log says, what is stored, who is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic_core

from actors.state_manager.order_of_work import Limits
from protocol.log.version import sequence_of
from protocol.messages.base import Message
from protocol.messages.facts import (
    CaptureReview,
    ConnectionStatus,
    ConnectionStatusCode,
    HelpClose,
    HelpRequest,
    HelpTake,
    MobileSyncExtend,
    MobileSyncStatus,
    MobileSyncTimeout,
    MobileSyncWait,
    Notice,
    NoticeConfirmed,
    Restate,
)
from protocol.messages.server_messages import ServerStatus
from protocol.records import keys
from protocol.records.kinds import CONNECTION, MOBILE_SYNC, NOTICES, SERVER
from protocol.rules.history import fold
from protocol.rules.socket_server import ServerState
from tests.unit.support.fact_logs import AnyKind, Log
from tests.unit.support.facts import EXAMINEE, PLAN
from tests.unit.support.memory_broker import Broker, facts_of, publish
from tests.unit.support.memory_store import MemoryStore
from tests.unit.support.stepped_manager import Manager


class Hall:
    """Two managers and a log; each fact is a message of its own, and its sequence is its place in the arguments."""

    def __init__(self, *facts: Message, limits: Limits | None = None) -> None:
        self.broker, self.store = Broker(), MemoryStore()
        self.one, self.other = (Manager(self.broker, self.store, limits) for _ in range(2))
        for fact in facts:
            self.happens(fact)

    def happens(self, fact: Message) -> None:
        about = f"server.{fact.server_id}" if isinstance(fact, ServerStatus) else f"plan.{PLAN}"
        publish(self.broker, [fact], f"status.{about}")

    def work_off(self, *sequences: int) -> None:
        """A manager gets these messages and finishes."""
        self.one.take(list(sequences))
        self.one.finish()

    def die_before_publishing(self, *sequences: int) -> None:
        batch = self.one.take(list(sequences))
        self.one.step_until(lambda: batch.settled)
        self.one.crash()

    def die_before_acknowledging(self, *sequences: int) -> None:
        batch = self.one.take(list(sequences))
        self.one.step_until(lambda: batch.published)
        self.one.crash()

    def follow_ups(self, since: int) -> Sequence[Message]:
        """What the managers themselves have put into the log after message `since`."""
        return [
            fact
            for sequence in range(since + 1, len(self.broker.payloads) + 1)
            for _, fact in facts_of(self.broker, sequence)
        ]

    def come_to_rest(self) -> None:
        while sequences := [*sorted(self.broker.expired), *self._undelivered()]:
            self.broker.expired.clear()
            self.work_off(*sequences)

    def _undelivered(self) -> list[int]:
        return [sequence for sequence in self.broker.undelivered if sequence in self.broker.unacknowledged]

    def connection_seen(self) -> tuple[str, str | None]:
        row = self.broker.proctors.examinees[EXAMINEE]
        return row.status, row.socket_id


def log_of(broker: Broker) -> dict[str, Log]:
    """The facts of the whole log by the key of the record that they are about."""
    logs: dict[str, Log] = {}
    for sequence in range(1, len(broker.payloads) + 1):
        for version, fact in facts_of(broker, sequence):
            logs.setdefault(record_key(fact), []).append((version, fact))
    return logs


def record_key(fact: Message) -> str:
    """The record that a fact is about."""
    match fact:
        case ServerStatus():
            return keys.server_status(fact.server_id)
        case MobileSyncWait() | MobileSyncStatus() | MobileSyncTimeout() | Restate(aspect="mobile_sync"):
            return keys.mobile_sync(fact.plan_id, fact.examinee_id)
        case MobileSyncExtend() | CaptureReview():
            return keys.mobile_sync(fact.plan_id, fact.examinee_id)
        case Notice() | NoticeConfirmed() | HelpRequest() | HelpTake() | HelpClose() | Restate(aspect="notices"):
            return keys.notices(fact.plan_id, fact.examinee_id)
        case _:
            return keys.progress(PLAN, str(getattr(fact, "examinee_id")))  # noqa: B009


def kind_of(key: str) -> AnyKind:
    """The kind of the record at a key."""
    if key.startswith("SERVER"):
        return SERVER
    if key.endswith("notices"):
        return NOTICES
    return MOBILE_SYNC if key.endswith("mobile_sync") else CONNECTION


def stored_state(store: MemoryStore, key: str) -> Any:
    """The state in a record, as whoever reads its history sees it."""
    kind = kind_of(key)
    return fold(kind.read(store.rows.get(key, {}).get("history")), kind.rule)


def server_state(broker: Broker, server_id: str, up_to: int | None = None) -> ServerState:
    """What the log says about a server, as a whole or up to a sequence."""
    state = ServerState()
    for version, fact in log_of(broker).get(keys.server_status(server_id), []):
        if up_to is not None and sequence_of(version) > up_to:
            break
        state = SERVER.rule(state, version, fact).state  # type: ignore[arg-type]
    return state


def newest_words(broker: Broker) -> dict[str, ConnectionStatus]:
    """The newest word of the log about each socket."""
    newest: dict[str, ConnectionStatus] = {}
    for sequence in range(1, len(broker.payloads) + 1):
        for _, fact in facts_of(broker, sequence):
            if isinstance(fact, ConnectionStatus):
                newest[fact.socket_id] = fact
    return newest


def is_open(word: ConnectionStatus) -> bool:
    return word.status is ConnectionStatusCode.CONNECTED


def loss_waited_for(broker: Broker, examinee_id: str) -> int | None:
    """The loss that the reconnect watch has in hand."""
    payload = broker.reconnects.get(f"reconnect.{PLAN}.{examinee_id}")
    return None if payload is None else int(pydantic_core.from_json(payload)["lossVersion"])


def stages_timed(broker: Broker, examinee_id: str) -> set[int]:
    """The stages whose deadline is scheduled; that of a stage that came to nothing fires and changes nothing."""
    prefix = f"status.timer.{PLAN}.{examinee_id}.mobile_sync-"
    return {int(subject.removeprefix(prefix)) for subject in broker.timers if subject.startswith(prefix)}


def unstable_timers(broker: Broker, examinee_id: str) -> set[int]:
    """The connections after which it is scheduled that the examinee is stable again."""
    prefix = f"status.timer.{PLAN}.{examinee_id}.unstable-"
    return {int(subject.removeprefix(prefix)) for subject in broker.timers if subject.startswith(prefix)}
