"""Times that begin when the log takes a message, read alike by all who read the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.broker.consumers.consumer import AckSubject
from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.status_log import facts_of
from protocol.broker import subjects
from protocol.log.entries import decode_status, read_entries
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.facts import MobileSyncExtend, MobileSyncWait
from protocol.records.placement import VersionedMessage
from protocol.times import format_time, parse_time

LOGGED = 1_796_000_000.25
PLAN = subjects.status_plan("P001")


def wait(began: float, seconds: float, by_log_time: bool | None = True) -> MobileSyncWait:
    return MobileSyncWait(
        plan_id="P001",
        examinee_id="E001",
        timestamp=format_time(began),
        deadline=format_time(began + seconds),
        by_log_time=by_log_time,
    )


def only(decoded: list[object]) -> object:
    (message,) = decoded
    return message


@pytest.mark.parametrize("ahead", [7200.0, -150.0, 90.0, 0.0, -0.004])
def test_a_stage_begins_at_its_time_in_the_log_and_lasts_as_requested(ahead: float) -> None:
    read = only([*decode_status(PLAN, encode(wait(LOGGED + ahead, 120.0)), LOGGED)])
    assert isinstance(read, MobileSyncWait)
    assert (read.timestamp, read.deadline) == (format_time(LOGGED), format_time(LOGGED + 120))


def test_an_extension_counts_from_its_time_in_the_log() -> None:
    fact = MobileSyncExtend(
        plan_id="P001",
        examinee_id="E001",
        by="kim",
        action_id="a1",
        seconds=60,
        timestamp=format_time(LOGGED - 150),
        by_log_time=True,
    )
    read = only([*decode_status(PLAN, encode(fact), LOGGED)])
    assert isinstance(read, MobileSyncExtend)
    assert (read.timestamp, read.seconds) == (format_time(LOGGED), 60)


@pytest.mark.parametrize("by_log_time", [None, False])
def test_facts_of_an_older_release_keep_their_times(by_log_time: bool | None) -> None:
    message = wait(LOGGED - 150, 120.0, by_log_time)
    assert only([*decode_status(PLAN, encode(message), LOGGED)]) == message


def test_all_readers_of_the_log_get_the_same_times() -> None:
    payload = encode(wait(LOGGED - 150, 120.0))
    stored = StoredMessage(PLAN, 7, payload, {}, LOGGED)
    (item,) = facts_of(stored)
    (entry,) = read_entries(PLAN, 7, LOGGED, payload)
    assert isinstance(item, VersionedMessage)
    read: list[Message | object] = [item.message, entry.fact, only([*decode_status(PLAN, payload, LOGGED)])]
    assert read[0] == read[1] == read[2]


@given(st.integers(1_700_000_000_000_000_000, 2_000_000_000_000_000_000), st.booleans())
def test_a_delivery_and_a_read_message_have_exactly_the_same_time(nanoseconds: int, with_domain: bool) -> None:
    old = f"$JS.ACK.STATUS.state-manager.1.7.7.{nanoseconds}.0"
    new = f"$JS.ACK.hub.ACCOUNT.STATUS.state-manager.1.7.7.{nanoseconds}.0.x1"
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
    assert AckSubject.of(new if with_domain else old).stored_at == parse_time(text)
