"""What an entry of the timeline says about each fact: its kind, its text and its fields."""

from __future__ import annotations

import pytest

from protocol.log.entries import LogEntry
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import TimelineEntry
from protocol.messages.facts import ClientInfo, ExamineeFact, FinishReason, UnstableRule
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, at

C = facts.connected
Expected = tuple[str, str, str, dict[str, object]]
"""The kind and the text of an entry, the status after it (of the mobile sync where that is told), its other fields."""

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
            ("NO_EFFECT", "a time to be stable again that has passed: no effect", "CONNECTED", {}),
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
                "NO_EFFECT",
                "end of a socket of which the log knows no beginning: no effect",
                "NEVER",
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
            ("ENROLLED", "named otherwise by the roster as Kim", "NEVER", {"name": "Kim"}),
            ("NO_EFFECT", "enrolled by S1 again as Kim: no effect", "NEVER", {"by": "S1", "name": "Kim"}),
            ("ENROLLED", "changed by the roster as Kim (room A, seat 7)", "NEVER", {"name": "Kim"}),
            ("JOINED", "joined on SOCK001", "CONNECTED", {"socket_id": "SOCK001-a", "server_id": "SOCK001"}),
            (
                "REMOVED",
                "removed by S001: cheating",
                "DISCONNECTED",
                {"reason": "cheating", "by": "S001", "action_id": "a1"},
            ),
            ("NO_EFFECT", "removed by S001, which was so already: no effect", "DISCONNECTED", {"by": "S001"}),
            (
                "REFUSED",
                "came back on SOCK001, and was refused: removed by S001",
                "DISCONNECTED",
                {"socket_id": "SOCK001-b", "server_id": "SOCK001"},
            ),
            ("READMITTED", "readmitted by S001 after the removal", "DISCONNECTED", {"by": "S001"}),
            ("REMOVED", "removed by S001", "DISCONNECTED", {"by": "S001"}),
            ("RESTATED", "told anew: DISCONNECTED", "DISCONNECTED", {}),
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
                "goes on with the exam, by S001",
                "CONNECTED",
                {"by": "S001", "action_id": "a2"},
            ),
            ("FINISHED", "handed in", "FINISHED", {"reason": "HANDED_IN", "by": "E001"}),
            ("RESUMED", "goes on with the exam, by S001", "CONNECTED", {"by": "S001"}),
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
    "a mobile sync": (
        (
            facts.timed_out(1),
            facts.wait(),
            facts.wait(1),
            facts.extend(60, 5, action="a1"),
            facts.extend(60, 5, action="a1"),
            facts.upload_failed(6),
            facts.upload_failed(7),
            facts.uploaded("a", 8),
            facts.uploaded("a", 9),
            facts.uploaded("b", 10),
            facts.upload_failed(11),
            facts.timed_out(10),
            facts.extend(60, 12),
            facts.restate(13, "mobile_sync"),
        ),
        [
            ("NO_EFFECT", "deadline of a mobile sync stage that is over: no effect", "NEVER", {}),
            (
                "SYNC_WAITING",
                "mobile sync: waiting for a picture until 2024-01-01T09:17:00.000Z",
                "WAITING",
                {"deadline": "2024-01-01T09:17:00.000Z"},
            ),
            ("NO_EFFECT", "entered mobile sync again: it stays WAITING", "WAITING", {}),
            (
                "SYNC_EXTENDED",
                "mobile sync extended by S001 from 2024-01-01T09:17:00.000Z to 2024-01-01T09:18:00.000Z",
                "WAITING",
                {"by": "S001", "action_id": "a1", "deadline": "2024-01-01T09:18:00.000Z"},
            ),
            ("NO_EFFECT", "mobile sync extended by S001, which is WAITING: no effect", "WAITING", {}),
            (
                "SYNC_FAILED",
                "mobile sync failed: IMAGE_STORE_FAILED",
                "FAILED",
                {"reason": "IMAGE_STORE_FAILED", "device_id": "M001", "deadline": "2024-01-01T09:18:00.000Z"},
            ),
            (
                "SYNC_FAILED",
                "mobile sync failed: IMAGE_STORE_FAILED",
                "FAILED",
                {"reason": "IMAGE_STORE_FAILED", "device_id": "M001", "deadline": "2024-01-01T09:18:00.000Z"},
            ),
            (
                "SYNC_COMPLETED",
                "mobile sync completed: a picture from M001",
                "COMPLETED",
                {
                    "device_id": "M001",
                    "capture_id": "a" * 64,
                    "image_url": "/captures/E001/sync_cap.jpg",
                    "deadline": "2024-01-01T09:18:00.000Z",
                },
            ),
            ("NO_EFFECT", "mobile sync COMPLETED again: no effect", "COMPLETED", {}),
            (
                "SYNC_KEPT",
                "another picture from M001 kept, which nobody asked for; the first one counts",
                "COMPLETED",
                {
                    "device_id": "M001",
                    "capture_id": "b" * 64,
                    "image_url": "/captures/E001/sync_cap.jpg",
                    "deadline": "2024-01-01T09:18:00.000Z",
                },
            ),
            ("NO_EFFECT", "mobile sync FAILED again: no effect", "COMPLETED", {}),
            ("NO_EFFECT", "deadline of a mobile sync stage that is over: no effect", "COMPLETED", {}),
            ("NO_EFFECT", "mobile sync extended by S001, which is COMPLETED: no effect", "COMPLETED", {}),
            ("RESTATED", "mobile sync told anew: COMPLETED", "COMPLETED", {}),
        ],
    ),
    "a picture that is looked at": (
        (
            facts.uploaded("a"),
            facts.review("a", "rejected", 40, by="kim", action="r1", challenge="4711"),
            facts.review("a", "rejected", 41, by="lee", action="r2"),
            facts.uploaded("b", 150),
            facts.review("b", "accepted", 160, by="kim", action="r3"),
        ),
        [
            (
                "SYNC_COMPLETED",
                "mobile sync completed: a picture from M001, sent before the stage",
                "COMPLETED",
                {"device_id": "M001", "capture_id": "a" * 64, "image_url": "/captures/E001/sync_cap.jpg"},
            ),
            (
                "SYNC_REJECTED",
                "picture aaaaaaaaaaaa rejected by kim (BLURRED); another one is waited for until "
                "2024-01-01T09:17:10.000Z",
                "WAITING",
                {
                    "reason": "BLURRED",
                    "device_id": "M001",
                    "capture_id": "a" * 64,
                    "deadline": "2024-01-01T09:17:10.000Z",
                    "by": "kim",
                    "action_id": "r1",
                },
            ),
            ("NO_EFFECT", "picture aaaaaaaaaaaa rejected again by lee: no effect", "WAITING", {}),
            (
                "SYNC_COMPLETED",
                "mobile sync completed: a picture from M001, sent after the deadline",
                "COMPLETED",
                {
                    "device_id": "M001",
                    "capture_id": "b" * 64,
                    "image_url": "/captures/E001/sync_cap.jpg",
                    "deadline": "2024-01-01T09:17:10.000Z",
                },
            ),
            (
                "SYNC_ACCEPTED",
                "picture bbbbbbbbbbbb accepted by kim",
                "COMPLETED",
                {
                    "device_id": "M001",
                    "capture_id": "b" * 64,
                    "image_url": "/captures/E001/sync_cap.jpg",
                    "deadline": "2024-01-01T09:17:10.000Z",
                    "by": "kim",
                    "action_id": "r3",
                },
            ),
        ],
    ),
    "a mobile sync that times out": (
        (
            facts.wait(),
            facts.timed_out(10),
            facts.extend(60, 121),
        ),
        [
            (
                "SYNC_WAITING",
                "mobile sync: waiting for a picture until 2024-01-01T09:17:00.000Z",
                "WAITING",
                {"deadline": "2024-01-01T09:17:00.000Z"},
            ),
            (
                "SYNC_TIMED_OUT",
                "mobile sync timed out: no picture until 2024-01-01T09:17:00.000Z",
                "TIMED_OUT",
                {"reason": "SYNC_TIMEOUT", "deadline": "2024-01-01T09:17:00.000Z"},
            ),
            (
                "SYNC_EXTENDED",
                "mobile sync extended by S001 from 2024-01-01T09:17:00.000Z to 2024-01-01T09:18:01.000Z",
                "WAITING",
                {"by": "S001", "deadline": "2024-01-01T09:18:01.000Z"},
            ),
        ],
    ),
    "a mobile sync without a stage": (
        (
            facts.upload_failed(6),
            facts.extend(60, 7),
        ),
        [
            (
                "SYNC_FAILED",
                "mobile sync failed: IMAGE_STORE_FAILED",
                "FAILED",
                {"reason": "IMAGE_STORE_FAILED", "device_id": "M001"},
            ),
            (
                "SYNC_EXTENDED",
                "mobile sync extended by S001 to 2024-01-01T09:16:07.000Z",
                "WAITING",
                {"by": "S001", "device_id": "M001", "deadline": "2024-01-01T09:16:07.000Z"},
            ),
        ],
    ),
    "notices": (
        (
            facts.notice(),
            facts.notice(),
            facts.notice_confirmed("a1", 5),
            facts.notice_confirmed("a1", 6),
            facts.notice_confirmed("a9", 7),
            facts.restate(8, "notices"),
        ),
        [
            (
                "NOTICE",
                "notice by S001: Please look up.",
                "NEVER",
                {"by": "S001", "action_id": "a1", "notice": "Please look up."},
            ),
            (
                "NO_EFFECT",
                "notice by S001 again: no effect",
                "NEVER",
                {"by": "S001", "action_id": "a1", "notice": "Please look up."},
            ),
            (
                "NOTICE_CONFIRMED",
                "notice by S001 confirmed: Please look up.",
                "NEVER",
                {"by": "S001", "action_id": "a1", "notice": "Please look up."},
            ),
            (
                "NO_EFFECT",
                "a notice confirmed again: no effect",
                "NEVER",
                {"action_id": "a1"},
            ),
            ("NOTICE_CONFIRMED", "a message to several confirmed", "NEVER", {"action_id": "a9"}),
            ("RESTATED", "messages told anew", "NEVER", {}),
        ],
    ),
    "help": (
        (
            facts.help_request("h1", 1, text="Page 3 does not load."),
            facts.help_request("h2", 2),
            facts.help_take("h1", 3),
            facts.help_take("h1", 4),
            facts.help_close("h1", 5),
            facts.help_close("h1", 6),
            facts.help_request("h3", 7),
            facts.help_close("h3", 8, by="E001"),
        ),
        [
            (
                "HELP_REQUESTED",
                "asks for help: Page 3 does not load.",
                "NEVER",
                {"by": "E001", "action_id": "h1", "notice": "Page 3 does not load."},
            ),
            ("NO_EFFECT", "asked for help again: no effect", "NEVER", {"by": "E001", "action_id": "h2"}),
            ("HELP_TAKEN", "S001 is on the request for help", "NEVER", {"by": "S001"}),
            (
                "NO_EFFECT",
                "S001 takes a request for help that is theirs or not open: no effect",
                "NEVER",
                {"by": "S001"},
            ),
            ("HELP_CLOSED", "request for help closed by S001", "NEVER", {"by": "S001"}),
            ("NO_EFFECT", "S001 closes a request for help that is not open: no effect", "NEVER", {"by": "S001"}),
            ("HELP_REQUESTED", "asks for help", "NEVER", {"by": "E001", "action_id": "h3"}),
            ("HELP_CLOSED", "takes the request for help back", "NEVER", {"by": "E001"}),
        ],
    ),
}
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
COMMON = {"version", "logged", "time", "plan_id", "examinee_id", "what", "text", "effect", "status", "mobile_sync"}


