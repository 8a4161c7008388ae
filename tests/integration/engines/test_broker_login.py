"""What becomes of a connection when the broker changes its mind about its user."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtime.broker.connection import Bus
from cli.local.engines import NatsServer
from protocol.errors import BrokerUnavailable
from tests.integration.support.system import eventually
from tests.support.nats_faults import receive_error


class NatsWithUser(NatsServer):
    """A server whose only user has a password that can be changed while it runs."""

    password = "first-word"

    def command(self) -> list[str]:
        command = super().command()
        self.write_user()
        return command

    def write_user(self) -> None:
        config = self.directory / "nats-server.conf"
        text = config.read_text().partition("authorization")[0]
        config.write_text(f'{text}authorization {{ user: "operator", password: "{self.password}" }}\n')

    def change(self, password: str) -> None:
        self.password = password
        self.write_user()
        assert self.pid is not None
        os.kill(self.pid, signal.SIGHUP)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsWithUser]:
    server = NatsWithUser(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


async def test_a_changed_password_is_reported_and_works_again_when_restored(
    broker: NatsWithUser, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await Bus.connect(broker.url.replace("//", f"//operator:{broker.password}@"), "cli")
    broker.change("second-word")

    async def told() -> bool:
        return any("refuses the connection; trying again" in record.getMessage() for record in caplog.records)

    await eventually(told, "the log says why")
    assert not bus.connected
    broker.change("first-word")

    async def back() -> bool:
        return bus.connected

    await eventually(back, "it is back")
    assert not any("word" in record.getMessage() for record in caplog.records if record.name.startswith("examwire"))
    await bus.close()


async def test_a_permanently_closed_connection_is_an_error(broker: NatsWithUser) -> None:
    """nats-py gives up on some of what a server says: the role must not stay as if it were only cut off."""
    bus = await Bus.connect(broker.url.replace("//", f"//operator:{broker.password}@"), "cli")
    waiting = asyncio.create_task(bus.gone())
    await receive_error(bus, "'User Authentication Expired'")
    with pytest.raises(BrokerUnavailable, match=r"closed the connection of cli permanently.*Expired"):
        await asyncio.wait_for(waiting, 20)
    await bus.close()
