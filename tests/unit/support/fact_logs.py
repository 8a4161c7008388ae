"""Logs of facts for the property tests: what can happen to one record, in the order of the log.

Versions are 10, 20, 30, ...; facts that name an earlier version (an attempt its loss, a timer its stage) mostly
name one of the right kind, and now and then a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from protocol.messages.base import Message
from protocol.messages.facts import (
    CaptureReview,
    ClientInfo,
    ConnectionFact,
    ConnectionStatus,
    ConnectionStatusCode,
    ExamineeFinish,
    ExamineeResume,
    FinishReason,
    MobileSyncExtend,
    MobileSyncFact,
    MobileSyncWait,
    NoticeFact,
    Readmit,
    Remove,
    UnstableRule,
)
from protocol.messages.plan_facts import PlanFact, PlanPolicy, PlanRestate
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.messages.views import Verdict
from protocol.records import kinds
from protocol.records.kinds import RecordKind
from tests.unit.support import facts

T = TypeVar("T")
Log = list[tuple[int, Message]]
AnyKind = RecordKind[Any, Any]


class Draw(Protocol):
    """`draw` of a composite strategy or of `st.data()`."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


SOCKETS = ("SOCK001-a", "SOCK002-b", "SOCK001-c")
_seconds = st.integers(0, 300)
_sockets = st.sampled_from(SOCKETS)


_reasons = st.sampled_from(["SOCKET_CLOSED", "PING_TIMEOUT", "SERVER_LOST", "SERVER_DRAINING", "SERVER_DRAINING"])
_clients = st.sampled_from([None, "c1"])
_infos = st.sampled_from([None, *(ClientInfo(ip_address=f"10.0.0.{n}", user_agent=f"Browser/{n}") for n in (1, 2))])
_unstable_rules = st.sampled_from([None, UnstableRule(window_seconds=100), UnstableRule(starts_at=facts.at(150))])
_finish_reasons = st.sampled_from(list(FinishReason))
_numbers = st.integers(0, 2)
_again = st.sampled_from([None, None, True])
_tries = st.integers(1, 3)
_captures = st.sampled_from("ab")
_codes = st.sampled_from(list(ServerStatusCode))
_incarnations = st.sampled_from(["i1", "i2", "i3"])
_repeats = st.integers(0, 4)
_picks = st.integers(0, 9)
_connection_moves = st.sampled_from("CDCDCDAERXNFGT")
_mobile_sync_moves = st.sampled_from("WWUUFTTMRR")
_verdicts: st.SearchStrategy[Verdict] = st.sampled_from(["accepted", "rejected"])
_notice_moves = st.sampled_from("NNCHHTX")
_proctors = st.sampled_from(["kim", "lee"])
_names = st.sampled_from([None, "Kim", "Lee"])
_labels = st.sampled_from([None, {}, {"room": "A"}, {"room": "B", "seat": "7"}])
_actions = st.sampled_from([None, "a1", "a2"])
_examinees = st.sampled_from([None, "E001", "E002"])
_policies = st.sampled_from([None, PlanPolicy(max_attempts=8), PlanPolicy(grace_seconds=30, shut_out=False)])
_notices = st.sampled_from(["a1", "a2", "a3"])

_SETS_A_DEADLINE = (MobileSyncWait, MobileSyncExtend, CaptureReview)


def _named(draw: Draw, past: Log, right: Callable[[Message], bool]) -> int:
    """An earlier version, of the right kind if there is one."""
    fitting = [version for version, fact in past if right(fact)] or [version for version, _ in past] or [10]
    return fitting[-1 - draw(_picks) % len(fitting)]


def _loss(fact: Message) -> bool:
    is_loss = isinstance(fact, ConnectionStatus) and fact.status is ConnectionStatusCode.DISCONNECTED
    return is_loss or isinstance(fact, Readmit | Remove | ExamineeFinish | ExamineeResume)


def _connects(fact: Message) -> bool:
    return isinstance(fact, ConnectionStatus) and fact.status is ConnectionStatusCode.CONNECTED


