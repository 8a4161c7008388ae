"""The opening handshake: what is read and answered without the library is as the library does it."""

from __future__ import annotations

import random
import re

from websockets.http11 import Request
from websockets.server import ServerProtocol

from actors.socket_server.handshake.opening import answer_request, read_request
from protocol.messages.frames import SUBPROTOCOL

CASES = 4000

PLAIN = [
    b"Host: 127.0.0.1:9000",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]
OTHERS = [
    *(b"Sec-WebSocket-Protocol: examwire.v1", b"sec-websocket-protocol:other,examwire.v1", b"Accept: */*"),
    *(b"Sec-WebSocket-Protocol: examwire.v1, examwire.token.aA0.b-_.c", b"Sec-WebSocket-Protocol: ,,;"),
    *(b"Sec-WebSocket-Protocol: examwire.v1 , a", b"Sec-WebSocket-Protocol: examwire.v10", b"Sec-WebSocket-Protocol:"),
    *(b"Connection: keep-alive, Upgrade", b"Connection: close", b"Connection: \xff", b"Upgrade: h2c", b"Upgrade: ,;="),
    *(b"Upgrade:  WebSocket  ", b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
    *(b"Sec-WebSocket-Key: \xff", b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Version: 013", b"Origin: http://[\xe9"),
    *(b"User-Agent: \ttabs\t", b"User-Agent:", b"User-Agent: a  b ", b"no colon", b" folded: line", b"Na me: value"),
    *(b": value", b"Nul: a\x00b", b"Content-Length: 7", b"content-length: 0", b"Transfer-Encoding: chunked"),
    *(b"TRANSFER-ENCODING:", b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: ;;"),
    *(
        b"Authorization: Bearer " + b"x" * 5000,
        b"Long: " + b"y" * 9000,
        b"a\rb: c",
        b"a: b\rc",
        b"a: b\nc",
        b"\n",
        b"_: 1",
    ),
]
FIRST = [
    *(b"GET /v1/connect HTTP/1.1", b"GET /v1/connect?x=1 HTTP/1.0", b"POST / HTTP/1.1", b"GET  HTTP/1.1", b"GET /"),
    *(b"get / HTTP/1.1", b"GET http://x/ HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /a b HTTP/1.1", b"GET / HTTP/2.0"),
    *(b"GET /" + b"z" * 5000 + b" HTTP/1.1", b"GET /" + b"z" * 9000 + b" HTTP/1.1", b"", b"\x16\x03\x01"),
]


def head_of(rng: random.Random) -> bytes:
    """A request, plain or nearly so, or none."""
    lines = [*PLAIN]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4, 30))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(OTHERS))
    if rng.random() < 0.3:
        del lines[rng.randrange(len(lines))]
    if rng.random() < 0.02:
        lines += [b"x-%d: 1" % number for number in range(rng.choice((90, 95, 100, 125, 130)))]
    first = FIRST[0] if rng.random() < 0.8 else rng.choice(FIRST)
    head = bytearray(b"\r\n".join([first, *lines]) + b"\r\n\r\n")
    if rng.random() < 0.2:
        head[rng.randrange(len(head) - 4)] = rng.randrange(256)
    return bytes(head[: head.index(b"\r\n\r\n") + 4])


def by_library(head: bytes) -> tuple[Request | bytes, bytes]:
    protocol = ServerProtocol(
        select_subprotocol=lambda _, offered: SUBPROTOCOL if SUBPROTOCOL in offered else None  # type: ignore[arg-type,return-value]
    )
    protocol.receive_data(head)
    events = protocol.events_received()
    if not events:
        return b"".join(protocol.data_to_send()), b""
    assert isinstance(events[0], Request)
    request = Request(events[0].path, events[0].headers, events[0].method, events[0].protocol)
    return request, protocol.accept(events[0]).serialize()


def undated(answer: bytes) -> bytes:
    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", answer) or not answer
    return re.sub(rb"\r\nDate: [^\r]*", b"", answer)


def test_any_request_is_read_and_answered_as_by_the_library() -> None:
    requests = accepted = 0
    for seed in range(CASES):
        head = head_of(random.Random(seed))
        request, answer = by_library(head)
        ours = read_request(head)
        if isinstance(request, bytes) or isinstance(ours, bytes):
            assert ours == request, (seed, head)
            continue
        assert (ours.method, ours.path, ours.protocol) == (request.method, request.path, request.protocol)
        for name in {name for name, _ in request.headers.raw_items()}:
            assert ours.headers.get_all(name) == request.headers.get_all(name), (seed, head)
        assert len(ours.headers.lines()) == len(list(request.headers.raw_items()))
        our_answer = answer_request(ours)
        assert undated(our_answer.content) == undated(answer), (seed, head)
        assert our_answer.accepted == answer.startswith(b"HTTP/1.1 101 ")
        requests += 1
        accepted += our_answer.accepted
    assert CASES / 10 < accepted < requests - CASES / 10
    assert requests < CASES - CASES / 10
