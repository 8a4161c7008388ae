"""A WebSocket client on a bare TCP socket with a tiny receive buffer, which reads only as much as a test wants read."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

PIECE = 8 * 1024


class SlowReader:
    """Says hello and reads at `read`'s pace; `frames` are those that have arrived whole. It answers no ping."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        self._socket.setblocking(False)
        self._port = port
        self._bytes = bytearray()
        self.frames: list[dict[str, Any]] = []
        self.ended = False

    async def hello(self, token: str) -> None:
        """Connect and say hello; nothing is read of what follows."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(
            self._socket,
            b"GET /v1/connect HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(self._socket, 1)
        assert answer.startswith(b"HTTP/1.1 101")
        await self.say("hello", token=token, clientId="slow", connectionNo=1)

    async def say(self, kind: str, **data: Any) -> None:
        await self.send(json.dumps({"type": kind, "data": data}))

    async def send(self, text: str) -> None:
        body = text.encode()
        length = struct.pack("!BH", 0x80 | 126, len(body)) if len(body) > 125 else bytes([0x80 | len(body)])
        frame = b"\x81" + length + b"\x00\x00\x00\x00" + body  # masked with zeros
        await asyncio.get_running_loop().sock_sendall(self._socket, frame)

    async def read(self) -> int:
        """Read a piece; the bytes that came, 0 at the end of the connection."""
        try:
            piece = await asyncio.get_running_loop().sock_recv(self._socket, PIECE)
        except ConnectionResetError:
            piece = b""
        self.ended = not piece
        self._bytes += piece
        while (frame := self._take_frame()) is not None:
            opcode, body = frame
            if opcode == 1:
                parsed = json.loads(body)
                self.frames += parsed if isinstance(parsed, list) else [parsed]
        return len(piece)

    def _take_frame(self) -> tuple[int, bytes] | None:
        if len(self._bytes) < 10:
            return None
        size, head = self._bytes[1], 2
        if size == 126:
            (size,), head = struct.unpack("!H", self._bytes[2:4]), 4
        elif size == 127:
            (size,), head = struct.unpack("!Q", self._bytes[2:10]), 10
        if len(self._bytes) < head + size:
            return None
        frame = self._bytes[0] & 0x0F, bytes(self._bytes[head : head + size])
        del self._bytes[: head + size]
        return frame

    def close(self) -> None:
        self._socket.close()
