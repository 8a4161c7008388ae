"""What a socket server passes on to its clients: each message as the text that has arrived.

Nearly all of it tells proctors that an examinee was lost, tries to reconnect, or has connected, and an examinee that
the connection is recorded. Those are read by a pattern of their text, at a sixth of the cost of a model. The pattern
knows less than the models do: what it does not match is read by them. What it matches they read the same way
(`tests/unit/protocol/broker/test_passed_on.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pydantic_core

from protocol.access.scope import NO_LABELS, tells_labels
from protocol.client.plan_view import EventKey, event_key
from protocol.messages.base import Message
from protocol.messages.codec import MAX_BATCH_MESSAGES, encode_element, parse_json
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeReconnecting
from protocol.messages.session_messages import SessionState
from protocol.times import parse_time

_MEASURED = frozenset((ExamineeConnected.type, ExamineeDisconnected.type))


class PlanEvent(NamedTuple):
    """An event for the proctors of a plan.

    `key`: whom it is about, and the line in which its `version` counts. `encoded`: the whole message, as it is passed
    on. `happened`: when a socket began or ended (seconds since the epoch), in the event that tells it first.
    `labels_text`: the examinee's labels as JSON, empty if there are none; `None`: it tells nothing of them. `message`:
    as its model reads it; `None` when no model was needed.
    """

    kind: str
    key: EventKey
    version: int
    encoded: bytes
    happened: float | None = None
    labels_text: str | None = None
    message: Message | None = None

    @classmethod
    def of(cls, parsed: dict[str, Any], message: Message | None = None) -> PlanEvent:
        """Return the event that was parsed from a message and found valid."""
        kind, data = str(parsed["type"]), parsed["data"]
        labels = None
        if tells_labels(kind):
            labels = pydantic_core.to_json(data["labels"]).decode() if data.get("labels") else ""
        happened = None
        if kind in _MEASURED and not data.get("restated"):
            try:
                happened = parse_time(data["timestamp"])
            except (KeyError, TypeError, ValueError):
                happened = None  # without a valid time there is nothing to measure
        return cls(kind, event_key(parsed), data["version"], encode_element(parsed), happened, labels, message)

    @property
    def parsed(self) -> dict[str, Any]:
        """The message as parsed JSON."""
        parsed: dict[str, Any] = parse_json(self.encoded)
        return parsed

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The examinee's labels; `None`: the event tells nothing of them."""
        if not self.labels_text:
            return NO_LABELS if self.labels_text is not None else None
        return _labels_of(self.labels_text)


@lru_cache(maxsize=4096)
def _labels_of(text: str) -> Mapping[str, str]:
    labels: dict[str, str] = pydantic_core.from_json(text)
    return labels


# -- usual events ----------------------------------------------------------------------------------------

_ID, _SOCKET_ID = "[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9_-]{1,96}"
_VERSION = "[1-9][0-9]{0,14}"
_NAME = r'[^"\\\x00-\x1f\x7f]{1,100}'
_TEXT = r'[^"\\\x00-\x1f]{0,256}'
_LABEL = f'"[A-Za-z가-힣][A-Za-z0-9가-힣_-]{{0,31}}":"{_NAME}"'
_NUMBER = "(?:0|[1-9][0-9]{0,8})"
_TIME = "2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z"
_DIFFERENCES = '\\["[a-z]{1,20}"(?:,"[a-z]{1,20}"){0,7}\\]'
_CLIENT_INFO = rf'{{(?:"ipAddress":"{_TEXT}"(?:,"browserInfo":"{_TEXT}")?(?:,"userAgent":"{_TEXT}")?)?}}'

