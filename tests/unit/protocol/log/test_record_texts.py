"""What an entry of the timeline says about the mobile sync, messages and help: kind, text and fields."""

from __future__ import annotations

import pytest

from protocol.messages.facts import ExamineeFact
from tests.unit.protocol.log.timeline_stories import Expected, read, summary
from tests.unit.support import facts

STORIES: dict[str, tuple[tuple[ExamineeFact, ...], list[Expected]]] = {
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
            ("RESTATED", "mobile sync repeated: COMPLETED", "COMPLETED", {}),
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
            ("RESTATED", "messages repeated", "NEVER", {}),
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
            ("HELP_TAKEN", "S001 has taken the request for help", "NEVER", {"by": "S001"}),
            (
                "NO_EFFECT",
                "S001 takes a request for help that is theirs already, or not open: no effect",
                "NEVER",
                {"by": "S001"},
            ),
            ("HELP_CLOSED", "request for help closed by S001", "NEVER", {"by": "S001"}),
            ("NO_EFFECT", "S001 closes a request for help that is not open: no effect", "NEVER", {"by": "S001"}),
            ("HELP_REQUESTED", "asks for help", "NEVER", {"by": "E001", "action_id": "h3"}),
            ("HELP_CLOSED", "withdraws the request for help", "NEVER", {"by": "E001"}),
        ],
    ),
}


@pytest.mark.parametrize("name", list(STORIES))
def test_each_entry_describes_the_outcome_of_its_fact(name: str) -> None:
    story, expected = STORIES[name]
    assert [summary(entry) for entry in read(*story)] == expected
