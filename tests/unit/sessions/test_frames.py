"""Frames of clients: what is read without the library is read as the library reads it, whatever comes, however cut."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from websockets.asyncio.messages import Assembler
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from actors.sessions.frames import endpoint
from actors.sessions.frames.endpoint import Endpoint
from actors.sessions.frames.plain import read_plain, text_frame
from protocol.messages.frames import MAX_FRAME_BYTES

CASES = 3000
SIZES = (0, 1, 5, 125, 126, 127, 300, 1000)
LARGE_SIZES = (65_535, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1)

Outcome = dict[str, Any]


class Transport:
    """Keeps what is written. An EOF is `None`."""

    def __init__(self) -> None:
        self.written: list[bytes | None] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_eof(self) -> None:
        self.written.append(None)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        raise AssertionError("nobody waits so long")


class Ours(Endpoint):
    def __init__(self, transport: Transport) -> None:
        super().__init__(cast(asyncio.Transport, transport))
        self.frames = 0
        self.messages: list[bytes | None] = []

    def data_received(self, data: bytes) -> None:
        self._read(data)

    def _heard(self, frames: int) -> None:
        self.frames += frames

    def _deliver(self, message: bytes | None) -> None:
        self.messages.append(message)


async def ours(chunks: list[bytes]) -> Outcome:
    transport = Transport()
    server = Ours(transport)
    for chunk in chunks:
        server.data_received(chunk)
    is_open = server.is_open
    server.connection_lost(None)
    return {
        "messages": server.messages,
        "frames": server.frames,
        "written": joined(transport.written),
        "open": is_open,
        "sent": server.sent_code,
        "first": server.first_close_code(),
    }


async def of_library(data: bytes) -> Outcome:
    """What the library makes of it alone: its protocol, and the part of its connections that puts messages together."""
    protocol, assembler = Protocol(SERVER, max_size=MAX_FRAME_BYTES), Assembler()
    protocol.receive_data(data)
    frames = [event for event in protocol.events_received() if isinstance(event, Frame)]
    for frame in frames:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            assembler.put(frame)
    is_open = protocol.state.name == "OPEN"
    written = protocol.data_to_send()
    protocol.receive_eof()
    assembler.close()
    messages: list[bytes | None] = []
    while True:
        binary = bool(assembler.frames.queue) and assembler.frames.queue[0].opcode is Opcode.BINARY
        try:
            message = await assembler.get(decode=False)
        except EOFError:
            break
        messages.append(None if binary else message)
    sent, received = protocol.close_sent, protocol.close_rcvd
    first = received if protocol.close_rcvd_then_sent is not False and received is not None else sent
    return {
        "messages": messages,
        "frames": len(frames),
        "written": joined([data or None for data in written]),
        "open": is_open,
        "sent": sent and sent.code,
        "first": first.code if first is not None else CloseCode.ABNORMAL_CLOSURE,
    }


def joined(written: list[bytes | None]) -> list[bytes]:
    """The bytes before each EOF."""
    parts = [b""]
    for data in written:
        if data is None:
            parts.append(b"")
        else:
            parts[-1] += data
    return parts


def masked(first: int, payload: bytes, rng: random.Random, length_bytes: int | None = None) -> bytes:
    """A frame of a client, with its length in the shortest form or in `length_bytes`."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    head = {0: size & 127, 2: 126, 8: 127}[length_bytes]
    mask = rng.randbytes(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes((first, 0x80 | head)) + size.to_bytes(8, "big")[8 - length_bytes :] + mask + body


def client_bytes(rng: random.Random) -> bytes:
    """Some frames of a client, most of them plain."""
    text = rng.choice(("a", "한", "{}")).encode()

    def payload(size: int) -> bytes:
        return (text * size)[:size]

    size = rng.choice(LARGE_SIZES if rng.random() < 0.02 else SIZES)
    small = rng.choice((0, 3, 125))
    close = rng.choice(
        (b"", b"\x03", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0", b"\x00\x01", b"\x03\xee", b"\x03\xe8\xff")
    )
    kinds: list[tuple[int, Callable[[], bytes]]] = [
        (12, lambda: masked(0x81, payload(size), rng)),
        (6, lambda: masked(rng.choice((0x89, 0x8A)), payload(small), rng)),
        (2, lambda: masked(0x01, payload(small), rng) + masked(0x89, b"", rng) + masked(0x80, payload(small), rng)),
        (1, lambda: masked(rng.choice((0x00, 0x80, 0x01, 0x02)), payload(small), rng)),
        (1, lambda: masked(0x82, payload(small), rng)),
        (1, lambda: masked(0x81, payload(small), rng, rng.choice((2, 8)))),
        (1, lambda: masked(0x88, close, rng)),
        (1, lambda: masked(0x88, payload(126), rng)),
        (1, lambda: masked(rng.choice((0x89, 0x8A)), payload(small), rng, rng.choice((2, 8)))),
        (1, lambda: masked(rng.choice((0x09, 0xC1, 0xA1, 0x91, 0x83, 0x8B, 0x0A)), payload(small), rng)),
        (1, lambda: text_frame(payload(small))),
        (1, lambda: b"\x81\xff" + rng.randbytes(8)),
        (1, lambda: rng.randbytes(rng.randrange(1, 12))),
    ]
    weights, makers = zip(*kinds, strict=True)
    return b"".join(make() for make in rng.choices(makers, weights, k=rng.randrange(1, 8)))


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """The data in parts: as a whole, byte by byte, or anyhow."""
    if len(data) < 500 and rng.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


async def test_any_bytes_cut_anywhere_are_read_as_by_the_library() -> None:
    plain = ended = 0
    for seed in range(CASES):
        rng = random.Random(seed)
        data = client_bytes(rng)
        chunks = cut(data, rng)
        expected = await of_library(data)
        assert await ours(chunks) == expected, (seed, [chunk[:40] for chunk in chunks])
        plain += read_plain(data).only
        ended += not expected["open"]
    assert plain > CASES / 10
    assert ended > CASES / 10


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 70_000])
def test_a_text_of_any_size_is_read_by_a_client(size: int) -> None:
    client = Protocol(CLIENT)
    client.receive_data(text_frame(b"x" * size))
    (frame,) = client.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, b"x" * size, True)


async def test_a_message_in_too_many_fragments_ends_the_connection() -> None:
    rng = random.Random(1)
    fragments = masked(0x01, b"", rng) + masked(0x00, b"", rng) * 5000
    assert (await ours([fragments]))["sent"] == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize(
    "first", [masked(0x88, b"\x03\xe8", random.Random(1)), b"\xff\xff"], ids=["closes", "breaks it"]
)
async def test_a_client_that_closes_or_breaks_the_protocol_and_stays_is_dropped(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CLOSE_SECONDS", 0.01)
    dropped = asyncio.Event()
    monkeypatch.setattr(Transport, "abort", lambda _: dropped.set())
    Ours(Transport()).data_received(first)
    async with asyncio.timeout(10):
        await dropped.wait()