def read(*story: ExamineeFact, truncated: bool = False) -> list[TimelineEntry]:
    """The entries of facts that the log took one a second, with the versions 10, 20, 30, ..."""
    timeline = Timeline(truncated=truncated)
    entries = [timeline.add(LogEntry(10 * (n + 1), DAWN + n, fact)) for n, fact in enumerate(story)]
    return [entry for entry in entries if entry is not None]


def summary(entry: TimelineEntry) -> Expected:
    fields = entry.model_dump(exclude_none=True, exclude=COMMON)
    assert entry.effect is (entry.what not in ("NO_EFFECT", "RESTATED"))
    assert (entry.plan_id, entry.examinee_id) == (facts.PLAN, facts.EXAMINEE)
    return entry.what.value, entry.text, entry.mobile_sync if entry.mobile_sync != "NONE" else entry.status, fields


@pytest.mark.parametrize("name", list(STORIES))
def test_each_entry_describes_the_outcome_of_its_fact(name: str) -> None:
    story, expected = STORIES[name]
    assert [summary(entry) for entry in read(*story)] == expected


@pytest.mark.parametrize("name", list(TRUNCATED_STORIES))
def test_in_a_truncated_log_the_first_fact_is_accepted_without_the_facts_before_it(name: str) -> None:
    story, expected = TRUNCATED_STORIES[name]
    assert [summary(entry) for entry in read(*story, truncated=True)] == expected


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