def connection_fact(draw: Draw, past: Log) -> ConnectionFact:
    """What may come next of one examinee's connection."""
    second = draw(_seconds)
    match draw(_connection_moves):
        case "C":
            return facts.connected(
                draw(_sockets),
                second,
                client=draw(_clients),
                number=draw(_numbers),
                again=draw(_again),
                info=draw(_infos),
                unstable_rule=draw(_unstable_rules),
            )
        case "D":
            return facts.disconnected(draw(_sockets), second, draw(_reasons))
        case "A":
            return facts.attempt(_named(draw, past, _loss), draw(_tries), second)
        case "E":
            return facts.exhausted(_named(draw, past, _loss), second)
        case "F":
            return facts.finish(second, reason=draw(_finish_reasons), action=draw(_actions))
        case "G":
            return facts.resume(second, action=draw(_actions))
        case "T":
            return facts.unstable_timeout(_named(draw, past, _connects), second)
        case "X":
            return facts.remove(second, action=draw(_actions))
        case "N":
            return facts.enrol(draw(_names), second, labels=draw(_labels))
        case _:
            return facts.readmit(second, action=draw(_actions))


def mobile_sync_fact(draw: Draw, past: Log) -> MobileSyncFact:
    """What may come next of one examinee's mobile sync."""
    second = draw(_seconds)
    match draw(_mobile_sync_moves):
        case "W":
            return facts.wait(second)
        case "U":
            return facts.uploaded(draw(_captures), second)
        case "F":
            return facts.upload_failed(second)
        case "R":
            return facts.review(draw(_captures), draw(_verdicts), second, action=draw(_actions))
        case "M":
            return facts.extend(60, second, action=draw(_actions))
        case _:
            begins = _named(draw, past, lambda fact: isinstance(fact, _SETS_A_DEADLINE))
            return facts.timed_out(begins, second)


def notice_fact(draw: Draw, past: Log) -> NoticeFact:
    """What may come next of the messages to one examinee."""
    second, action = draw(_seconds), draw(_notices)
    match draw(_notice_moves):
        case "N":
            return facts.notice(action, f"message {second}", second)
        case "H":
            return facts.help_request(action, second)
        case "T":
            return facts.help_take(action, second, by=draw(_proctors))
        case "X":
            return facts.help_close(action, second)
        case _:
            return facts.notice_confirmed(action, second)


_moments = st.sampled_from([None, *range(0, 300, 50)])
_plan_moves = st.sampled_from("SSOCXWTR")


def plan_fact(draw: Draw, past: Log) -> PlanFact:
    """What may come next of one plan."""
    second, action = draw(_seconds), draw(_actions)
    timed = _named(draw, past, lambda fact: not isinstance(fact, PlanRestate)) if draw(_again) else None
    match draw(_plan_moves):
        case "S":
            start, end = draw(_moments), draw(_moments)
            ordered = (start, end) if start is None or end is None or start < end else (None, end)
            return facts.schedule(*ordered, second=second, policy=draw(_policies), action=action)
        case "O":
            return facts.open_plan(second, scheduled=timed)
        case "C":
            return facts.close_plan(second, scheduled=timed)
        case "X":
            return facts.extend_exam(60, draw(_examinees), second=second, action=action)
        case "W":
            return facts.window("E001", None, draw(_moments), draw(_seconds))
        case _:
            return facts.restate_plan(second)


def server_fact(draw: Draw, past: Log) -> ServerStatus:
    """What may come next of one server."""
    return facts.server(draw(_codes), draw(_incarnations), draw(_seconds))


KINDS: dict[str, tuple[AnyKind, Callable[[Draw, Log], Message]]] = {
    "connection": (kinds.CONNECTION, connection_fact),
    "mobile_sync": (kinds.MOBILE_SYNC, mobile_sync_fact),
    "notices": (kinds.NOTICES, notice_fact),
    "server": (kinds.SERVER, server_fact),
    "plan": (kinds.PLAN, plan_fact),
}


@st.composite
def logs(draw: st.DrawFn, kind: str, most: int = 8) -> Log:
    """A log of one record."""
    _, following = KINDS[kind]
    log: Log = []
    for number in range(1, draw(st.integers(1, most)) + 1):
        log.append((number * 10, following(draw, log)))
    return log


@st.composite
def arrivals(draw: st.DrawFn, log: Log) -> Log:
    """The facts of a log in any order, some of them more than once."""
    order = [*draw(st.permutations(log))]
    for _ in range(draw(_repeats)):
        order.insert(draw(_picks) % (len(order) + 1), log[draw(_picks) % len(log)])
    return order


def in_order(kind: AnyKind, log: Log) -> tuple[Any, list[Any]]:
    """The truth: the state that the facts amount to in the order of their versions, and all events on the way."""
    state = kind.state()
    events: list[Any] = []
    for version, fact in sorted(log, key=lambda entry: entry[0]):
        outcome = kind.rule(state, version, fact)
        state = outcome.state
        events.extend(outcome.events)
    return state, events
