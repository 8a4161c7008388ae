"""Everything that goes over a wire in a run of the system, kept as it was: frames, NATS messages, HTTP exchanges."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Self

import httpx
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from actors.runtime.broker.connection import Bus
from protocol.broker.streams import STREAMS
from protocol.messages.operator_requests import Tail
from tests.integration.support.system import RawClient, System
from tests.support.specs import AsyncApi, OpenApi

BROKERS_OWN = ("_INBOX", "$JS.", "$SRV.", "$SYS.")
"""What NATS and its client libraries say: acks, deliveries, the API, the micro services protocol."""


@dataclass(frozen=True, slots=True)
class Published:
    """A NATS message; `headers` without those that tell a reader where it stands."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    reply: str


class RecordedSocket(ClientConnection):
    """A WebSocket that notes the text frames of both directions as they go over the wire."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.said: list[tuple[str, str]] = []
        self.nonsense: set[str] = set()
        """What the test says to see it refused: no specification has it."""

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            assert event.fin  # the server does not fragment
            self.said.append(("receive", bytes(event.data).decode()))
        super().process_event(event)

    async def send(self, message: Any, **options: Any) -> None:
        if message not in self.nonsense:
            self.said.append(("send", message))
        await super().send(message, **options)

    async def talk_nonsense(self, text: str) -> None:
        """Send what is to be refused."""
        self.nonsense.add(text)
        await self.send(text)


def socket_of(client: RawClient) -> RecordedSocket:
    assert isinstance(client.websocket, RecordedSocket)
    return client.websocket


class RecordedSystem(System):
    """A system whose clients' frames are kept, by role."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.roles: list[tuple[str, RecordedSocket]] = []

    async def raw(self, server_id: str = "SOCK001", **options: Any) -> RawClient:
        return self._noted("examinee", await super().raw(server_id, create_connection=RecordedSocket, **options))

    async def proctor(self, server_id: str = "SOCK001", **options: Any) -> RawClient:
        client = await super().proctor(server_id, **options)
        return self._noted("proctor", client)

    def _noted(self, role: str, client: RawClient) -> RawClient:
        socket = socket_of(client)
        self.roles = [role for role in self.roles if role[1] is not socket] + [(role, socket)]
        return client

    def check(self, spec: AsyncApi) -> int:
        """Hold every frame to the specification; how many there were. Raises `SpecBroken`."""
        for role, socket in self.roles:
            for action, text in socket.said:
                spec.frame(role, action, text)
        return sum(len(socket.said) for _, socket in self.roles)


class RecordedBroker:
    """Hears every subject of the broker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.published: list[Published] = []

    @classmethod
    async def listen(cls, url: str) -> Self:
        recorded = cls(await nats.connect(url))
        await recorded._client.subscribe(">", cb=recorded._heard, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await recorded._client.flush()
        return recorded

    async def _heard(self, msg: Msg) -> None:
        self.published.append(Published(msg.subject, msg.data, dict(msg.headers or {}), msg.reply))

    async def stored(self, bus: Bus) -> list[Published]:
        """What the streams hold: also what NATS has published by itself (timers, markers)."""
        messages = []
        for stream in STREAMS:
            info = await bus._js.stream_info(stream.name)
            for sequence in range(info.state.first_seq, info.state.last_seq + 1):
                message = await bus.message_at(stream.name, sequence)
                if message is not None:
                    messages.append(Published(message.subject, message.payload, dict(message.headers), ""))
        return messages

    async def close(self) -> None:
        await self._client.close()


def check_messages(spec: AsyncApi, published: list[Published], nonsense: frozenset[bytes] = frozenset()) -> int:
    """Hold NATS messages, and the replies to requests, to the specification; how many those were.

    `nonsense`: payloads that the test has made up to see them refused. Raises `SpecBroken`.
    """
    replies: dict[str, str] = {}
    checked = 0
    for message in published:
        channel = spec.channel_of(message.subject)
        if channel is not None and f"{channel}Reply" in spec.document["channels"]:
            replies[message.reply] = f"{channel}Reply"
        if channel == "control" and (request := json.loads(message.payload))["type"] == Tail.type:
            replies[request["data"]["inbox"]] = "tail"
    for message in published:
        channel = spec.channel_of(message.subject) or replies.get(message.subject)
        if message.payload in nonsense and message.payload:
            continue
        if channel is None:
            assert message.subject.startswith(BROKERS_OWN), (
                f"{message.subject} is in no specification: {message.payload[:200]!r}"
            )
            continue
        if message.headers.get("Status") == "503":  # no responders
            continue
        if message.headers.get("Nats-Expected-Last-Sequence"):  # asks where the log ends: refused, and stored nowhere
            continue
        spec.message(channel, message.payload, message.headers)
        checked += 1
    return checked


class RecordedHttp:
    """Checks each HTTP exchange of a client as it happens. Raises `SpecBroken` where the request was made."""

    def __init__(self, spec: OpenApi, client: httpx.AsyncClient) -> None:
        self._spec = spec
        self.exchanges = 0
        client.event_hooks = {"response": [self._answered]}

    async def _answered(self, response: httpx.Response) -> None:
        await response.aread()
        url = response.request.url
        headers = {name.lower(): value for name, value in response.headers.items()}
        method, query = response.request.method, url.query.decode()
        self._spec.exchange(method, url.path, query, response.status_code, headers, response.content)
        self.exchanges += 1


async def settled(recorded: RecordedBroker, seconds: float = 20.0) -> None:
    """Wait until nothing but heartbeats has been said for a moment."""

    def news() -> int:
        return sum(not message.subject.startswith((*BROKERS_OWN, "lease.")) for message in recorded.published)

    async with asyncio.timeout(seconds):
        before = -1
        while before != (before := news()):
            await recorded._client.flush()
            await asyncio.sleep(0.2)
