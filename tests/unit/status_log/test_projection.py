"""What a projection of the log can be compared with: messages that are kept for ever stand before expired ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import cast

import pytest

from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.projection import Projection
from actors.status_log.status_log import LogExtent, StatusLog
from protocol.log.version import version_of
from protocol.messages.base import FORMAT, Message
from protocol.messages.codec import encode
from protocol.records import keys
from tests.unit.support import facts

NOW = 1_796_000_000.0
DAY = 86400.0
CREATED = round((NOW - 30 * DAY) * 1000)


class Log:
    """A log with messages of some ages in days, oldest first; `first`: the sequence of a schedule before them."""

    def __init__(self, *messages: tuple[float, Message], first: int) -> None:
        self._first = first
        self._messages = [
            StoredMessage("status.plan.P001.operator.3", CREATED + number, encode(fact), {}, NOW - days * DAY)
            for number, (days, fact) in enumerate(messages, 10)
        ]

    def now(self) -> float:
        return NOW

    async def extent(self) -> LogExtent:
        last = self._messages[-1].sequence if self._messages else self._first
        return LogExtent(self._first, last, last, last, 7 * DAY)

    async def read(self, first: int, last: int, plan_id: str | None = None) -> AsyncIterator[StoredMessage]:
        for stored in self._messages:
            if first <= stored.sequence <= last:
                yield stored


@pytest.mark.parametrize(
    ("messages", "first", "beginning"),
    [
        ([(3.0, facts.enrol("Kim")), (1.0, facts.connected("SOCK001-a"))], CREATED, CREATED + 10),
        ([(20.0, facts.schedule(0, 60)), (1.0, facts.connected("SOCK001-a"))], CREATED + 10, CREATED + 11),
        ([(20.0, facts.schedule(0, 60))], CREATED + 10, CREATED + 11),
        ([], CREATED + 5, CREATED + 6),
        ([(3.0, facts.enrol("Kim"))], round(NOW * 1000) - 5, round(NOW * 1000) - 5),  # created a moment ago
    ],
)
async def test_a_log_is_whole_from_its_first_message_that_could_not_expire(
    messages: list[tuple[float, Message]], first: int, beginning: int
) -> None:
    projection = Projection()
    log = cast(StatusLog, Log(*messages, first=first))
    await projection.follow(log)
    await projection.follow(log)
    assert projection.beginning == version_of(beginning)


async def test_what_only_a_newer_release_understands_is_kept_or_named() -> None:
    """A fact of a newer format is no damage, and nobody who replays the log decides about its record without it."""
    odd = {"planId": "P001", "examineeId": "E002", "timestamp": facts.at(1), "mood": "calm"}
    messages = [
        StoredMessage("status.plan.P001", sequence, json.dumps(element).encode(), {}, NOW)
        for sequence, element in enumerate(
            [
                {"type": "enrol", "data": odd},
                {"type": "enrol", "data": {**odd, "examineeId": "E003"}, "format": FORMAT + 1},
                {"type": "remark", "data": {"planId": "P001"}},
            ],
            CREATED + 10,
        )
    ]
    log = Log(first=CREATED + 10)
    log._messages = messages
    projection = Projection("P001")
    await projection.follow(cast(StatusLog, log))
    assert (projection.facts, projection.newer, projection.malformed) == (1, 1, 1)
    keys_of = [keys.progress("P001", examinee_id) for examinee_id in ("E002", "E003")] + [keys.plan("P001")]
    assert [projection.goes_beyond(key) for key in keys_of] == [False, True, False]
    history = projection.records[keys_of[0]].history(projection.floor)
    assert [getattr(fact, "mood", None) for _, fact in history.facts] == ["calm"], "a newer release folds it"
    assert history.floor < history.facts[0][0] <= projection.floor
