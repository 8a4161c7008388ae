"""What an entry of the timeline says about facts of the connection: its kind, its text and its fields."""

from __future__ import annotations

import pytest

from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.messages.facts import ClientInfo, ExamineeFact, FinishReason, UnstableRule
from tests.unit.protocol.log.timeline_stories import Expected, read, summary
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at

C = facts.connected
HOME, CAFE = (ClientInfo(ip_address=f"10.0.0.{n}", user_agent=f"Browser/{n}") for n in (1, 2))
RULE = UnstableRule(share=0.2, window_seconds=100)

STORIES: dict[str, tuple[tuple[ExamineeFact, ...], list[Expected]]] = {
    "leaving on purpose, coming back from elsewhere, unstable, and named proctors": (
        (
            C("SOCK001-a", client="c1", info=HOME, unstable_rule=RULE),
            facts.disconnected("SOCK001-a", 10, "CLIENT_CLOSED", code=1001),
            C("SOCK001-b", 41, client="c1", info=CAFE, unstable_rule=RULE),
            facts.unstable_timeout(30, 121),
            facts.unstable_timeout(30, 121),
            facts.remove(130, by="park").model_copy(update={"by_name": "박감독"}),
        ),
        [
            (
                "JOINED",
                "joined on SOCK001",
                "CONNECTED",
                {
                    "socket_id": "SOCK001-a",
                    "server_id": "SOCK001",
                    "ip_address": "10.0.0.1",
                    "user_agent": "Browser/1",
                },
            ),
            (
                "LOST",
                "lost: CLIENT_CLOSED on SOCK001, close code 1001",
                "DISCONNECTED",
                {"reason": "CLIENT_CLOSED", "socket_id": "SOCK001-a", "server_id": "SOCK001", "close_code": 1001},
            ),
            (
                "RECOVERED",
                "recovered after 31 s on SOCK001 (CLIENT_CLOSED); another address and another browser than before; "
                "unstable: away 31% of the last 100 s",
                "CONNECTED",
                {
                    "reason": "CLIENT_CLOSED",
                    "seconds": 31.0,
                    "socket_id": "SOCK001-b",
                    "server_id": "SOCK001",
                    "ip_address": "10.0.0.2",
                    "user_agent": "Browser/2",
                },
            ),
            ("STABLE", f"stable again since {at(121)}", "CONNECTED", {}),
            ("NO_EFFECT", "a check for stability that is out of date: no effect", "CONNECTED", {}),
            ("REMOVED", "removed by 박감독 (park)", "DISCONNECTED", {"by": "park", "by_name": "박감독"}),
        ],
    ),
    "a loss, its attempts and the recovery": (
        (
            C("SOCK001-a", info=ClientInfo(ip_address="10.0.0.1")),
            C("SOCK001-a", 1),
            facts.disconnected("SOCK001-a", 10, "PING_TIMEOUT"),
            facts.disconnected("SOCK001-a", 10, "PING_TIMEOUT"),
            facts.attempt(30, 1, 11, of=5),
            facts.attempt(30, 1, 11, of=5),
            C("SOCK002-b", 17.5),
            facts.disconnected("SOCK001-a", 18),
            facts.exhausted(30, 19),
        ),
        [
            (
                "JOINED",
                "joined on SOCK001",
                "CONNECTED",
                {"socket_id": "SOCK001-a", "server_id": "SOCK001", "ip_address": "10.0.0.1"},
            ),
            (
                "NO_EFFECT",
                "announced again by SOCK001: no effect",
                "CONNECTED",
                {"socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "LOST",
                "lost: PING_TIMEOUT on SOCK001",
                "DISCONNECTED",
                {"reason": "PING_TIMEOUT", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "NO_EFFECT",
                "the socket's end was known already (PING_TIMEOUT): no effect",
                "DISCONNECTED",
                {"reason": "PING_TIMEOUT", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "RECONNECTING",
                "reconnecting: attempt 1 of 5",
                "DISCONNECTED",
                {
                    "reason": "PING_TIMEOUT",
                    "attempt": 1,
                    "max_attempts": 5,
                    "next_attempt_at": "2024-01-01T09:15:16.000Z",
                },
            ),
            (
                "NO_EFFECT",
                "attempt 1 of 5 of an outage that is over: no effect",
                "DISCONNECTED",
                {
                    "reason": "PING_TIMEOUT",
                    "attempt": 1,
                    "max_attempts": 5,
                    "next_attempt_at": "2024-01-01T09:15:16.000Z",
                },
            ),
            (
                "RECOVERED",
                "recovered after 7.5 s on SOCK002 (PING_TIMEOUT)",
                "CONNECTED",
                {"reason": "PING_TIMEOUT", "socket_id": "SOCK002-b", "server_id": "SOCK002", "seconds": 7.5},
            ),
            (
                "NO_EFFECT",
                "late disconnect of a replaced socket: no effect",
                "CONNECTED",
                {"reason": "SOCKET_CLOSED", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            ("NO_EFFECT", "the attempts of an outage that is over are used up: no effect", "CONNECTED", {"attempt": 0}),
        ],
    ),
    "the end of an unknown socket": (
        (facts.disconnected("SOCK001-a"),),
        [
            (
                "LOST",
                "lost: SOCKET_CLOSED on SOCK001 (when it was opened is not in the log)",
                "DISCONNECTED",
                {"reason": "SOCKET_CLOSED", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
        ],
    ),
    "a replaced socket": (
        (
            C("SOCK001-a", client="c", number=1),
            C("SOCK002-b", 1, client="c", number=2),
            C("SOCK001-c", 2, client="c", number=1),
        ),
        [
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            (
                "REPLACED",
                "a newer connection on SOCK002 took over from SOCK001-a",
                "CONNECTED",
                {"socket_id": "SOCK002-b", "server_id": "SOCK002"},
            ),
            (
                "NO_EFFECT",
                "late connect of a socket that its client had left already: no effect",
                "CONNECTED",
                {"socket_id": "SOCK001-c", "server_id": "SOCK001"},
            ),
        ],
    ),
    "all attempts used up": (
        (
            C("SOCK001-a"),
            facts.disconnected("SOCK001-a", 1, None),
            facts.attempt(20, 3, 2),
            facts.exhausted(20, 3),
            facts.exhausted(20, 3),
            C("SOCK001-b", 4),
            facts.readmit(5, action="a1"),
            facts.readmit(6),
            C("SOCK001-c", 7),
        ),
        [
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            (
                "LOST",
                "lost: SOCKET_CLOSED on SOCK001",
                "DISCONNECTED",
                {"reason": "SOCKET_CLOSED", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "RECONNECTING",
                "reconnecting: attempt 3 of 3",
                "DISCONNECTED",
                {"reason": "SOCKET_CLOSED", "attempt": 3, "max_attempts": 3},
            ),
            (
                "SHUT_OUT",
                "shut out: all attempts are used up",
                "DISCONNECTED",
                {"reason": "RECONNECT_LIMIT_EXCEEDED", "attempt": 3, "max_attempts": 3},
            ),
            (
                "NO_EFFECT",
                "the attempts of an outage that is over are used up: no effect",
                "DISCONNECTED",
                {"reason": "RECONNECT_LIMIT_EXCEEDED", "attempt": 3, "max_attempts": 3},
            ),
            (
                "REFUSED",
                "came back on SOCK001, and was refused: shut out until readmitted",
                "DISCONNECTED",
                {"socket_id": "SOCK001-b", "server_id": "SOCK001"},
            ),
            ("READMITTED", "readmitted by S001", "DISCONNECTED", {"by": "S001", "action_id": "a1"}),
            ("NO_EFFECT", "readmitted by S001, but not shut out: no effect", "DISCONNECTED", {"by": "S001"}),
            (
                "RECOVERED",
                "recovered after 6 s on SOCK001 (READMITTED)",
                "CONNECTED",
                {"reason": "READMITTED", "socket_id": "SOCK001-c", "server_id": "SOCK001", "seconds": 6.0},
            ),
        ],
    ),
    "a drained server": (
        (
            C("SOCK001-a"),
            facts.sent_away("SOCK001-a", 1),
            facts.attempt(20, 1, 2),
            C("SOCK002-b", 3),
            facts.sent_away("SOCK002-b", 4),
            facts.attempt(50, 2, 9),
        ),
        [
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            (
                "MIGRATING",
                "sent away by SOCK001, which is being drained",
                "MIGRATING",
                {"reason": "SERVER_DRAINING", "socket_id": "SOCK001-a", "server_id": "SOCK001"},
            ),
            (
                "NO_EFFECT",
                "attempt 1 of 3: on the way to another server",
                "MIGRATING",
                {
                    "reason": "SERVER_DRAINING",
                    "attempt": 1,
                    "max_attempts": 3,
                    "next_attempt_at": "2024-01-01T09:15:07.000Z",
                },
            ),
            (
                "ARRIVED",
                "arrived on SOCK002 after 2 s: moved from SOCK001",
                "CONNECTED",
                {"socket_id": "SOCK002-b", "server_id": "SOCK002", "seconds": 2.0},
            ),
            (
                "MIGRATING",
                "sent away by SOCK002, which is being drained",
                "MIGRATING",
                {"reason": "SERVER_DRAINING", "socket_id": "SOCK002-b", "server_id": "SOCK002"},
            ),
            (
                "LOST",
                "lost: sent away by SOCK002 and not arrived anywhere since 2024-01-01T09:15:04.000Z",
                "DISCONNECTED",
                {
                    "reason": "SERVER_DRAINING",
                    "socket_id": "SOCK002-b",
                    "server_id": "SOCK002",
                    "attempt": 2,
                    "max_attempts": 3,
                    "next_attempt_at": "2024-01-01T09:15:14.000Z",
                },
            ),
        ],
    ),
    "the roster and a removal": (
        (
            facts.enrol(None, by="S1", action="a0"),
            facts.enrol("Kim"),
            facts.enrol("Kim", by="S1"),
            facts.enrol(labels={"room": "A", "seat": "7"}),
            C("SOCK001-a"),
            facts.remove(1, action="a1", reason="cheating"),
            facts.remove(2),
            C("SOCK001-b", 3),
            facts.readmit(4),
            facts.remove(5),
            facts.restate(6),
        ),
        [
            ("ENROLLED", "enrolled by S1", "NEVER", {"by": "S1", "action_id": "a0"}),
            ("ENROLLED", "renamed by the roster as Kim", "NEVER", {"name": "Kim"}),
            ("NO_EFFECT", "enrolled by S1 again as Kim: no effect", "NEVER", {"by": "S1", "name": "Kim"}),
            ("ENROLLED", "changed by the roster as Kim (room A, seat 7)", "NEVER", {"name": "Kim"}),
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            (
                "REMOVED",
                "removed by S001: cheating",
                "DISCONNECTED",
                {"reason": "cheating", "by": "S001", "action_id": "a1"},
            ),
            ("NO_EFFECT", "removed by S001 again: no effect", "DISCONNECTED", {"by": "S001"}),
            (
                "REFUSED",
                "came back on SOCK001, and was refused: removed by S001",
                "DISCONNECTED",
                {"socket_id": "SOCK001-b", "server_id": "SOCK001"},
            ),
            ("READMITTED", "readmitted by S001 after the removal", "DISCONNECTED", {"by": "S001"}),
            ("REMOVED", "removed by S001", "DISCONNECTED", {"by": "S001"}),
            ("RESTATED", "state repeated: DISCONNECTED", "DISCONNECTED", {}),
        ],
    ),
    "a finish and a resume": (
        (
            C("SOCK001-a"),
            facts.resume(1),
            facts.finish(2, action="a1"),
            facts.finish(3),
            facts.resume(4, action="a2"),
            facts.finish(5, "E001", reason=FinishReason.HANDED_IN),
            facts.resume(6),
            facts.finish(7, "plan", reason=FinishReason.PLAN_ENDED),
        ),
        [
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            ("NO_EFFECT", "a resume without effect: not finished", "CONNECTED", {"by": "S001"}),
            ("FINISHED", "finished by S001", "FINISHED", {"reason": "DECIDED", "by": "S001", "action_id": "a1"}),
            ("NO_EFFECT", "a finish without effect: finished already", "FINISHED", {"by": "S001"}),
            (
                "RESUMED",
                "resumed by S001",
                "CONNECTED",
                {"by": "S001", "action_id": "a2"},
            ),
            ("FINISHED", "handed in", "FINISHED", {"reason": "HANDED_IN", "by": "E001"}),
            ("RESUMED", "resumed by S001", "CONNECTED", {"by": "S001"}),
            ("FINISHED", "finished: the exam has ended", "FINISHED", {"reason": "PLAN_ENDED", "by": "plan"}),
        ],
    ),
    "a finish of a removed examinee": (
        (facts.remove(1), facts.finish(2, action="a1")),
        [
            ("REMOVED", "removed by S001", "NEVER", {"by": "S001"}),
            ("NO_EFFECT", "a finish without effect: removed", "NEVER", {"by": "S001", "action_id": "a1"}),
        ],
    ),
}


@pytest.mark.parametrize("name", list(STORIES))
def test_each_entry_describes_the_outcome_of_its_fact(name: str) -> None:
    story, expected = STORIES[name]
    assert [summary(entry) for entry in read(*story)] == expected


def test_an_entry_has_its_version_and_both_times() -> None:
    entry = Timeline().add(LogEntry(77, DAWN + 5, facts.connected("SOCK001-a", 3)))
    assert entry is not None
    assert (entry.version, entry.logged, entry.time) == (77, at(5), at(3))


def test_entries_that_were_added_before_change_nothing() -> None:
    timeline = Timeline()
    assert timeline.add(LogEntry(1, DAWN, facts.connected("SOCK001-a"))) is not None
    assert timeline.add(LogEntry(1, DAWN, facts.remove())) is None
    assert timeline.add(LogEntry(0, DAWN, facts.remove())) is None
    assert timeline.add(LogEntry(2, DAWN, facts.remove())) is not None
