"""`examwire doctor` on NATS: streams, disk, limits, permissions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from actors.queue_server.server import QueueServer
from actors.queue_server.topology import apply_topology
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.sections import NatsSettings
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from cli.check.health_check import HealthCheck
from cli.local.engines import NatsServer, free_port
from cli.shared.findings import State
from protocol.broker.streams import DEADLETTER
from protocol.errors import StreamFull
from tests.integration.support.findings import FAILED, OK, UNKNOWN, WARNING, states, told
from tests.integration.support.system import eventually
from tests.support.metrics import sample

PERMISSIONS = Path(__file__).parents[3] / "nats" / "permissions.conf"


def included_from(directory: Path) -> str:
    """The file with the users, as nats-server's `include` wants it: relative to the including one."""
    return os.path.relpath(PERMISSIONS, directory)


class ConfiguredNats(NatsServer):
    """nats-server with more in its configuration, or something of it replaced."""

    def __init__(self, directory: Path, *, more: str = "", replaced: tuple[str, str] = ("", "")) -> None:
        super().__init__(directory, sync_always="always" in more)
        self.more = more
        self.replaced = replaced

    def command(self) -> list[str]:
        command = super().command()
        config = Path(command[-1])
        text = config.read_text()
        assert self.replaced[0] in text
        config.write_text(text.replace(*self.replaced) + self.more if self.replaced[0] else text + self.more)
        return command


