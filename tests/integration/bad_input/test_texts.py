"""People's words at each door, and on the terminals of those who read them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.web_server.server import WebServer
from protocol.broker import subjects
from protocol.messages.codec import encode
from protocol.messages.facts import ClientInfo, ConnectionStatus, ConnectionStatusCode, Enrol, Notice, Remove
from protocol.records import keys
from protocol.times import format_time
from tests.integration.bad_input.support import Neighbours
from tests.integration.support.clients.phones import picture, upload_path
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually

NOTIFY = '{"type":"notify","data":{"examineeId":"E001","requestId":"%s","text":"%s"}}'
REMOVE = '{"type":"remove","data":{"examineeId":"E404","requestId":"%s","reason":"%s"}}'
SAID = subjects.status_plan("P001", subjects.socket_origin("SOCK001"))
HIDING = "a\u202eb\u2066c\u200b\u0000d\u001b[31m\u009be\u2028f"
FORGED = "hello\n2026-11-30 09:00:00.000  E002  lost: PING_TIMEOUT\r\x1b[2J\u202e\u200bend"


async def test_a_lone_surrogate_is_refused_naming_the_request(system: System, neighbours: Neighbours) -> None:
    proctor, examinee = await system.proctor(name="kim"), await system.examinee("E001")
    for number, (frame, field) in enumerate(
        [
            (NOTIFY % ("r0", "look \\ud83d"), "data.text"),
            (NOTIFY % ("r1", "\\udc00\\ud800"), "data.text"),
            (REMOVE % ("r2", "\\uD800"), "data.reason"),
            ('{"data":{"text":"x","examineeId":"\\ud800","requestId":"r3"},"type":"notify"}', "data.examineeId"),
        ]
    ):
        await proctor.websocket.send(frame)
        error = (await proctor.expect("error", requestId=f"r{number}"))["data"]
        assert (error["code"], error["field"]) == ("INVALID_FIELD", field)
        assert error["requestType"] in ("notify", "remove")
    # Its neighbours in the same frame count; where the name itself is half a character, it is not repeated.
    before = len(proctor.frames)
    frames = [
        NOTIFY % ("r4", "\\ud800"),
        '{"type":"heartbeat"}',
        NOTIFY % ("\\ud800", "hello"),
        NOTIFY % ("r5", "well"),
    ]
    await proctor.websocket.send(f"[{','.join(frames)}]")
    await proctor.expect("error", requestId="r4")
    await proctor.expect("accepted", requestId="r5")
    errors = [frame["data"] for frame in proctor.frames[before:] if frame["type"] == "error"]
    assert [(error["field"], error.get("requestId")) for error in errors] == [
        ("data.text", "r4"),
        ("data.requestId", None),
    ]
    assert "heartbeat" in [frame["type"] for frame in proctor.frames[before:]]
    assert (await examinee.expect("notice", actionId="r5"))["data"]["text"] == "well"


async def test_invisible_characters_are_removed_and_an_empty_message_is_refused(
    system: System, neighbours: Neighbours, bus: Bus
) -> None:
    proctor, examinee = await system.proctor(name="kim"), await system.examinee("E001")
    await proctor.say("notify", examineeId="E001", requestId="n1", text=HIDING)
    notice = await examinee.expect("notice", actionId="n1")
    assert notice["data"]["text"] == "abcd[31me\nf"
    visible_text = "두 줄로\n쓴 글 👩‍👩‍👧 می‌خواهم \u200fABC\u200e"
    await proctor.say("notify", examineeId="E001", requestId="n2", text=visible_text)
    assert (await examinee.expect("notice", actionId="n2"))["data"]["text"] == visible_text
    for number, text in enumerate(["\u200b\u2060", "\u202e\u202c", "\x00", " \n ", "\u3164", ""]):
        await proctor.say("notify", examineeId="E001", requestId=f"e{number}", text=text)
        error = await proctor.expect("error", requestId=f"e{number}")
        assert (error["data"]["code"], error["data"]["field"]) == ("INVALID_FIELD", "data.text")
    for kind in ("notify", "readmit", "remove", "extend_mobile_sync"):
        before = len(proctor.frames)
        await proctor.say(kind, examineeId="E001", requestId="a\nb\u202e", text="x", seconds=60)
        error = await proctor.expect("error", after=before)
        assert (error["data"]["code"], error["data"]["field"]) == ("INVALID_FIELD", "data.requestId")
    await system.examinee("E009")
    await proctor.say("remove", examineeId="E009", requestId="m1", reason=HIDING)
    await proctor.expect("accepted", requestId="m1")

    async def removed() -> bool:
        return (await system.progress("E009")).get("removed") == "1"

    await eventually(removed, "E009 removed")
    stored = await bus.last_message("STATUS", subjects.status_plan("P001", subjects.people_origin("SOCK001")))
    assert stored is not None
    assert json.loads(stored.payload)["data"]["reason"] == "abcd[31me f"


@asynccontextmanager
async def upgraded(url: str, agent: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket whose handshake says `agent`, whatever bytes these are."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16))
    writer.write(
        b"GET /v1/connect HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: examwire.v1\r\nUser-Agent: %s\r\n\r\n" % (parts.netloc.encode(), key, agent)
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        yield reader, writer
    finally:
        writer.close()


def masked_frame(text: str) -> bytes:
    payload = text.encode()
    return b"\x81" + bytes([0x80 | 126]) + len(payload).to_bytes(2, "big") + b"\x00\x00\x00\x00" + payload


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("브라우저/1.0 \u202e".encode(), "브라우저/1.0 "),
        (b"Browser \xff\xfe\xed\xa0\x80 1", "Browser \ufffd\ufffd\ufffd\ufffd\ufffd 1"),
        (b"Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"),
    ],
)
async def test_any_user_agent_of_a_browser_is_accepted(
    system: System, neighbours: Neighbours, bus: Bus, agent: bytes, shown: str
) -> None:
    hello = {"token": system.token("examinee", "E007"), "clientId": "browser-7", "connectionNo": 1}
    async with upgraded(system.server("SOCK001").url, agent) as (_, writer):
        writer.write(masked_frame(json.dumps({"type": "hello", "data": hello})))
        await neighbours.proctor.expect("examinee_connected", examineeId="E007")
        stored = await bus.last_message("STATUS", SAID)
        assert stored is not None
        info = json.loads(stored.payload)["data"]["clientInfo"]
        assert info["browserInfo"].strip() == info["userAgent"].strip() == shown.strip()


async def test_any_browser_name_in_hello_is_accepted(system: System, neighbours: Neighbours, bus: Bus) -> None:
    client = await system.raw()
    token = system.token("examinee", "E007")
    await client.say(
        "hello", token=token, clientId="c", connectionNo=1, clientInfo={"browserInfo": "Fire\u0000fox\n\u202e 1"}
    )
    await client.expect("session_state")
    stored = await bus.last_message("STATUS", SAID)
    assert stored is not None
    assert json.loads(stored.payload)["data"]["clientInfo"]["browserInfo"] == "Firefox  1"


async def test_any_device_name_of_a_phone_is_accepted(system: System, neighbours: Neighbours) -> None:
    await system.start("web-server", lambda bus: WebServer(system.settings, bus, system.store))
    server = system.actors["web-server"]
    assert isinstance(server, WebServer)
    await system.examinee("E001")
    path = upload_path(model="Pho\x00ne\u202e\n12", osVersion="\u200b안드로이드 15\x1b[2J")
    bearer = {"Authorization": f"Bearer {system.token('mobile', 'E001')}"}
    async with httpx.AsyncClient(base_url=server.url) as http:
        stored = await http.put(path, content=picture(), headers=bearer)
        assert stored.status_code == 201, stored.text
        device = stored.json()["deviceInfo"]
        assert device == {"model": "Phone 12", "osVersion": "안드로이드 15[2J"}
        raw = path.replace("model=", "model=%ED%A0%80%FF").replace("E001", "E002")
        bearer = {"Authorization": f"Bearer {system.token('mobile', 'E002')}"}
        assert (await http.put(raw, content=picture(), headers=bearer)).status_code == 201

    async def recorded() -> bool:
        entries = await system.store.entries(keys.mobile_sync("P001", "E002"))
        return "\ufffd" in entries.get("deviceInfo", "")

    await eventually(recorded, "the picture")


async def test_a_roster_is_cleaned_or_refused_by_its_line(
    system: System, neighbours: Neighbours, invoke: Invoke, tmp_path: Path
) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text("examineeId,name\nE001,\u2068김하나\u2069\nE002,\u200b\u202e\nE003,a\x00b\n", encoding="utf-8")
    refused = await invoke("plans", "create", "P001", "--roster", str(roster))
    assert refused.exit_code != 0
    lines = refused.stderr.splitlines()
    assert len(lines) == 3, lines
    assert "line 3, column name" in lines[1]
    assert "visible character" in lines[1]
    assert "line 4, column name" in lines[2]
    assert all(letter.isprintable() for line in lines for letter in line)
    roster.write_text("examineeId,name\nE001,\u2068김하나\u2069\nE002,O\u200bne \u200fمرحبا\n", encoding="utf-8")
    result = await invoke("plans", "create", "P001", "--roster", str(roster), "-o", "json")
    assert result.exit_code == 0, result.stderr
    for examinee_id, name in (("E001", "김하나"), ("E002", "One \u200fمرحبا")):
        await neighbours.proctor.expect("examinee_enrolled", examineeId=examinee_id, name=name)


# -- what is in the log all the same, of an older release or of a server that was taken over ------------------


async def put_into_the_log(bus: Bus) -> None:
    now = format_time(bus.clock.now())
    ids = {"plan_id": "P001", "examinee_id": "E001", "timestamp": now}
    connected = ConnectionStatus(
        **ids,
        socket_id="SOCK001-x",
        status=ConnectionStatusCode.CONNECTED,
        client_info=ClientInfo(ip_address=FORGED, browser_info=FORGED),
        server_id="SOCK001",
    )
    for fact in (
        Enrol(**ids, name="Kim\u202e\u009b31m", by=FORGED),
        connected,
        Notice(**ids, action_id="n\n1", text=FORGED, by=FORGED),
        Remove(**ids, action_id="m1", by=FORGED, reason=FORGED),
    ):
        await bus.publish(Outgoing(subjects.status_plan("P001"), encode(fact)))
    broken = b'{"type":"notice","data":{"text":"%s"}}' % FORGED.encode("unicode_escape").replace(b"\\x", b"\\u00")
    await bus.publish(Outgoing(subjects.status_plan("P001"), broken))


def harmless(text: str) -> None:
    assert all(letter.isprintable() or letter == "\n" for letter in text), ascii(text)
    assert not [line for line in text.splitlines() if line.startswith("2026-11-30 09:00:00.000")]


async def test_no_command_prints_terminal_commands_or_forged_lines(system: System, bus: Bus, invoke: Invoke) -> None:
    await put_into_the_log(bus)

    async def worked_off() -> bool:
        return (await system.progress("E001")).get("removed") == "1"

    await eventually(worked_off, "the facts in Redis")
    outputs = {}
    for command in (
        ["plans", "timeline", "P001", "--all"],
        ["plans", "timeline", "P001", "E001", "--all", "-o", "json"],
        ["plans", "timeline", "P001", "E001", "--at", "2030-01-01T00:00:00Z"],
        ["plans", "show", "P001"],
        ["plans", "roster", "P001"],
        ["plans", "report", "P001"],
        ["plans", "report", "P001", "--csv"],
        ["examinees", "show", "P001", "E001"],
        ["examinees", "show", "P001", "E001", "-o", "json"],
        ["dead-letters", "ls"],
        ["dead-letters", "show", "1"],
        ["state", "verify"],
        ["sessions", "ls"],
        ["doctor"],
        ["plans", "show", FORGED],
        ["actors", "show", f"socket.{FORGED}"],
    ):
        result = await invoke(*command)
        harmless(result.stdout.removeprefix("\ufeff").replace("\r\n", "\n") + result.stderr)
        outputs[" ".join(command)] = result.stdout
    assert r"hello\n2026-11-30" in outputs["plans timeline P001 --all"]
    assert r"\x1b[2J\u202e\u200bend" in outputs["plans timeline P001 --all"]
    timeline = [json.loads(outputs["plans timeline P001 E001 --all -o json"])][0]
    assert FORGED in [entry.get("notice") for entry in timeline]


async def test_a_followed_timeline_prints_no_forged_lines(system: System, bus: Bus, variables: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "plans", "timeline", "P001", "--follow"),
        stdout=PIPE,
        env={**os.environ, **variables, "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            await process.stdout.readline()  # it reads
            await put_into_the_log(bus)
            output = ""
            while "removed by" not in output:
                output += (await process.stdout.readline()).decode()
    finally:
        process.terminate()
        await process.wait()
    harmless(output)
    assert r"notice by hello\n2026-11-30" in output
