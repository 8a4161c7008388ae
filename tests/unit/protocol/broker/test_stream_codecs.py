"""What a socket server makes of messages that a newer release has written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.broker.passed_on import PlanEvent
from protocol.broker.stream_codecs import ToSocketServer, decode_socket
from protocol.messages.codec import Malformed
from protocol.messages.proctor_events import NewerEvent

PROCTORS = "socket.plan.P001.proctors"
CHECKED: dict[str, Any] = {
    "type": "examinee_checked",
    "format": 1000,
    "data": {"planId": "P001", "examineeId": "E001", "version": 7, "browser": {"name": "x"}},
}


def decoded(subject: str, *elements: dict[str, Any]) -> list[ToSocketServer | Malformed]:
    return list(decode_socket(subject, json.dumps(elements).encode(), {}))


@pytest.mark.parametrize("kind", ["examinee_checked", "examinee_finished"])
def test_an_event_of_a_newer_release_is_passed_on_to_proctors_as_it_is(kind: str) -> None:
    (event,) = decoded(PROCTORS, CHECKED | {"type": kind})
    assert isinstance(event, PlanEvent)
    assert (event.parsed, event.message) == (
        CHECKED | {"type": kind},
        NewerEvent(plan_id="P001", examinee_id="E001", version=7),
    )


@pytest.mark.parametrize("data", [{"version": 0}, {"version": None}, {"planId": "P002"}, {"examineeId": "*"}])
def test_an_event_of_a_newer_release_that_lacks_what_each_event_has_is_not(data: dict[str, Any]) -> None:
    neighbour, wrong = decoded(PROCTORS, CHECKED, CHECKED | {"data": CHECKED["data"] | data})
    assert (isinstance(neighbour, PlanEvent), isinstance(wrong, Malformed)) == (True, True)


@pytest.mark.parametrize("subject", ["socket.SOCK001", "socket.plan.P001.examinees", "socket.plan.P001.examinee.E001"])
def test_other_messages_of_a_newer_release_are_for_nobody_here(subject: str) -> None:
    (message,) = decoded(subject, CHECKED)
    assert isinstance(message, Malformed)
    assert message.newer


def test_an_unknown_event_without_a_newer_format_is_malformed() -> None:
    (event,) = decoded(PROCTORS, {"type": "examinee_checked", "data": CHECKED["data"]})
    assert isinstance(event, Malformed)
    assert not event.newer