@contextmanager
def nats(directory: Path, **options: Any) -> Iterator[NatsServer]:
    server = ConfiguredNats(directory, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_missing_and_different_streams_and_consumers_are_reported(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    findings = await HealthCheck(settings).run()
    assert "stream STATUS is missing" in told(findings, "streams", FAILED)
    await apply_topology(bus, settings)
    assert states(await HealthCheck(settings).run(), "streams") == {OK}
    config = (await bus._js.stream_info("SOCKET")).config
    await bus._js.update_stream(config.evolve(max_age=60.0, duplicate_window=60.0))
    await bus.delete_consumer("LEASE", "lease-watch")
    findings = await HealthCheck(settings).run()
    assert "max_age is 60.0, not 3600.0" in told(findings, "streams", WARNING)
    assert "consumer LEASE/lease-watch is missing" in told(findings, "streams", FAILED)


@pytest.mark.parametrize(("sync", "state"), [("always", OK), ("2m", WARNING)])
async def test_the_sync_interval_is_read_from_the_monitoring_of_nats(
    settings: Settings, tmp_path: Path, sync: str, state: State
) -> None:
    port = free_port()
    monitoring = f"http://127.0.0.1:{port}"
    with nats(tmp_path / "nats", more=f"http: 127.0.0.1:{port}\n# {sync}\n") as server:
        at = settings.model_copy(update={"nats_url": server.url})
        assert states(await HealthCheck(at, monitoring=monitoring).run(), "nats.sync") == {state}
        assert states(await HealthCheck(at, monitoring="http://127.0.0.1:1").run(), "nats.sync") == {UNKNOWN}


@pytest.mark.parametrize(("sync", "state"), [("always", OK), ("2m", WARNING)])
async def test_the_sync_interval_of_an_embedded_broker_is_read_from_its_configuration(
    settings: Settings, tmp_path: Path, sync: str, state: State
) -> None:
    unseen = "http://127.0.0.1:1"
    with nats(tmp_path / "nats", more=f"# {sync}\n") as server:
        at = settings.model_copy(update={"nats_url": server.url, "data_dir": tmp_path})
        assert states(await HealthCheck(at, monitoring=unseen).run(), "nats.sync") == {state}
    # Another broker is there now: this data directory says nothing about it.
    with nats(tmp_path / "other", more=f"# {sync}\n") as server:
        at = at.model_copy(update={"nats_url": server.url})
        assert states(await HealthCheck(at, monitoring=unseen).run(), "nats.sync") == {UNKNOWN}


async def test_missing_jetstream_and_a_small_max_payload_are_reported(settings: Settings, tmp_path: Path) -> None:
    with nats(tmp_path / "small", replaced=("max_payload: 1MB", "max_payload: 64KB")) as server:
        findings = await HealthCheck(settings.model_copy(update={"nats_url": server.url})).run()
        assert "65536 bytes" in told(findings, "nats.max_payload", FAILED)
    with nats(tmp_path / "core", replaced=("jetstream {", "lame_duck_duration: 30s #")) as server:
        findings = await HealthCheck(settings.model_copy(update={"nats_url": server.url})).run()
        assert "not enabled" in told(findings, "nats.jetstream", FAILED)


# Our streams get their smallest bounds, and would never fill it: another one without a bound does.
FULL_ACCOUNT = """
accounts { A { users: [{user: u, password: "the-password"}], jetstream: {max_file: 140000000} } }
no_auth_user: u
"""


@pytest.mark.parametrize(
    "limited",
    [{"replaced": ("jetstream {", "jetstream { max_file_store: 140000000,")}, {"more": FULL_ACCOUNT}],
    ids=["server", "account"],
)
async def test_a_full_broker_is_detected_by_the_doctor_and_the_queue_server(
    settings: Settings, store: StateStore, tmp_path: Path, limited: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.queue_server.topology_watch.SAVE_SECONDS", 0.0)
    port = free_port()
    limited = {**limited, "more": f"http: 127.0.0.1:{port}\n{limited.get('more', '')}"}
    with nats(tmp_path / "nats", **limited) as server:
        little = settings.nats.model_copy(update={"status_max_bytes": 64 * 1024 * 1024})
        at = settings.model_copy(update={"nats_url": server.url, "nats": little})
        bus = await Bus.connect(at, "test")
        queue_server = QueueServer(at, bus)
        await queue_server.start()
        try:
            await see_it_full(bus, at, f"http://127.0.0.1:{port}" if "replaced" in limited else None)
        finally:
            await queue_server.stop()
            await bus.close()


async def see_it_full(bus: Bus, at: Settings, monitoring: str | None) -> None:
    async def writable(expected: float) -> bool:
        return REGISTRY.get_sample_value("examwire_jetstream_writable") == expected

    async def limit_is_known() -> bool:
        return sample("examwire_jetstream_storage_limit_bytes") == 140_000_000

    await eventually(lambda: writable(1.0), "probes are stored")
    if monitoring is None:
        await eventually(limit_is_known, "the queue server knows the limit of its account")
    assert states(await HealthCheck(at).run(), "nats.writes") == {OK}
    await bus._js.add_stream(name="FILL", subjects=["fill.>"])
    refused = {"stream": "FILL", "reason": "full"}
    before = REGISTRY.get_sample_value("examwire_publish_refusals_total", refused) or 0.0
    results = []
    for size in (900_000, 100_000, 10_000, 1000, 0):  # to the last byte: the account's limit counts each message
        results += [
            result
            for _ in range(18)
            for result in await bus.publish_many([Outgoing("fill.TEST", bytes(size)) for _ in range(10)])
        ]
    assert isinstance(results[-1], StreamFull)
    refusals = sum(isinstance(result, StreamFull) for result in results)
    assert REGISTRY.get_sample_value("examwire_publish_refusals_total", refused) == before + refusals
    findings = await HealthCheck(at).run()
    assert "JetStream is full and refuses every write" in told(findings, "nats.writes", FAILED)
    await eventually(lambda: writable(0.0), "the queue server's probe is refused")
    if monitoring is not None:  # who may look at the server itself sees it coming
        findings = await HealthCheck(at, monitoring=monitoring).run()
        assert "bytes of the server's storage" in told(findings, "nats.storage", FAILED)
    await bus._js.purge_stream("FILL")
    await eventually(lambda: writable(1.0), "there is room again")
    assert states(await HealthCheck(at).run(), "nats.writes") == {OK}


async def test_a_nearly_full_stream_is_reported(settings: Settings, bus: Bus, store: StateStore) -> None:
    await apply_topology(bus, settings)
    await bus.apply_stream(replace(DEADLETTER, max_bytes=100_000))
    for _ in range(8):
        await bus.publish(Outgoing("deadletter.TEST", bytes(9_700)))
    text = told(await HealthCheck(settings).run(), "streams", WARNING)
    assert "stream DEADLETTER" in text
    assert "the oldest messages are dropped" in text


async def test_missing_permissions_are_named(settings: Settings, tmp_path: Path) -> None:
    users = (
        'authorization { users = [ { user: little, password: "little-password", '
        'permissions: { publish: { deny: ["$JS.API.INFO", "$JS.API.CONSUMER.LIST.>"] } } } ] }\n'
    )
    with nats(tmp_path / "nats", more=users) as server:
        url = server.url.replace("nats://", "nats://little:little-password@")
        findings = await HealthCheck(settings.model_copy(update={"nats_url": url})).run()
    text = told(findings, "permissions", WARNING)
    assert "'little'" in text
    assert "$js.api.info" in text.lower()
    assert all("little-password" not in finding.found + finding.advice for finding in findings)


async def test_the_operator_user_has_all_permissions_for_the_doctor(
    settings: Settings, store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in set(re.findall(r"\$(NATS_PASSWORD_\w+)", PERMISSIONS.read_text())):
        monkeypatch.setenv(variable, "one-password-for-all")
    with nats(tmp_path / "nats", more=f"include {included_from(tmp_path / 'nats')}\n") as server:

        def of(user: str) -> Settings:
            login = NatsSettings(user=user, password=SecretStr("one-password-for-all"))
            return settings.model_copy(update={"nats_url": server.url, "nats": login})

        bus = await Bus.connect(of("queue-server"), "queue-server")
        queue_server = QueueServer(of("queue-server"), bus)
        await queue_server.start()
        findings = await HealthCheck(of("operator")).run()
        assert states(findings, "permissions") == states(findings, "streams") == {OK}
        assert "queue-server" in told(findings, "fds", OK)  # its process has answered
        await queue_server.stop()
        await bus.close()
