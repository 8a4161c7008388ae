"""`examwire backup` in the middle of an exam, and `examwire restore` on another machine."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.stream_snapshot import restore_stream
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from cli.backup import restore as restore_module
from cli.backup.backup import Backup
from cli.backup.manifest import DamagedBackup, Manifest, SavedStream, new_backup, read_manifest, verify
from cli.backup.restore import NotRestored, Restore, is_ahead
from cli.local.engines import NatsServer, RedisServer
from protocol.broker import subjects
from protocol.broker.streams import LEASE, RESTORING, STATUS, is_marker
from protocol.errors import ConfigurationError
from protocol.messages.facts import Enrol
from protocol.times import format_time
from tests.integration.support.command_line import command_with
from tests.integration.support.settings import changed
from tests.integration.support.system import System, eventually

CAPTURE_ID = "0a" * 32


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Settings]:
    """Another machine: fresh engines and a data directory that does not exist yet."""
    nats, redis = NatsServer(tmp_path / "elsewhere-nats", sync_always=False), RedisServer(tmp_path / "elsewhere-redis")
    nats.start()
    redis.start()
    yield load_settings(nats_url=nats.url, redis_url=redis.url, data_dir=tmp_path / "elsewhere")
    nats.stop()
    redis.stop()


class BackupWithChurn(Backup):
    """A backup during which `during` happens, between the other streams and the log."""

    def __init__(
        self, settings: Settings, bus: Bus, directory: Path, during: Callable[[], Awaitable[None]] | None
    ) -> None:
        super().__init__(settings, bus, directory)
        self._during = during

    async def _save_stream(self, name: str) -> SavedStream | None:
        if name == STATUS.name and self._during is not None:
            await self._during()
        return await super()._save_stream(name)


async def back_up(settings: Settings, directory: Path, during: Callable[[], Awaitable[None]] | None = None) -> Manifest:
    bus = await Bus.connect(settings, "backup")
    try:
        with new_backup(directory):
            return await BackupWithChurn(settings, bus, directory, during).write()
    finally:
        await bus.close()


async def put_back(settings: Settings, directory: Path, **options: bool) -> dict[str, Any]:
    manifest = read_manifest(directory)
    verify(directory, manifest)
    bus = await Bus.connect(settings, "restore")
    store = StateStore(settings.redis_url, settings.redis)
    try:
        return await Restore(settings, bus, store, directory, manifest).run(**options)
    finally:
        await store.close()
        await bus.close()


async def test_an_exam_saved_under_churn_goes_on_on_another_machine(
    settings: Settings, bus: Bus, elsewhere: Settings, tmp_path: Path
) -> None:
    directory = tmp_path / "backup"
    pictures = Path("captures") / "P001" / "E001"
    settings = changed(settings, {"server.lease_seconds": 1.0})
    async with System(settings) as system:
        now = format_time(bus.clock.now())
        roster = [Enrol(plan_id="P001", examinee_id=f"E{n:03}", timestamp=now) for n in range(1, 7)]
        await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), *roster))
        clients = {name: await system.examinee(name) for name in ("E001", "E002", "E003")}
        (settings.data_dir / pictures).mkdir(parents=True)
        (settings.data_dir / pictures / f"{CAPTURE_ID}.jpg").write_bytes(b"a picture")
        (settings.data_dir / pictures / "sync_cap.jpg").hardlink_to(settings.data_dir / pictures / f"{CAPTURE_ID}.jpg")

        async def lose_and_come() -> None:
            # The state manager has worked off all of it before the log is saved; RECONNECT was saved before it.
            clients["E002"].abort()
            await system.status("E002", "DISCONNECTED")
            await system.examinee("E004", "SOCK002")

        manifest = await back_up(settings, directory, lose_and_come)
        await system.examinee("E005")  # after the backup: nobody knows on the other machine
        secret = (settings.data_dir / "secret").read_bytes()

    async def expired() -> bool:
        lease = await bus.last_message(LEASE.name, subjects.lease("SOCK002"))
        return lease is None or is_marker(lease.headers)

    await eventually(expired, "the leases of the backup are old")
    result = await put_back(elsewhere, directory)
    assert set(result["servers"]) == {"SOCK001", "SOCK002"}
    assert result["pictures"] == 1
    assert (elsewhere.data_dir / "secret").read_bytes() == secret
    assert (elsewhere.data_dir / pictures / "sync_cap.jpg").read_bytes() == b"a picture"
    assert {path.stat().st_mode & 0o077 for path in directory.rglob("*")} == {0}

    async with System(elsewhere, servers=("SOCK001",)) as restored:
        invoke = command_with(
            {
                "EXAMWIRE_NATS_URL": elsewhere.nats_url,
                "EXAMWIRE_REDIS_URL": elsewhere.redis_url,
                "EXAMWIRE_DATA_DIR": str(elsewhere.data_dir),
            }
        )
        # SOCK002 is never started again: its examinee is not connected for ever.
        for name in ("E001", "E002", "E003", "E004"):
            await restored.status(name, "DISCONNECTED")
        assert not (await restored.progress("E005")).get("connStatusCode")
        # That E002 was lost became known while the backup was taken; still somebody waits for them.
        await eventually(lambda: _attempts(restored, "E002"), "an attempt of E002")
        await restored.examinee("E001")
        await restored.status("E001", "CONNECTED")
        verified = await invoke("state", "verify")
        assert verified.exit_code == 0, verified.output
        letters = json.loads((await invoke("dead-letters", "ls", "-o", "json")).stdout)
        assert letters == []
        last = await restored._buses["state-manager"].stream_state(STATUS.name)
        log = next(stream for stream in manifest.streams if stream.name == STATUS.name)
        assert last.last > log.state["last_seq"] + 20_000, "no version comes again that an open page may know"
    assert restored.failures == []


async def _attempts(system: System, examinee_id: str) -> bool:
    return int((await system.progress(examinee_id)).get("reconnectAttempt") or 0) > 0


async def test_a_restore_that_was_broken_off_is_noticed_and_repeated(
    settings: Settings, bus: Bus, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "backup"
    await apply_topology(bus, settings)
    now = format_time(bus.clock.now())
    fact = Enrol(plan_id="P001", examinee_id="E001", timestamp=now)
    await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), fact))
    await back_up(settings, directory)

    async def half_of_it(
        bus: Bus, config: dict[str, Any], state: dict[str, Any], read: Callable[[int], bytes]
    ) -> dict[str, Any]:
        parts = [read(100)]

        def read_half(_size: int) -> bytes:
            if not parts:
                raise OSError(errno.EIO, "killed here")
            return parts.pop()

        return await restore_stream(bus, config, state, read_half)

    with monkeypatch.context() as patched:
        patched.setattr(restore_module, "restore_stream", half_of_it)
        with pytest.raises(NotRestored, match="repeat it"):
            await put_back(elsewhere, directory)
    there = await Bus.connect(elsewhere, "test")
    with pytest.raises(ConfigurationError, match="examwire restore"):
        await apply_topology(there, elsewhere)
    invoke = command_with({"EXAMWIRE_NATS_URL": elsewhere.nats_url, "EXAMWIRE_REDIS_URL": elsewhere.redis_url})
    findings = json.loads((await invoke("doctor", "-o", "json")).stdout)
    assert "a restore has begun" in json.dumps(findings)
    await put_back(elsewhere, directory)  # it need not say that it replaces its own half
    await apply_topology(there, elsewhere)
    assert await there.stream_config(RESTORING.name) is None
    stored = await there.last_message(STATUS.name, subjects.status_plan("P001", subjects.OPERATOR))
    assert stored is not None
    # Now there is something to be lost.
    with pytest.raises(NotRestored, match=r"STATUS with \d+ messages until"):
        await put_back(elsewhere, directory)
    await put_back(elsewhere, directory, replace=True)
    async with System(elsewhere, servers=()):
        with pytest.raises(NotRestored, match="state-manager"):
            await put_back(elsewhere, directory, replace=True)
    await there.close()


async def test_a_backup_that_is_damaged_newer_or_not_complete_is_refused(
    settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    directory, invoke = tmp_path / "backup", command_with({"EXAMWIRE_NATS_URL": settings.nats_url})

    async def refused(*arguments: str) -> tuple[int, str]:
        result = await invoke(*arguments, "--data-dir", str(tmp_path / "data"))
        return result.exit_code, result.stderr

    nothing = await refused("backup", str(directory))
    assert (nothing[0], "no stream STATUS" in nothing[1]) == (3, True)
    half = await refused("restore", str(directory))
    assert (half[0], "did not come to its end" in half[1]) == (1, True)
    await apply_topology(bus, settings)
    result = await invoke("backup", str(directory), "-o", "json", "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["streams"]["STATUS"] == 0
    assert "STATUS: 0 messages" in result.stderr
    again = await refused("backup", str(directory))
    assert (again[0], "holds a backup already" in again[1]) == (2, True)
    other = await refused("backup", str(tmp_path))
    assert (other[0], "is not empty" in other[1]) == (2, True)
    assert (await refused("restore", str(tmp_path)))[0] == 2

    log, manifest = directory / "streams" / "STATUS", directory / "manifest.json"
    content = log.read_bytes()
    log.write_bytes(content[:-1] + b"?")
    damaged = await refused("restore", str(directory))
    assert (damaged[0], "STATUS is damaged" in damaged[1]) == (1, True)
    assert await bus.stream_config(RESTORING.name) is None
    log.write_bytes(content)
    changed = json.loads(manifest.read_text())
    for field, text in (("format", "newer release"), ("message_format", "newer release"), ("nats", "older one")):
        value = changed[field]
        manifest.write_text(json.dumps({**changed, field: "9.9.9" if field == "nats" else value + 1}))
        newer = await refused("restore", str(directory))
        assert (newer[0], text in newer[1]) == (2, True), newer
    changed["files"] = [{"name": "../secret", "sha256": "", "bytes": 0}]
    manifest.write_text(json.dumps(changed))
    assert (await refused("restore", str(directory)))[0] == 1
    with pytest.raises(DamagedBackup, match="No space left"), new_backup(tmp_path / "full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DamagedBackup, match="did not come to its end"):
        read_manifest(tmp_path / "full")


async def test_a_restored_broker_beside_a_redis_that_is_newer_loses_nobody(
    settings: Settings, bus: Bus, elsewhere: Settings, tmp_path: Path
) -> None:
    directory = tmp_path / "backup"
    async with System(settings) as system:
        await system.examinee("E001")
        await back_up(settings, directory)
        await system.examinee("E002")
        (await system.examinee("E003")).abort()
        await system.status("E003", "DISCONNECTED")
    beside = load_settings(nats_url=elsewhere.nats_url, redis_url=settings.redis_url, data_dir=settings.data_dir)
    with pytest.raises(NotRestored, match="--keep-redis"):
        await put_back(beside, directory)
    await put_back(beside, directory, keep_redis=True)
    async with System(beside) as restored:
        for name in ("E001", "E002", "E003"):
            await restored.status(name, "DISCONNECTED")
        await restored.examinee("E002", connection_no=2)
        await restored.status("E002", "CONNECTED")
        invoke = command_with({"EXAMWIRE_NATS_URL": beside.nats_url, "EXAMWIRE_REDIS_URL": beside.redis_url})

        async def agrees() -> bool:
            return (await invoke("state", "verify")).exit_code == 0

        await eventually(agrees, "Redis and the log agree")
    assert restored.failures == []


@pytest.mark.parametrize(
    ("ack_floor", "delivered", "ahead"), [(7, 7, False), (3, 8, True), (8, 8, True), (0, 0, False)]
)
def test_a_consumer_that_has_read_beyond_the_end_of_its_stream_is_found(
    ack_floor: int, delivered: int, ahead: bool
) -> None:
    state = ConsumerState("RECONNECT", "watch", "", (), {}, 0, 0, 0, 0, ack_floor, delivered)
    assert is_ahead([state], "watch", last=7) == ahead
    assert not is_ahead([state], "another", last=7)
