"""Many clients with valid tokens send all that they may at once: the others are served in between."""

from __future__ import annotations

import asyncio
import gc
import json
import struct
import time
from contextlib import suppress

import pytest

from tests.integration.support.system import System

CLIENTS = 100
BUSY_SECONDS = 0.1
"""Of the processor, in one turn of the loop: what a bystander waits for at most."""


def masked(opcode: int, payload: bytes) -> bytes:
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([0x80 | opcode]) + length + b"\x00\x00\x00\x00" + payload


MANY_KEYS = b"{" + b",".join(b'"%d":1' % number for number in range(5500)) + b"}"

FLOODS = {
    "pings": masked(9, b"x" * 125) * 450,
    "heartbeats": masked(1, b'{"type":"heartbeat","data":{}}') * 300,
    "costly JSON": masked(1, MANY_KEYS) * 3,
    # More elements than are handled at once. The server's stop waits for the rest, which is paced: few are enough.
    "arrays": masked(1, json.dumps([{"type": "heartbeat", "data": {}}] * 200).encode()) * 2,
}


class LoopWatch:
    """The most processor time that one turn of this loop has taken: whatever else the machine does."""

    def __init__(self) -> None:
        self.busiest = 0.0
        self._loop = asyncio.get_running_loop()
        self._since = time.thread_time()
        self._handle = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time()
        self.busiest, self._since = max(self.busiest, now - self._since), now
        self._handle = self._loop.call_soon(self._turn)

    def stop(self) -> float:
        self._handle.cancel()
        return self.busiest


@pytest.mark.parametrize("flood", FLOODS)
async def test_clients_that_send_their_whole_budget_at_once_are_read_in_turns(system: System, flood: str) -> None:
    bystander = await system.examinee("N001")
    clients = [await system.examinee(f"F{number:03}") for number in range(CLIENTS)]
    gc.disable()  # the test's own heap is larger than a server's
    try:
        for client in clients:
            client.websocket.transport.write(FLOODS[flood])
        watch = LoopWatch()
        for _ in range(10):
            before = len(bystander.frames)
            await bystander.say("heartbeat")
            await bystander.expect("heartbeat", after=before)
        busiest = watch.stop()
    finally:
        gc.enable()
    for client in clients:
        with suppress(OSError):
            client.abort()
    assert busiest < BUSY_SECONDS
