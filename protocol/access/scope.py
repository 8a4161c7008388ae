"""Limit a proctor to examinees with certain labels (claim `scope`): what of a plan's events such a proctor is told.

Who has none of the labels is in no scope. Nothing is told of anybody outside, not even an examineeId.

Example::

    scope = Scope.of({"room": ["A", "B"]})
    scope.matches({"room": "A", "seat": "12"})  # True
    labels = PlanLabels()
    changes = [labels.update(event) for event in events]
    told = scoped_events(events, changes, scope, labels)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocol.messages.frames import ExamineeRow
from protocol.messages.plan_facts import PlanNotice
from protocol.messages.proctor_events import EVENTS, ConnectionEvent, PlanStateEvent

Parsed = dict[str, Any]

NO_LABELS: Mapping[str, str] = {}
_KNOWN_TYPES = frozenset(kind.type for kind in EVENTS)
_WITH_LABELS = frozenset(kind.type for kind in EVENTS if issubclass(kind, ConnectionEvent))


def tells_labels(kind: str) -> bool:
    """Return whether an event of this type tells an examinee's labels, or that there are none."""
    return kind in _WITH_LABELS


@dataclass(frozen=True, slots=True)
class Scope:
    """For each label the values that an examinee may have; all of the labels must match. Equal scopes are equal."""

    values: frozenset[tuple[str, frozenset[str]]]

    @classmethod
    def of(cls, claim: Mapping[str, Iterable[str]] | None) -> Scope | None:
        """Return the scope of a claim; `None`: the whole plan. Names and values are compared in Unicode's form NFC."""
        if claim is None:
            return None
        return cls(frozenset((_nfc(label), frozenset(map(_nfc, values))) for label, values in claim.items()))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an examinee with these labels is in the scope."""
        return all(labels.get(label) in values for label, values in self.values)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


class Change(NamedTuple):
    """The labels of an examinee before and after an event."""

    before: Mapping[str, str]
    after: Mapping[str, str]


class PlanLabels:
    """The labels of a plan's examinees, as rows and events tell them. Examinees who never had labels take no memory.

    Events come in the order of the log. A row may be newer than the newest event: then its event is still to come.
    `complete`: all records were read since they were last forgotten, so who is not known here has no labels. `cleared`:
    how often they were forgotten.
    """

    def __init__(self) -> None:
        self._labels: dict[str, tuple[int, Mapping[str, str]]] = {}
        self.complete = False
        self.cleared = 0

    def of(self, examinee_id: str) -> Mapping[str, str]:
        """Return the labels of an examinee."""
        _, labels = self._labels.get(examinee_id, (0, NO_LABELS))
        return labels

    def newest(self, examinee_id: str, version: int, labels: Mapping[str, str]) -> Mapping[str, str]:
        """Return the newer labels: those of a record with this version, or those that were told since."""
        told_version, told = self._labels.get(examinee_id, (version, labels))
        return told if told_version > version else labels

    def learn(self, examinee_id: str, version: int, labels: Mapping[str, str]) -> None:
        """Take the labels of a record, unless an event told them: events alone change what is known."""
        if labels and examinee_id not in self._labels:
            self._labels[examinee_id] = version, labels

    def update(self, event: Parsed) -> Change:
        """Take the labels of an event, unless it is older. Return the change that it makes."""
        data = event["data"]
        examinee_id = data.get("examineeId", "")
        if not tells_labels(event["type"]):
            before = self.of(examinee_id)
            return Change(before, before)
        return self.tell(examinee_id, data["version"], data.get("labels") or NO_LABELS)

    def tell(self, examinee_id: str, version: int, labels: Mapping[str, str]) -> Change:
        """Take the labels that an event of this version tells, unless it is older. Return the change that it makes."""
        known_version, before = self._labels.get(examinee_id, (0, NO_LABELS))
        if version <= known_version:
            return Change(before, before)
        if labels or examinee_id in self._labels:
            self._labels[examinee_id] = version, labels
        return Change(before, labels)

    def clear(self) -> None:
        """Forget everything: events may have been dropped."""
        self._labels.clear()
        self.complete = False
        self.cleared += 1

    def all_read(self, cleared: int) -> None:
        """Note that every record was read, beginning when they had been forgotten `cleared` times."""
        self.complete |= self.cleared == cleared


class ScopedEvents(NamedTuple):
    """The events for a scope. `moved`: somebody came into the scope or left it, so it needs a new snapshot."""

    events: list[Parsed]
    moved: bool


def scoped_events(
    events: Sequence[Parsed], changes: Sequence[Change], scope: Scope, labels: PlanLabels
) -> ScopedEvents:
    """Return the part of some events that a scope is told. `labels`: after these events; `changes`: one for each."""
    told: list[Parsed] = []
    moved = False
    for event, (before, after) in zip(events, changes, strict=True):
        if event["type"] not in _KNOWN_TYPES:
            continue  # of a newer release: whom it names besides is not known
        if event["data"].get("examineeId"):
            was_in, is_in = scope.matches(before), scope.matches(after)
            moved |= was_in != is_in
            if is_in:
                told.append(event)
        elif (scoped := _scoped_plan_event(event, scope, labels)) is not None:
            told.append(scoped)
    return ScopedEvents(told, moved)


def _scoped_plan_event(event: Parsed, scope: Scope, labels: PlanLabels) -> Parsed | None:
    """Return an event about a plan without the examinees outside the scope; `None`: it is about nobody inside."""
    data = event["data"]
    if event["type"] == PlanStateEvent.type:
        own_times = {name: own for name, own in (data.get("ownTimes") or {}).items() if scope.matches(labels.of(name))}
        data = {name: value for name, value in data.items() if name != "ownTimes"}
        return {**event, "data": {**data, **({"ownTimes": own_times} if own_times else {})}}
    if event["type"] == PlanNotice.type:
        if (listed := data.get("examinees")) is None:
            return event
        inside = [name for name in listed if scope.matches(labels.of(name))]
        return {**event, "data": {**data, "examinees": inside}} if inside else None
    return None  # whom it is about is not known


def scoped_plan_state(event: PlanStateEvent, scope: Scope, labels: Mapping[str, Mapping[str, str]]) -> PlanStateEvent:
    """Return a `plan_state` without the own times of examinees outside the scope. `labels`: by examineeId."""
    own_times = {
        name: own for name, own in (event.own_times or {}).items() if scope.matches(labels.get(name, NO_LABELS))
    }
    return event.model_copy(update={"own_times": own_times or None})


def scoped_rows(rows: Iterable[ExamineeRow], scope: Scope, labels: PlanLabels) -> list[ExamineeRow]:
    """Return the rows of a snapshot that are in a scope, by the newest labels that are known."""
    return [row for row in rows if scope.matches(labels.newest(row.examinee_id, row.version, row.labels or NO_LABELS))]


def scoped_notices(notices: Iterable[PlanNotice], scope: Scope, labels: PlanLabels) -> list[PlanNotice]:
    """Return the messages to several that anybody in a scope gets, without the others that they list."""
    told = []
    for notice in notices:
        if notice.examinees is None:
            told.append(notice)
        elif inside := [name for name in notice.examinees if scope.matches(labels.of(name))]:
            told.append(notice.model_copy(update={"examinees": inside}))
    return told
