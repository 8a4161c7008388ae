"""Events for the proctors of a plan, as a socket server passes them on: each as the text that has arrived.

Nearly all of them tell that an examinee was lost, tries to reconnect, or has connected. Those are read by a pattern of
their text (`usual_events`), at a sixth of the cost of a model. The pattern knows less than the models do: what it does
not match is read by them. What it matches they read the same way (`tests/unit/protocol/broker/test_plan_events.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pydantic_core

from protocol.access.scope import NO_LABELS, tells_labels
from protocol.client.plan_view import EventKey, event_key
from protocol.messages.base import Message
from protocol.messages.codec import MAX_BATCH_MESSAGES, encode_element, parse_json
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeReconnecting
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

_ID = "[A-Za-z0-9_-]{1,64}"
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
    rf'(?:,"flags":{_DIFFERENCES})?(?:,"unstable":(?:true|false))?,"version":([1-9][0-9]{{0,14}})'
)
_SOCKET = r',"socketId":"[A-Za-z0-9_-]{1,96}"'
_SERVER = rf'(?:,"serverId":"{_ID}")?'
_USUAL = {
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


def usual_events(payload: bytes, plan_id: str) -> list[PlanEvent] | None:
    """Return the events of a payload for the proctors of a plan; `None`: one of them, or the payload, is not usual."""
    try:
        text = payload.decode()
        begin, end = (1, len(text) - 1) if text[:1] == "[" and text[-1] == "]" else (0, len(text))
        events: list[PlanEvent] = []
        while len(events) < MAX_BATCH_MESSAGES:
            kind = text[begin + _BEFORE_KIND : text.index('"', begin + _BEFORE_KIND)]
            match = _USUAL[kind].match(text, begin)
            if match is None:
                return None
            plan, examinee_id, labels, version, time, another_time = match.groups()
            if plan != plan_id:
                return None
            happened = parse_time(time) if time is not None else None
            if another_time:
                parse_time(another_time)
            after = match.end()
            events.append(
                PlanEvent(
                    kind,
                    (examinee_id, "connection"),
                    int(version),
                    text[begin:after].encode(),
                    happened if kind in _MEASURED else None,
                    labels or "",
                )
            )
            if after == end:
                return events
            if text[after] != ",":
                return None
            begin = after + 1
    except (KeyError, IndexError, ValueError):
        return None
    return None
