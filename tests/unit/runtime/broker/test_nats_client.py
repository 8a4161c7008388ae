"""What we need of nats-py beyond its public face: a version that lacks it must not come in unnoticed."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from actors.runtime.broker.nats_client import DEAD_SECONDS, PING_SECONDS, PRIVATE, NatsClient
from actors.runtime.broker.refusals import Refusals

ROOT = Path(__file__).parents[4]
EXAMPLES: dict[str, object] = {
    "nats.aio.client.Client": Client(),
    "nats.aio.transport.TcpTransport": TcpTransport(),  # type: ignore[no-untyped-call]
    "nats.aio.subscription.Subscription": Subscription(Client()),
    "nats.aio.msg.Msg": Msg(Client()),
    "nats.js.client.JetStreamContext": Client().jetstream(),
}
ELSEWHERE = {
    "actors/runtime/broker/consumers/consumer.py": {"_client"},
    "actors/runtime/broker/stream_admin.py": {"_api_request"},
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_nats_py_has_the_private_attributes_that_we_need(kind: str) -> None:
    assert type(EXAMPLES[kind]).__qualname__ == kind.rpartition(".")[2]
    assert [name for name in PRIVATE[kind] if not hasattr(EXAMPLES[kind], name)] == []


def test_what_is_overridden_is_still_called_by_nats_py() -> None:
    source = inspect.getsource(Client) + inspect.getsource(importlib.import_module("nats.protocol.parser"))
    overridden = {name for name in vars(NatsClient) if hasattr(Client, name) and re.match("_[a-z]", name)}
    assert overridden >= {"_process_pong", "_read_loop", "_flusher", "_ping_interval", "_connect_to_server"}
    for name in overridden:
        assert name in PRIVATE["nats.aio.client.Client"]
        assert f".{name}(" in source


def test_no_other_module_uses_what_nats_py_keeps_to_itself() -> None:
    for path in [*(ROOT / "actors").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        place = str(path.relative_to(ROOT))
        used = set(re.findall(r"\b(?:_?nc|_js|_msg)\.(_\w+)", path.read_text()))
        assert used <= ELSEWHERE.get(place, set()), place


def test_a_dead_connection_is_known_within_five_seconds() -> None:
    """It dies right after an answer: the next ping notices, by looks that are as far apart as pings."""
    assert PING_SECONDS + DEAD_SECONDS + PING_SECONDS < 5


async def test_a_late_pong_for_somebody_who_gave_up_does_not_disturb_those_that_follow() -> None:
    client = NatsClient(Refusals("test", None, "_INBOX"))
    loop = asyncio.get_running_loop()
    given_up, waiting = loop.create_future(), loop.create_future()
    client._pongs = [given_up, waiting]
    given_up.cancel()
    await client._process_pong()
    assert not waiting.done()
    await client._process_pong()
    assert waiting.result() is True
    await client._process_pong()  # one that nobody has asked for
