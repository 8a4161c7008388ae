"""Decode the payloads of STATUS into messages with their versions, and check them against their subject.

NATS permissions are by subject, so a message is valid only on the subject of its plan or server: on `status.plan.P001`
only facts about plan P001, on `status.server.SOCK001` only those about server SOCK001.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import InvalidField
from protocol.ids import Id
from protocol.log.partitions import partition_of
from protocol.log.version import version_of
from protocol.messages.base import Message, Wire
from protocol.messages.codec import Malformed, extract_element, parse_json
from protocol.messages.facts import STATUS_CODEC, CaptureReview, ExamineeFact, MobileSyncExtend, MobileSyncWait
from protocol.messages.plan_facts import ExamExtend, ExamWindow, PlanFact, PlanNotice, PlanPurged
from protocol.messages.server_messages import ServerStatus
from protocol.times import Timestamp, format_time, parse_time

SCHEDULER = "Nats-Scheduler"
"""The header of what NATS has published by a schedule: the subject that the schedule stands on."""

TimedByLog = MobileSyncWait | MobileSyncExtend | CaptureReview
"""Facts whose time may be that at which the log took them."""


class NewerFact(Wire):
    """A fact about a plan or an examinee that only a newer release understands; `kind`: its type on the wire."""

    kind: str
    plan_id: Id
    examinee_id: Id | None = None
    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A fact about a plan or an examinee with its place in the log.

    `logged`: when the log took it, in seconds since the epoch.
    """

    version: int
    logged: float
    fact: ExamineeFact | PlanFact | NewerFact

    @property
    def examinee_id(self) -> str | None:
        """The examinee that the fact names; `None`: it is about the whole plan, or several."""
        match self.fact:
            case ExamineeFact() | ExamExtend() | ExamWindow() | PlanPurged() | NewerFact():
                return self.fact.examinee_id
        return None

    def needed_for(self, examinee_id: str) -> bool:
        """Return whether the timeline of this examinee needs the fact: also others' times say when the plan ends."""
        return isinstance(self.fact, PlanFact) or self.examinee_id in (None, examinee_id)

    def concerns(self, examinee_id: str) -> bool:
        """Return whether the fact is about this examinee, alone or with others."""
        if isinstance(self.fact, PlanNotice) and self.fact.examinees is not None:
            return examinee_id in self.fact.examinees
        return self.examinee_id in (None, examinee_id)


def decode_status(
    subject: str, payload: bytes, logged: float | None = None, *, scheduled: bool = False
) -> list[Message | Malformed]:
    """Return the messages of a payload from `subject`. A message about another plan or server is `Malformed`.

    `logged`: when the log took the payload, in seconds since the epoch. Facts with `byLogTime` get their times from it;
    with `None` their times stay. `scheduled`: NATS published the payload by a schedule (it has the header `SCHEDULER`),
    without a check whether its author may publish there. Facts about servers are never scheduled.
    """
    decoded = STATUS_CODEC.decode_batch(payload)
    tokens = subject.split(".")
    if len(tokens) in (3, 5) and tokens[1] in ("plan", "server"):
        _, about, named, *speaker = tokens
        for index, message in enumerate(decoded):
            if isinstance(message, Malformed):
                continue
            wrong = ("type", "a schedule") if scheduled and about == "server" else _misplaced(message, about, named)
            if wrong is None and speaker and speaker[1] != str(partition_of(named)):
                wrong = ("data.planId", named)  # in the partition of other plans its facts would have no order
            if wrong is not None:
                error = InvalidField(wrong[0], f"{wrong[1]} has no place on {subject}")
                decoded[index] = Malformed(index, error, extract_element(payload, index))
            elif isinstance(message, TimedByLog) and message.by_log_time and logged:
                decoded[index] = _with_log_time(message, logged)
    return decoded


def read_entries(subject: str, sequence: int, logged: float, payload: bytes) -> Iterator[LogEntry]:
    """Yield the facts about a plan and its examinees in the message `sequence` of STATUS, in order."""
    for index, message in enumerate(decode_status(subject, payload, logged)):
        fact = _newer_fact(message, subject) if isinstance(message, Malformed) else message
        if isinstance(fact, ExamineeFact | PlanFact | NewerFact):
            yield LogEntry(version_of(sequence, index), logged, fact)


def _newer_fact(malformed: Malformed, subject: str) -> NewerFact | None:
    """Return what is known of a fact of a newer release; `None`: it is none, or has no place on the subject."""
    if not malformed.newer:
        return None
    parsed = parse_json(malformed.raw)
    try:
        fact = NewerFact.model_validate({**parsed.get("data", {}), "kind": parsed["type"]})
    except (TypeError, ValueError):
        return None
    return fact if subject.split(".")[1:3] == ["plan", fact.plan_id] else None


def may_mention(payload: bytes, examinee_id: str) -> bool:
    """Return whether a payload can be about this examinee or their plan, without decoding it.

    An id is ASCII, so it is in the bytes unless an escape hides it.
    """
    return examinee_id.encode() in payload or may_hold_plan_facts(payload)


def may_hold_plan_facts(payload: bytes) -> bool:
    """Return whether a payload can hold facts about the plan: their types say so, unless an escape hides them."""
    return b"\\" in payload or b'"plan_' in payload or b'"exam_' in payload


def _misplaced(message: Message, about: str, named: str) -> tuple[str, str] | None:
    """Return the field that does not fit the subject, and its value."""
    if isinstance(message, ServerStatus):
        if about != "server":
            return "type", message.type
        return None if message.server_id == named else ("data.serverId", message.server_id)
    assert isinstance(message, ExamineeFact | PlanFact)
    if about != "plan":
        return "type", message.type
    return None if message.plan_id == named else ("data.planId", message.plan_id)


def _with_log_time(fact: TimedByLog, logged: float) -> TimedByLog:
    """Return the fact with its times moved to when the log took it; the sender's clock gives only the duration."""
    begins = format_time(logged)
    if isinstance(fact, MobileSyncExtend | CaptureReview):
        return fact.model_copy(update={"timestamp": begins})
    lasts = parse_time(fact.deadline) - parse_time(fact.timestamp)
    return fact.model_copy(update={"timestamp": begins, "deadline": format_time(parse_time(begins) + lasts)})
