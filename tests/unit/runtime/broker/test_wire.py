"""The plain messages of NATS, read and written without nats-py's tasks: held to nats-py itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from actors.runtime.broker.wire import FallbackParser, Intake, OnArrival, command

DIRECT, OTHER = 7, 8
Seen = tuple[int, bytes, bytes, bytes, bytes] | str


class Receiver:
    """A client of a parser: notes what it is told, in order."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.handlers: dict[bytes, OnArrival] = {b"%d" % DIRECT: lambda _arrival: None}
        self.directly = 0

    def hand_over(self, handler: OnArrival, subject: bytes, reply: bytes, data: bytes, block: bytes) -> None:
        self.directly += 1
        self.seen.append((DIRECT, subject, reply, data, block))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        await asyncio.sleep(0)  # as long as this takes, more may come
        self.seen.append((sid, subject, reply, data, headers or b""))

    async def _process_err(self, text: str) -> None:
        self.seen.append(text)

    async def _process_ping(self) -> None:
        await asyncio.sleep(0)
        self.seen.append("PING")

    async def _process_pong(self) -> None:
        self.seen.append("PONG")

    async def _process_info(self, info: Mapping[str, object]) -> None:
        self.seen.append(f"INFO {info}")


words = st.text("abc.$>*", min_size=1, max_size=6).map(str.encode)
blocks = st.sampled_from([b"NATS/1.0\r\na: b\r\n\r\n", b"NATS/1.0 408 Request Timeout\r\n\r\n", b"NATS/1.0\r\n\r\n"])
payloads = st.one_of(st.binary(max_size=40), st.sampled_from([b"MSG a 7 1\r\n", b"\r\n", b"x" * 5000]))


def written(subject: bytes, sid: int, reply: bytes, block: bytes, payload: bytes, spaces: bytes) -> bytes:
    """A message as the server writes it."""
    sizes = (b"%d" % len(block), b"%d" % (len(block) + len(payload))) if block else (b"%d" % len(payload),)
    line = spaces.join([b"HMSG" if block else b"MSG", subject, b"%d" % sid, *([reply] if reply else []), *sizes])
    return line + b"\r\n" + block + payload + b"\r\n"


messages = st.builds(
    written,
    words,
    st.sampled_from([DIRECT, DIRECT, DIRECT, OTHER]),
    st.one_of(st.just(b""), words),
    st.one_of(st.just(b""), blocks),
    payloads,
    st.sampled_from([b" ", b" ", b"  ", b"\t"]),
)
commands = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"a": 1}\r\n'])


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, as a socket gives them."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


async def read_by_nats_py(pieces: list[bytes]) -> list[Seen]:
    receiver = Receiver()
    parser = Parser(receiver)
    for piece in pieces:
        await parser.parse(piece)
    return receiver.seen


async def read_directly(pieces: list[bytes], at_once: list[bool]) -> Receiver:
    """`at_once`: whether the next piece comes before nats-py's read loop has had its turn."""
    receiver, reader = Receiver(), asyncio.StreamReader()
    parser = FallbackParser(receiver)
    parser.intake = Intake(receiver, reader)

    async def read_loop() -> None:
        while data := await reader.read(32768):
            await parser.parse(data)

    reading = asyncio.create_task(read_loop())
    for place, piece in enumerate(pieces):
        reader.feed_data(piece)
        if not at_once[place % len(at_once)]:
            for _ in range(20):
                await asyncio.sleep(0)
    reader.feed_eof()
    await reading
    return receiver


@given(
    st.lists(st.one_of(messages, messages, messages, commands), max_size=12),
    st.lists(st.integers(0, 20_000), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_the_same_bytes_are_the_same_messages_in_the_same_order_as_for_nats_py(
    stream: list[bytes], places: list[int], at_once: list[bool]
) -> None:
    pieces = cut(b"".join(stream), places)

    async def compare() -> None:
        assert (await read_directly(pieces, at_once)).seen == await read_by_nats_py(pieces)

    asyncio.run(compare())


async def test_messages_of_direct_subscriptions_take_no_task() -> None:
    message = written(b"a.b", DIRECT, b"reply", b"", b"payload", b" ")
    pieces = [b"PONG\r\n", message * 3 + message[:9], message[9:25], message[25:] + b"PING\r\n", message, message]
    receiver = await read_directly(pieces, [False])
    assert (receiver.directly, receiver.seen.count("PING")) == (6, 1)


@pytest.mark.parametrize("wrong", [b"MSG a 7\r\n", b"MSG a 7 -1\r\n\r\n", b"MSG a 7 b c 1\r\n", b"HMSG a 7 x 1\r\n"])
async def test_what_is_no_message_fails_as_it_does_with_nats_py(wrong: bytes) -> None:
    pieces = [b"PONG\r\n", written(b"a", DIRECT, b"", b"", b"1", b" ") + wrong]
    with pytest.raises(ProtocolError):
        await read_by_nats_py(pieces)
    with pytest.raises(ProtocolError):
        await read_directly(pieces, [False])


class Written:
    """The end of a connection: keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.data += data


texts = st.one_of(st.sampled_from(["loss:17", "", " ", "a\r\nb", "  x ", "é", "\x7f"]), st.text(max_size=8))
names = st.one_of(st.sampled_from(["Nats-Msg-Id", "traceparent"]), st.text("a-:. é_", min_size=1, max_size=3))


@given(words.map(bytes.decode), st.binary(max_size=30), st.one_of(st.just(""), texts), st.dictionaries(names, texts))
def test_what_is_published_at_once_is_what_nats_py_would_write(
    subject: str, payload: bytes, reply: str, headers: dict[str, str]
) -> None:
    plain = command(subject, payload, reply, headers, 1000)
    if plain is None:
        return  # nats-py writes it, or refuses it

    async def write() -> bytes:
        client = Client()
        sent: list[bytes] = []

        async def keep(cmd: bytes) -> None:
            sent.append(cmd)

        client.__dict__["_send_command"] = keep
        client.__dict__["_status"] = Client.CONNECTED
        await client.publish(subject, payload, reply, headers or None)
        return b"".join(sent)

    assert asyncio.run(write()) == plain


@pytest.mark.parametrize(
    ("subject", "reply", "name", "value"),
    [
        ("a b", "", "", ""),
        ("", "", "", ""),
        ("a", "b\r\nPUB c 0", "", ""),
        ("a", "", "x", "1\r\ny: 2"),
        ("a", "", "x y", ""),
    ],
)
def test_what_would_be_another_command_is_not_written(subject: str, reply: str, name: str, value: str) -> None:
    assert command("a", b"", "", {"x": "1"}, 1000)
    assert command(subject, b"", reply, {name: value} if name else None, 1000) is None
