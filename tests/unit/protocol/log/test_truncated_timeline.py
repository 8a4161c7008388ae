"""What the timeline says when the beginning of the log has expired."""

from __future__ import annotations

import pytest

from protocol.messages.facts import ExamineeFact
from tests.unit.protocol.log.timeline_stories import Expected, read, summary
from tests.unit.support import facts

C = facts.connected

TRUNCATED_STORIES: dict[str, tuple[tuple[ExamineeFact, ...], list[Expected]]] = {
    "a loss first": (
        (facts.disconnected("SOCK001-a", 3, "PING_TIMEOUT"),),
        [
            (
                "LOST",
                "lost: PING_TIMEOUT on SOCK001",
                "DISCONNECTED",
                {"reason": "PING_TIMEOUT", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
        ],
    ),
    "a migration first": (
        (
            facts.sent_away("SOCK001-a", 3),
            facts.attempt(10, 2, 9, of=2),
        ),
        [
            (
                "MIGRATING",
                "sent away by SOCK001, which is being drained",
                "MIGRATING",
                {"reason": "SERVER_DRAINING", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "LOST",
                "lost: sent away by SOCK001 and not arrived anywhere since 2024-01-01T09:15:03.000Z",
                "DISCONNECTED",
                {
                    "reason": "SERVER_DRAINING",
                    "socket_id": "SOCK001-a",
                    "server_id": "SOCK001",
                    "attempt": 2,
                    "max_attempts": 2,
                },
            ),
        ],
    ),
    "an attempt first": (
        (
            facts.attempt(5, 2),
            C("SOCK001-b", 4),
        ),
        [
            (
                "RECONNECTING",
                "reconnecting: attempt 2 of 3",
                "DISCONNECTED",
                {"reason": "UNKNOWN", "attempt": 2, "max_attempts": 3, "next_attempt_at": "2024-01-01T09:15:05.000Z"},
            ),
            (
                "RECOVERED",
                "recovered after 4 s on SOCK001 (UNKNOWN)",
                "CONNECTED",
                {"reason": "UNKNOWN", "socket_id": "SOCK001-b", "server_id": "SOCK001", "seconds": 4.0},
            ),
        ],
    ),
    "used-up attempts first": (
        (
            facts.exhausted(5),
            C("SOCK001-b", 4),
        ),
        [
            (
                "SHUT_OUT",
                "shut out: all attempts are used up",
                "DISCONNECTED",
                {"reason": "RECONNECT_LIMIT_EXCEEDED", "attempt": 0},
            ),
            (
                "REFUSED",
                "came back on SOCK001, and was refused: shut out until readmitted",
                "DISCONNECTED",
                {"socket_id": "SOCK001-b", "server_id": "SOCK001"},
            ),
        ],
    ),
    "a readmission first": (
        (
            facts.enrol("Kim"),
            facts.readmit(3),
            facts.enrol("Kim"),
            C("SOCK001-b", 4),
        ),
        [
            ("ENROLLED", "enrolled as Kim", "NEVER", {"name": "Kim"}),
            ("READMITTED", "readmitted by S001", "DISCONNECTED", {"by": "S001"}),
            ("NO_EFFECT", "enrolled again as Kim: no effect", "DISCONNECTED", {"name": "Kim"}),
            (
                "RECOVERED",
                "recovered after 1 s on SOCK001 (READMITTED)",
                "CONNECTED",
                {"reason": "READMITTED", "socket_id": "SOCK001-b", "server_id": "SOCK001", "seconds": 1.0},
            ),
        ],
    ),
    "a connection first": (
        (
            C("SOCK001-b", 4),
            facts.disconnected("SOCK001-a", 5),
            facts.remove(5),
        ),
        [
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-b", "server_id": "SOCK001"}),
            (
                "NO_EFFECT",
                "late disconnect of a replaced socket: no effect",
                "CONNECTED",
                {"reason": "SOCKET_CLOSED", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            ("REMOVED", "removed by S001", "DISCONNECTED", {"by": "S001"}),
        ],
    ),
}


@pytest.mark.parametrize("name", list(TRUNCATED_STORIES))
def test_in_a_truncated_log_the_first_fact_is_accepted_without_the_facts_before_it(name: str) -> None:
    story, expected = TRUNCATED_STORIES[name]
    assert [summary(entry) for entry in read(*story, truncated=True)] == expected