_CONNECTION_EVENT = (
    r'(?:"traceparent":"[0-9a-f-]{55}",)?'
    rf'"planId":"({_ID})","examineeId":"({_ID})"'
    rf'(?:,"name":"{_NAME}")?(?:,"labels":({{{_LABEL}(?:,{_LABEL}){{0,7}}}}))?'
    rf'(?:,"flags":{_DIFFERENCES})?(?:,"unstable":(?:true|false))?,"version":({_VERSION})'
)
_SOCKET = f',"socketId":"{_SOCKET_ID}"'
_SERVER = rf'(?:,"serverId":"{_ID}")?'
_EVENTS = {
    kind: re.compile(f'{{"type":"{kind}","data":{{{_CONNECTION_EVENT}{others}}}}}')
    for kind, others in {
        ExamineeConnected.type: rf'{_SOCKET}{_SERVER},"status":"CONNECTED","timestamp":"({_TIME})"'
        rf'(?:,"clientInfo":{_CLIENT_INFO})?,"recovered":(?:true|false)(?:,"recoveredFrom":"[A-Z0-9_]{{1,64}}")?'
        rf'(?:,"migrated":(?:true|false))?(?:,"outageSeconds":{_NUMBER}(?:[.][0-9]{{1,9}})?)?'
        rf'(?:,"differs":{_DIFFERENCES})?()',
        ExamineeDisconnected.type: rf'(?:{_SOCKET})?{_SERVER},"status":"DISCONNECTED","timestamp":"({_TIME})"'
        rf'(?:,"reason":"[A-Z0-9_]{{1,64}}")?(?:,"closeCode":{_NUMBER})?'
        rf'(?:,"attempt":{_NUMBER})?(?:,"maxAttempts":{_NUMBER})?()',
        ExamineeReconnecting.type: rf',"attempt":{_NUMBER},"maxAttempts":{_NUMBER}'
        rf'(?:,"nextAttemptAt":"({_TIME})")?,"timestamp":"({_TIME})"',
    }.items()
}
_BEFORE_KIND = len('{"type":"')


_STATES = {
    SessionState.type: re.compile(
        rf'{{"type":"{SessionState.type}","data":{{"planId":"({_ID})","examineeId":"({_ID})","socketId":"({_SOCKET_ID})"'
        rf'(?:,"name":"{_NAME}")?,"connection":{{"status":"(?:CONNECTED|DISCONNECTED|MIGRATING)"'
        rf'(?:{_SOCKET})?{_SERVER}(?:,"reason":"[A-Z0-9_]{{1,64}}")?(?:,"since":"{_TIME}")?(?:,"closeCode":{_NUMBER})?'
        rf'(?:,"flags":\["(?:address|browser|device)"(?:,"(?:address|browser|device)"){{0,7}}\])?,"version":{_VERSION}}},'
        rf'"mobileSync":{{"status":"NONE","version":0}},"reconnect":{{"count":{_NUMBER},"attempt":{_NUMBER}'
        rf'(?:,"maxAttempts":{_NUMBER})?(?:,"nextAttemptAt":"{_TIME}")?,"exhausted":(?:true|false)'
        r'(?:,"unstable":(?:true|false))?(?:,"awayShare":0[.][0-9]{1,20})?},'
        rf'"notices":\[\],"noticesVersion":(?:0|{_VERSION}),"version":({_VERSION})}}}}'
    )
}


class UsualState(NamedTuple):
    """A `session_state` that says nothing but where the examinee is: no message, no help, no mobile sync stage."""

    plan_id: str
    examinee_id: str
    socket_id: str
    version: int
    encoded: bytes


def usual_events(payload: bytes, plan_id: str) -> list[PlanEvent] | None:
    """Return the events of a payload for the proctors of a plan; `None`: one of them, or the payload, is not usual."""
    events: list[PlanEvent] = []
    try:
        for kind, groups, encoded in _usual_messages(payload, _EVENTS):
            plan, examinee_id, labels, version, time, another_time = groups
            if plan != plan_id:
                return None
            happened = parse_time(time) if time is not None else None
            if another_time:
                parse_time(another_time)
            key = examinee_id, "connection"
            events.append(
                PlanEvent(kind, key, int(version), encoded, happened if kind in _MEASURED else None, labels or "")
            )
    except ValueError:
        return None
    return events


def usual_states(payload: bytes) -> list[UsualState] | None:
    """Return the states of a payload for a socket server; `None`: it holds anything else, or one that is not usual."""
    try:
        read = _usual_messages(payload, _STATES)
        return [UsualState(plan, who, socket, int(version), text) for _, (plan, who, socket, version), text in read]
    except ValueError:
        return None


def _usual_messages(
    payload: bytes, patterns: Mapping[str, re.Pattern[str]]
) -> Iterator[tuple[str, tuple[Any, ...], bytes]]:
    """Yield type, groups and text of each message of a payload. Raises `ValueError` when one is not usual."""
    text = payload.decode()
    begin, end = (1, len(text) - 1) if text[:1] == "[" and text[-1] == "]" else (0, len(text))
    for _ in range(MAX_BATCH_MESSAGES):
        kind = text[begin + _BEFORE_KIND : text.index('"', begin + _BEFORE_KIND)]
        pattern = patterns.get(kind)
        match = pattern.match(text, begin) if pattern is not None else None
        if match is None:
            raise ValueError(kind)
        after = match.end()
        yield kind, match.groups(), text[begin:after].encode()
        if after == end:
            return
        if text[after : after + 1] != ",":
            raise ValueError(text[after:])
        begin = after + 1
    raise ValueError(payload)
