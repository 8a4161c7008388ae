"""A log that is behind Redis: the broker is restored from an older copy of its data, or has lost a tail of it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.runtime.config.settings import Settings
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog
from cli.local.engines import NatsServer, RedisServer
from tests.integration.support.system import System, eventually
from tests.support.metrics import sample

Engines = tuple[NatsServer, RedisServer]


@pytest.fixture
async def system(own_settings: Settings) -> AsyncIterator[System]:
    """A whole system on engines of this test alone; no actor may fail."""
    async with System(own_settings) as system:
        yield system
        assert system.failures == []


class Backup:
    """A copy of the broker's data, taken while it runs."""

    def __init__(self, nats: NatsServer, directory: Path) -> None:
        self._nats = nats
        self._copy = directory / "copy"
        shutil.copytree(nats.directory / "jetstream", self._copy)

    def bring_back(self) -> None:
        """Stop the broker, replace its data by the copy, and start it again."""
        self._nats.stop()
        shutil.rmtree(self._nats.directory / "jetstream")
        shutil.copytree(self._copy, self._nats.directory / "jetstream")
        self._nats.start()


async def test_a_broker_restored_from_a_backup_goes_on_and_everybody_is_told(
    system: System, own_engines: Engines, tmp_path: Path
) -> None:
    proctor = await system.proctor("SOCK002")
    early = {name: await system.examinee(name) for name in ("E001", "E002", "E003")}
    backup = Backup(own_engines[0], tmp_path)
    late = {name: await system.examinee(name, "SOCK002") for name in ("E004", "E005")}
    early["E003"].abort()
    await proctor.expect("examinee_disconnected", examineeId="E003")
    moved = await system.examinee("E002", "SOCK002", client_id="another-browser")

    gaps = sample("examwire_log_gaps_total")
    backup.bring_back()

    late["E004"].abort()  # told at once or soon: nothing that happens from now on is lost
    begin = len(proctor.frames)
    await proctor.expect("examinee_disconnected", examineeId="E004", after=0, seconds=30)
    early["E001"].abort()
    await proctor.expect("examinee_disconnected", examineeId="E001", seconds=30)
    again = await system.examinee("E001", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", recovered=True, after=begin)
    for client in (again, moved, late["E005"]):
        assert client.websocket.close_code is None
    for name, expected in (("E001", "CONNECTED"), ("E002", "CONNECTED"), ("E003", "DISCONNECTED")):
        await system.status(name, expected)

    async def agrees() -> bool:
        report = await Audit(StatusLog(system._buses["state-manager"]), system.store).run()
        return not report.differences and not report.in_flight

    await eventually(agrees, "Redis and the log agree", 30)
    assert sample("examwire_log_gaps_total") == gaps + 1
    assert sample("examwire_log_behind_messages") == 0
    assert await system._buses["state-manager"].last_message("DEADLETTER", "deadletter.>") is None
