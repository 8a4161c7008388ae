"""What is read by the pattern of its text, held to what the models make of it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from actors.sessions.examinee_session import stage_of
from protocol.broker.passed_on import PlanEvent, UsualState, usual_events, usual_states
from protocol.broker.stream_codecs import decode_socket
from protocol.messages.codec import MAX_BATCH_MESSAGES, Element, encode, join_batch, parse_json
from protocol.messages.facts import ClientInfo
from protocol.messages.proctor_events import (
    ConnectionEvent,
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeReconnecting,
)
from protocol.messages.session_messages import SessionState
from protocol.messages.views import ConnectionView, ReconnectView

PROCTORS = "socket.plan.P001.proctors"
LOST = ExamineeDisconnected(
    plan_id="P001",
    examinee_id="E001",
    name="김하늘",
    labels={"room": "A", "좌석": "12"},
    socket_id="SOCK001-1f",
    server_id="SOCK001",
    timestamp="2026-12-01T09:00:00.000Z",
    reason="SOCKET_CLOSED",
    close_code=1006,
    version=459799746876439,
)
CONNECTED = ExamineeConnected(
    plan_id="P001",
    examinee_id="E001",
    socket_id="SOCK001-2f",
    server_id="SOCK001",
    timestamp="2026-12-01T09:00:01.000Z",
    client_info=ClientInfo(ip_address="192.0.2.1", browser_info="Mozilla/5.0 (X11)", user_agent="Mozilla/5.0 (X11)"),
    recovered=True,
    recovered_from="SOCKET_CLOSED",
    outage_seconds=1.25,
    differs=["browser"],
    flags=["browser"],
    unstable=True,
    version=459799746876440,
)
TRYING = ExamineeReconnecting(
    plan_id="P001",
    examinee_id="E001",
    attempt=1,
    max_attempts=5,
    next_attempt_at="2026-12-01T09:00:06.000Z",
    timestamp="2026-12-01T09:00:01.000Z",
    version=459799746876441,
)
USUAL: list[ConnectionEvent] = [LOST, CONNECTED, TRYING]

STATE = SessionState(
    plan_id="P001",
    examinee_id="E001",
    socket_id="SOCK001-2f",
    name="김하늘",
    connection=ConnectionView(
        status="CONNECTED",
        socket_id="SOCK001-2f",
        server_id="SOCK001",
        reason="KICKED",
        since="2026-12-01T09:00:01.000Z",
        flags=["browser"],
        version=459799746876440,
    ),
    reconnect=ReconnectView(
        count=1,
        attempt=2,
        max_attempts=5,
        next_attempt_at="2026-12-01T09:00:11.000Z",
        exhausted=True,
        unstable=True,
        away_share=0.25,
    ),
    notices_version=3,
    version=459799746876440,
)
TOKENS = re.compile(rb'"[^"]*"|[0-9.]+|[a-z]+|.')
PIECES = [
    *(b"", b'"', b"{", b"}", b"{}", b"[", b"]", b"[]", b",", b":", b" ", b"\n"),
    *(
        b'"\0"',
        b'"\x7f"',
        b'"\x1f"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc3\xa7"',
        b'"\\"',
        b'"\\\\"',
        b'"\\u0041"',
        b'"\\ud800"',
    ),
    *(b"null", b"true", b"0", b"007", b"-1", b"1.5", b"1e9", b"NaN", b"2.", b".5", b"9007199254740992", b"9" * 10),
    *(b'"2026-12-01T09:00:00.000Z"', b'"2026-02-30T09:00:00.000Z"', b'"9999-12-31T09:00:00.000Z"'),
    *(b'""', b'"E.1"', b'"P002"', b'"1"', b'"CONNECTED"', b'"DISCONNECTED"', b'"examinee_connected"', b'"plan_state"'),
    *(b'"%b"' % (b"a" * length) for length in (33, 65, 97, 101, 257)),
    *(b'"version"', b'"labels"', b'"format"', b'"room"', b'"restated":true,"a"'),
]


@pytest.mark.parametrize("event", USUAL)
def test_what_the_pattern_reads_the_models_read_the_same_way(event: ConnectionEvent) -> None:
    tokens = TOKENS.findall(encode(event))
    for place, piece in itertools.product(range(len(tokens)), PIECES):
        payload = join_batch([b"".join([*tokens[:place], piece, *tokens[place + 1 :]]), encode(LOST)])
        if (usual := usual_events(payload, "P001")) is None:
            continue
        by_models = list(decode_socket(PROCTORS, payload + b"\n", {}))  # the pattern knows no line break
        assert len(usual) == len(by_models) == 2
        for one, other in zip(usual, by_models, strict=True):
            assert isinstance(other, PlanEvent), (one, other)
            assert (one.kind, one.key, one.version, one.happened) == (
                other.kind,
                other.key,
                other.version,
                other.happened,
            )
            assert (one.parsed, one.labels) == (other.parsed, other.labels)
        assert join_batch([one.encoded for one in usual]) == payload


def test_a_state_that_the_pattern_reads_is_what_the_model_would_send() -> None:
    tokens = TOKENS.findall(encode(STATE))
    read = 0
    for place, piece in itertools.product(range(len(tokens)), PIECES):
        payload = join_batch([b"".join([*tokens[:place], piece, *tokens[place + 1 :]]), encode(STATE)])
        if (usual := usual_states(payload)) is None:
            continue
        read += 1
        by_models = list(decode_socket("socket.SOCK001", payload + b"\n", {}))
        assert len(usual) == len(by_models) == 2
        for one, other in zip(usual, by_models, strict=True):
            assert isinstance(other, Element), (one, other)
            state = other.message
            assert isinstance(state, SessionState)
            assert parse_json(one.encoded) == parse_json(encode(state))
            assert one[:-1] == (state.plan_id, state.examinee_id, state.socket_id, state.version)
            assert (state.notices, state.help, stage_of(state)) == ([], None, None), "nothing for the session to note"
        assert join_batch([one.encoded for one in usual]) == payload
    assert read > len(tokens)
    about = {"plan_id": "P001", "examinee_id": "E001", "socket_id": "SOCK001-2f"}
    bare = SessionState(**about, connection=ConnectionView(status="CONNECTED", version=1), version=1)
    for state in (STATE, bare):
        (usual_one,) = decode_socket("socket.SOCK001", encode(state), {})
        assert usual_one == UsualState("P001", "E001", "SOCK001-2f", state.version, encode(state))


@pytest.mark.parametrize("event", USUAL)
def test_the_pattern_knows_what_state_managers_usually_send(event: ConnectionEvent) -> None:
    bare = type(event).model_construct(
        **{
            name: value
            for name, value in event
            if name not in ("name", "labels", "flags", "unstable", "client_info", "close_code", "differs")
        }
    )
    batch = [encode(event), encode(bare)] * (MAX_BATCH_MESSAGES // 2)
    read = decode_socket(PROCTORS, join_batch(batch), {})
    assert [one.encoded for one in read if isinstance(one, PlanEvent) and one.message is None] == batch


@pytest.mark.parametrize(
    "wrong", [{"timestamp": "2026-02-30T09:00:00.000Z"}, {"examinee_id": "E.1"}, {"plan_id": "P002"}, {"version": 0}]
)
def test_what_is_no_event_of_the_plan_is_left_to_the_models(wrong: dict[str, Any]) -> None:
    payload = join_batch([encode(LOST), encode(LOST.model_copy(update=wrong))])
    assert usual_events(payload, "P001") is None
    assert usual_events(join_batch([encode(LOST)] * (MAX_BATCH_MESSAGES + 1)), "P001") is None
