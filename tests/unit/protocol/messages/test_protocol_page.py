"""docs/protocol.md: its tables match the code, and its transcript is valid.

A failing test prints the table as it should be.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from actors.runtime.config.sections import SocketSettings
from actors.sessions.frames.reader import FRAMES_AT_ONCE, FRAMES_PER_SECOND, MAX_ERRORS
from actors.sessions.plan_snapshot import ROWS_A_FRAME
from protocol.client import reconnect
from protocol.client.plan_view import ApplyResult, PlanView
from protocol.close_codes import CLOSE_RULES
from protocol.errors import ErrorCode
from protocol.messages.base import Message
from protocol.messages.codec import MAX_BATCH_MESSAGES, Malformed
from protocol.messages.frames import (
    BURST_SECONDS,
    CLIENT_FRAMES,
    HELLO_BYTES,
    HELLO_FRAMES,
    HELLO_SECONDS,
    MAX_FRAME_BYTES,
    REQUEST_BYTES,
    SERVER_FRAMES,
    SUBPROTOCOL,
    Welcome,
)
from protocol.rules.action_ids import MAX_ACTIONS
from protocol.spec.asyncapi import asyncapi, frames_of
from tests.support.specs import AsyncApi

PAGE = Path(__file__).parents[4] / "docs" / "protocol.md"

LINE = re.compile(r"^(examinee|proctor) (→|←) (.+)$", re.MULTILINE)


def close_codes() -> str:
    rows = [
        f"| {rule.code:d} | {rule.name} | {'yes' if rule.reconnect else 'no'} | {rule.rule} |"
        for rule in CLOSE_RULES.values()
    ]
    return "\n".join(["| code | name | connect again | what to do |", "|---|---|---|---|", *rows])


def frames_table() -> str:
    """Return the table of all frames: the roles that send or receive each, and its fields (`[optional]`)."""
    spec = asyncapi("0")["components"]["schemas"]
    (from_examinee, to_examinee), (from_proctor, to_proctor) = frames_of("examinee"), frames_of("proctor")
    rows = ["| frame | examinee | proctor | `data` |", "|---|---|---|---|"]
    for group, codec, examinee, proctor, arrow in (
        ("client", CLIENT_FRAMES, from_examinee, from_proctor, "→"),
        ("server", SERVER_FRAMES, to_examinee, to_proctor, "←"),
    ):
        for model in codec.models.values():
            marks = [arrow if model in those else "" for those in (examinee, proctor)]
            data = spec[f"{group}.{model.type}"]["properties"]["data"]["$ref"].rpartition("/")[2]
            rows.append(f"| `{model.type}` | {marks[0]} | {marks[1]} | {_fields(spec[data])} |")
    return "\n".join(rows)


def _fields(schema: dict[str, object]) -> str:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    return " ".join(name if name in required else f"[{name}]" for name in properties)


def error_codes() -> str:
    return ", ".join(f"`{code}`" for code in ErrorCode)


def numbers() -> str:
    socket = SocketSettings()
    buffer, rate, frames = socket.max_buffer_bytes, socket.bytes_per_second, socket.frames_per_second
    at_once, frames_at_once = rate * BURST_SECONDS, frames * BURST_SECONDS
    rows = {
        "subprotocol": f"`{SUBPROTOCOL}`",
        "`hello` within": f"{HELLO_SECONDS:g} s",
        "the request of the handshake, at most": f"{REQUEST_BYTES // 1024} KiB",
        "before `hello`, that included, at most": f"{HELLO_BYTES // 1024} KiB, "
        f"each frame counts as {HELLO_BYTES // HELLO_FRAMES // 1024} KiB more",
        "a client's bytes that are read": f"{rate // 1024:g} KiB a second, {at_once // 1024:g} KiB at once; "
        "the rest waits",
        "the same in frames, pings and fragments among them": f"{frames:g} a second, {frames_at_once:g} at once",
        "a frame of a client, at most": f"{MAX_FRAME_BYTES // 1024} KiB",
        "messages in an array, at most": MAX_BATCH_MESSAGES,
        "messages of a client that are read": f"{FRAMES_PER_SECOND} a second, {FRAMES_AT_ONCE} at once; the rest waits",
        "frames that are none, before 4505": MAX_ERRORS,
        "unread bytes before the connection is dropped": f"{buffer // 1024 // 1024} MiB",
        "rows in one `plan_snapshot`, at most": ROWS_A_FRAME,
        "actions that are remembered for each examinee": MAX_ACTIONS,
        "a connection counts as stable after": f"{reconnect.STABLE_SECONDS:g} s",
        "a connection counts as dead after": f"{reconnect.SILENT_INTERVALS:g} × `heartbeatSeconds` without a byte",
        "spread of a migration": f"0 to {reconnect.MIGRATE_SPREAD_SECONDS:g} s",
        '"later" (503, 429, 1013) in a row, at most': reconnect.MAX_POSTPONED,
        "ladder before the first `welcome`": f"{reconnect.DEFAULT_POLICY.max_attempts} attempts; "
        + ", ".join(f"{step:g}" for step in reconnect.DEFAULT_POLICY.backoff_seconds)
        + f" s; jitter {reconnect.DEFAULT_POLICY.jitter:g}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


@pytest.mark.parametrize(
    ("name", "table"),
    [("close codes", close_codes), ("frames", frames_table), ("error codes", error_codes), ("numbers", numbers)],
)
def test_a_table_of_the_page_matches_the_code(name: str, table: object) -> None:
    assert callable(table)
    written = re.search(rf"<!-- {name} -->\n(.+?)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert written is not None
    assert written[1] == table(), f"docs/protocol.md, {name}, should be:\n{table()}"


def transcript() -> list[tuple[str, str, str]]:
    return [(role, "send" if arrow == "→" else "receive", text) for role, arrow, text in LINE.findall(PAGE.read_text())]


def test_every_frame_of_the_transcript_is_valid() -> None:
    spec = AsyncApi(asyncapi("0"))
    frames = transcript()
    assert len(frames) > 20
    for role, action, text in frames:
        spec.frame(role, action, text)
        codec = CLIENT_FRAMES if action == "send" else SERVER_FRAMES
        assert not any(isinstance(frame, Malformed) for frame in codec.decode_batch(text))


def test_the_transcript_ends_in_the_state_that_the_page_describes() -> None:
    """The proctor's frames, applied by the rules that the page describes, end as the page says."""
    received: list[Message] = []
    for role, action, text in transcript():
        if (role, action) == ("proctor", "receive"):
            received += [frame for frame in SERVER_FRAMES.decode_batch(text) if not isinstance(frame, Malformed)]
    assert isinstance(received[0], Welcome)
    view = PlanView()
    results = [view.apply(frame) for frame in received]
    assert set(results) == {ApplyResult.APPLIED, ApplyResult.OTHER}
    examinee = view.examinees["E001"]
    assert (examinee.status, examinee.mobile_sync, examinee.notices, examinee.unconfirmed) == (
        "CONNECTED",
        "COMPLETED",
        1,
        [],
    )
    assert view.examinees["E002"].status == "NEVER"
    once = shown(view)
    for frame in [*reversed(received), *received]:  # in any order, any number of times
        view.apply(frame)
    assert shown(view) == once


def shown(view: PlanView) -> dict[str, dict[str, object]]:
    """Return the fields of all examinees, without those that record where a value came from."""
    return {
        name: {field: value for field, value in asdict(examinee).items() if not field.endswith("_from_event")}
        for name, examinee in view.examinees.items()
    }
