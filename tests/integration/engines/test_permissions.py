"""nats/secure.conf on a real server: each role works with its own user, and what is not its own is refused.

TLS is on, as in production.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from actors.queue_server.topology import apply_topology
from actors.retention.purger import Purger
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.consumers.consumer import PullConsumer
from actors.runtime.broker.consumers.stream_reader import read_stream
from actors.runtime.broker.consumers.stream_snapshot import delete_stream, restore_stream, save_stream
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.socket_server.delivery.queue import QueueRefused
from actors.socket_server.server import SocketServer
from actors.state_manager.manager import StateManager
from actors.web_server.server import WebServer
from cli.main import app
from cli.shared.options import to_environment
from protocol.broker import subjects
from protocol.broker.streams import PHONE, RESTORING, STATE_MANAGERS
from protocol.close_codes import CloseCode
from protocol.errors import BrokerUnavailable, NotPermitted, RoleFailed
from protocol.log.version import version_of
from protocol.messages.base import Message
from protocol.messages.codec import encode
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.times import format_time
from tests.integration.support.clients.phones import capture_path, picture, upload_path
from tests.integration.support.nats_cluster import ConfiguredNats, logged_in, password_of, user_of_actor
from tests.integration.support.system import System, eventually
from tests.support.certificates import Certificates, issue

SOCK001, SOCK002 = "socket-server-SOCK001", "socket-server-SOCK002"
REFUSED_SECONDS = 4.0
"""A refusal comes at once, before any timeout (5 s)."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfiguredNats]:
    server = ConfiguredNats(tmp_path_factory.mktemp("secure"), "secure.conf", "nats-alone", certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def secured(settings: Settings, broker: ConfiguredNats, certificates: Certificates) -> Settings:
    """Settings of nobody in particular; `logged_in` makes them those of a role."""
    section = settings.nats.model_copy(update={"ca_file": certificates.ca})
    return settings.model_copy(update={"nats_url": broker.url, "nats": section})


@pytest.fixture
async def system(secured: Settings, store: StateStore) -> AsyncIterator[System]:
    """All roles, each as its own user. Streams are kept from test to test: plans differ."""
    async with System(secured, settings_of=lambda name: logged_in(secured, user_of_actor(name))) as system:
        yield system


class As:
    """A connection as a user, for an `async with`."""

    def __init__(self, secured: Settings, user: str) -> None:
        self._settings, self._user = logged_in(secured, user), user

    async def __aenter__(self) -> Bus:
        self._bus = await Bus.connect(self._settings, self._user, wait=5)
        return self._bus

    async def __aexit__(self, *_: object) -> None:
        await self._bus.close()


@pytest.fixture
async def topology(secured: Settings) -> Settings:
    """The same, on a broker that has the streams."""
    async with As(secured, "queue-server") as bus:
        await apply_topology(bus, secured)
    return secured


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "NATS does not let" in record.getMessage()]


# -- each role works ----------------------------------------------------------------------------------------


async def test_the_three_scenarios_work_with_the_permissions(
    system: System, secured: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    in_nats = secured.model_copy(update={"captures": secured.captures.model_copy(update={"store": "nats"})})
    async with As(secured, "queue-server") as queue_server:
        await apply_topology(queue_server, in_nats)
    web = await system.start("web-server", lambda bus: WebServer(in_nats, bus, system.store))
    assert isinstance(web, WebServer)
    proctor = await system.proctor("SOCK002", plan_id="P101")
    examinee = await system.examinee("E001", plan_id="P101")
    await proctor.expect("examinee_connected", examineeId="E001")
    # Mobile sync: the stage with its timer, the picture, the announcement.
    await examinee.say("mobile_sync_wait", planId="P101", examineeId="E001")
    await proctor.expect("mobile_sync_status", status="WAITING")
    async with httpx.AsyncClient(base_url=web.url, trust_env=False) as http:
        own = {"Authorization": f"Bearer {system.token('examinee', 'E001', 'P101')}"}
        code_response = await http.post("/v1/plans/P101/examinees/E001/phone-code", headers=own)
        joined = await http.post(f"/v1/phone-codes/{code_response.json()['code']}")
        token = {"Authorization": f"Bearer {joined.json()['token']}"}
        stored = await http.put(upload_path("P101"), content=(content := picture()), headers=token)
        second_upload = await http.put(upload_path("P101"), content=content, headers=token)
        proctors = {"Authorization": f"Bearer {system.token('proctor', 'T001', 'P101')}"}
        picture_response = await http.get(capture_path("P101"), headers=proctors)
        timeline = await http.get("/v1/plans/P101/examinees/E001/timeline", headers=proctors)
    assert (stored.status_code, second_upload.status_code) == (201, 201)
    assert (picture_response.status_code, picture_response.content) == (200, content)
    assert {"JOINED", "SYNC_WAITING"} <= {entry["what"] for entry in timeline.json()["entries"]}
    await examinee.expect("mobile_sync_completed")
    # Loss, an attempt, recovery.
    examinee.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await proctor.expect("examinee_reconnecting", examineeId="E001", attempt=1)
    before = len(proctor.frames)
    await system.examinee("E001", "SOCK002", plan_id="P101", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", after=before)
    # Redis loses its state: the log is read, and what became a dead letter.
    await system.store._redis.flushall()
    await eventually(system.store.mark.is_whole, "Redis is whole again")
    # A server that vanishes: its lease, its sessions' end.
    await system.examinee("E002", "SOCK001", plan_id="P101")
    await system._buses["SOCK001"]._nc.close()
    await proctor.expect("examinee_disconnected", examineeId="E002", reason="SERVER_LOST", seconds=15)
    assert refusals(caplog) == []
    assert [error for error in system.failures if isinstance(error, NotPermitted)] == []


async def test_an_operator_sees_and_acts_with_the_operators_user(
    system: System,
    secured: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text("examineeId\nE001\nE009\n")
    examinee = await system.examinee("E001", plan_id="P102")
    welcome = await examinee.expect("welcome")
    spoilt = Outgoing(subjects.status_plan("P102", subjects.socket_origin("SOCK001")), b"no status", "letter-P102")
    async with As(secured, SOCK001) as server:
        await server.publish(spoilt)
    operator = {
        **to_environment({"nats_url": secured.nats_url, "redis_url": secured.redis_url, "data_dir": secured.data_dir}),
        **to_environment({"nats.user": "operator", "nats.password": password_of("operator")}),
        **to_environment({"nats.ca_file": secured.nats.ca_file}),
    }

    async def examwire(*arguments: str, code: int | None = 0) -> Any:
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "-o", "json"], env=operator)
        description = f"{arguments}: {result.output} {result.exception!r}"
        assert "NATS does not let" not in description
        assert code is None or result.exit_code == code, description
        return json.loads(result.stdout)

    async def letters() -> Any:
        return await examwire("dead-letters", "ls")

    assert {"socket.SOCK001", "queue-server.queue-server"} <= {
        actor["address"] for actor in await examwire("actors", "ls")
    }
    assert (await examwire("actors", "show", "session.P102.E001"))["kind"] == "examinee-session"
    assert await examwire("sessions", "ls")
    assert await examwire("queues", "ls")
    assert await examwire("streams", "ls")
    assert {row["state"] for row in await examwire("streams", "diff")} == {"same"}
    assert (await examwire("plans", "create", "P102", "--roster", str(roster)))["new"] == 2
    assert await examwire("plans", "roster", "P102")
    assert await examwire("plans", "timeline", "P102")
    assert await examwire("plans", "report", "P102")
    assert await examwire("examinees", "show", "P102", "E001")
    dead_letters = await eventually(letters, "the dead letter")
    number = str(max(letter["number"] for letter in dead_letters))
    assert await examwire("dead-letters", "show", number)
    assert await examwire("dead-letters", "discard", number, "--yes")
    assert await examwire("sessions", "kick", welcome["data"]["socketId"])
    assert await examwire("state", "verify", "--plan", "P102")
    assert await examwire("state", "rebuild", "--plan", "P102", "--yes")
    # What else is asked of actors by name; the doctor sees more to complain of than permissions.
    assert "NATS does not let" not in json.dumps(await examwire("doctor", code=None))
    assert await examwire("actors", "drain", "socket.SOCK002", "--over", "0s", "--no-wait")
    # What changes the streams is the queue server's.
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["streams", "apply"], env=operator)
    assert (refused.exit_code, "does not let user 'operator'" in refused.output) == (1, True), refused.output
    assert all("'operator' publish to $JS.API.STREAM" in refusal for refusal in refusals(caplog)), refusals(caplog)


@pytest.mark.parametrize("user", ["operator", "queue-server"])
async def test_who_purges_plans_and_examinees_has_the_permissions(
    system: System, secured: Settings, caplog: pytest.LogCaptureFixture, user: str
) -> None:
    both = [await system.examinee(name, "SOCK001") for name in ("E001", "E002")]
    async with As(secured, user) as bus:
        await Purger(bus, system.store, user).purge("P001", "E001")
        await Purger(bus, system.store, user).purge("P001")
    for client in both:
        assert await client.closed() == CloseCode.EXAM_OVER
    assert await system.store.raw_keys("plan:P001*") == []
    assert refusals(caplog) == []


async def test_a_state_manager_mends_a_log_that_is_behind_with_the_permissions(system: System) -> None:
    """As if the broker had lost its newest messages: Redis knows one that lies far beyond the end."""
    proctor = await system.proctor(plan_id="P-MEND")
    await system.stop("state-manager")
    early = await system.raw()
    await early.hello(system.token("examinee", "E001", "P-MEND"))
    known = await system.store.log_mark.read()
    await system.store.log_mark.reach(known.reached + 2500, known.time)
    as_manager = logged_in(system.settings, "state-manager")
    await system.start("state-manager", lambda bus: StateManager(as_manager, bus, system.store, "sm2"))
    connected = await proctor.expect("examinee_connected", examineeId="E001")
    assert connected["data"]["version"] > version_of(known.reached + 2500)
    await early.expect("session_state")


async def test_the_monitor_sees_streams_consumers_and_actors(system: System, secured: Settings) -> None:
    async with As(secured, "monitor") as monitor:
        assert (await monitor.stream_state("STATUS")).messages > 0
        assert "SOCK001_Q" in [state.name for state in await monitor.consumer_states("SOCKET")]
        assert {"socket-server", "state-manager"} <= {entry.name for entry in await monitor.services()}


# -- what is not its own is refused -------------------------------------------------------------------------

PUBLISHES = [
    (SOCK001, "status.server.SOCK002"),
    (SOCK001, "lease.SOCK002"),
    (SOCK001, "status.timer.P001.E001.mobile_sync-1"),
    (SOCK001, "socket.SOCK002"),
    (SOCK001, "socket.plan.P001.proctors"),
    (SOCK001, "reconnect.P001.E001"),
    (SOCK001, "deadletter.STATUS"),
    ("web-server", "status.server.SOCK001"),
    ("web-server", "socket.SOCK001"),
    ("queue-server", "status.plan.P001"),
    ("queue-server", "lease.SOCK001"),
    ("state-manager", "lease.SOCK001"),
    ("operator", "lease.SOCK001"),
    ("operator", "status.timer.P001.E001.x"),
    ("monitor", "status.plan.P001"),
]


async def test_a_publish_that_is_not_allowed_fails_at_once_and_names_the_subject(topology: Settings) -> None:
    """Whichever way it is published; none of them tries for ever."""
    for user in sorted({user for user, _ in PUBLISHES}):
        async with As(topology, user) as bus:
            for subject in [subject for name, subject in PUBLISHES if name == user]:
                message = Outgoing(subject, b"{}")
                async with asyncio.timeout(REFUSED_SECONDS):
                    with pytest.raises(NotPermitted) as raised:
                        await bus.publish(message)
                    with pytest.raises(NotPermitted):
                        await bus.publish_until_stored([message])
                    with pytest.raises(NotPermitted):
                        await bus.confirm(await bus.send([message]))
                assert f"'{user}' publish to {subject}:" in str(raised.value)


async def test_an_atomic_batch_with_one_message_that_is_not_allowed_stores_none(topology: Settings) -> None:
    subjects_ = ["reconnect.P105.E001", "reconnect.P105.E002", "reconnect.P105.not.allowed", "reconnect.P105.E003"]
    async with As(topology, "state-manager") as bus:
        before = await bus.last_message("RECONNECT", "reconnect.P105.E001")
        with pytest.raises(NotPermitted, match=r"reconnect\.P105\.not\.allowed"):
            await bus.publish_in_batches([Outgoing(subject, b"{}") for subject in subjects_])
        assert await bus.last_message("RECONNECT", "reconnect.P105.E001") == before


REQUESTS = [
    (SOCK001, "$JS.API.STREAM.CREATE.MINE"),
    (SOCK001, "$JS.API.STREAM.DELETE.STATUS"),
    (SOCK001, "$JS.API.STREAM.PURGE.STATUS"),
    (SOCK001, "$JS.API.STREAM.UPDATE.STATUS"),
    (SOCK001, "$JS.API.STREAM.INFO.STATUS"),
    (SOCK001, "$JS.API.STREAM.MSG.GET.STATUS"),
    (SOCK001, "$JS.API.STREAM.MSG.DELETE.STATUS"),
    (SOCK001, "$JS.API.CONSUMER.CREATE.SOCKET.SOCK001_Q"),
    (SOCK001, "$JS.API.CONSUMER.CREATE.SOCKET.SOCK001_Q.socket.SOCK001"),
    (SOCK001, "$JS.API.CONSUMER.DELETE.SOCKET.SOCK002_Q"),
    (SOCK001, "$JS.API.CONSUMER.INFO.SOCKET.SOCK002_Q"),
    (SOCK001, "control.socket.SOCK002"),
    (SOCK001, "session.P001.E001"),
    ("state-manager", "$JS.API.STREAM.CREATE.MINE"),
    ("state-manager", "$JS.API.CONSUMER.DELETE.STATUS.state-manager"),
    ("state-manager", "control.socket.SOCK001"),
    ("web-server", "$JS.API.STREAM.MSG.GET.LEASE"),
    ("web-server", "queue.create"),
    ("queue-server", "$JS.API.STREAM.DELETE.STATUS"),
    ("queue-server", "$JS.API.STREAM.CREATE.MINE"),
    ("queue-server", "$JS.API.STREAM.DELETE.STATUS"),
    ("operator", "$JS.API.STREAM.UPDATE.STATUS"),
    ("operator", "$JS.API.STREAM.PURGE.DEADLETTER"),
    ("operator", "$JS.API.STREAM.MSG.DELETE.SOCKET"),
    ("operator", "$JS.API.CONSUMER.CREATE.STATUS.mine"),
    ("operator", "queue.create"),
    ("monitor", "$JS.API.STREAM.MSG.GET.STATUS"),
    ("monitor", "control.socket.SOCK001"),
    ("monitor", "inspect.socket-server"),
]


async def test_a_request_that_is_not_allowed_fails_at_once_and_names_the_subject(topology: Settings) -> None:
    for user in sorted({user for user, _ in REQUESTS}):
        async with As(topology, user) as bus:
            for subject in [subject for name, subject in REQUESTS if name == user]:
                async with asyncio.timeout(REFUSED_SECONDS):
                    with pytest.raises(NotPermitted) as raised:
                        await bus.request(subject, b"{}", timeout=5)
                assert f"'{user}' publish to {subject}:" in str(raised.value)


@pytest.mark.parametrize("consumer", ["SOCKET/SOCK002_Q", "STATUS/state-manager", "LEASE/lease-watch"])
async def test_a_socket_server_reads_no_other_queue(topology: Settings, consumer: str) -> None:
    stream, _, name = consumer.partition("/")
    async with As(topology, SOCK001) as bus, asyncio.timeout(REFUSED_SECONDS):
        with pytest.raises(NotPermitted, match=f"MSG.NEXT.{stream}.{name}"):
            await anext(aiter(PullConsumer(bus, stream, name)))


async def test_a_socket_server_neither_reads_nor_overhears_the_log(topology: Settings) -> None:
    payloads: list[bytes] = []

    async def hear(msg: Any) -> None:
        payloads.append(msg.data)

    async with As(topology, SOCK001) as bus, As(topology, SOCK002) as other:
        with pytest.raises(NotPermitted, match="STATUS"):
            await anext(read_stream(bus, "STATUS", last=1))
        for subject in ("status.>", "socket.SOCK002", ">", "_INBOX_socket-server-SOCK002.>", "_INBOX_operator.>"):
            await bus.subscribe(subject, hear)
        await other.publish(
            Outgoing(subjects.status_plan("P103", subjects.socket_origin("SOCK002")), b"[]", "overheard")
        )
        await bus.round_trip()
    assert payloads == []


async def test_a_user_without_an_inbox_gets_an_error_instead_of_a_timeout(topology: Settings) -> None:
    mistaken = logged_in(topology, "monitor", inbox_prefix="_INBOX_operator")
    bus = await Bus.connect(mistaken, "mistaken")
    async with asyncio.timeout(REFUSED_SECONDS):
        with pytest.raises(NotPermitted, match="subscribe to _inbox_operator"):
            await bus.stream_state("STATUS")
        with pytest.raises(NotPermitted, match="subscribe to _inbox_operator"):
            await bus.publish(Outgoing("status.plan.P001", b"[]"))
    await bus.close()


async def test_a_status_about_another_server_has_no_effect(system: System, secured: Settings) -> None:
    """On another's subject it is refused; on its own, or by a schedule (NATS asks nobody then), it is a dead letter."""
    loss = encode(_lost("SOCK002", system.server("SOCK002").incarnation))
    schedule = {
        "Nats-Schedule": f"@at {format_time(time.time() - 5)[:19]}Z",
        "Nats-Schedule-Target": subjects.status_server("SOCK002"),
    }
    async with As(secured, SOCK001) as bus, As(secured, "operator") as operator:
        before = (await operator.stream_state("DEADLETTER")).messages
        with pytest.raises(NotPermitted):
            await bus.publish(Outgoing(subjects.status_server("SOCK002"), loss))
        await bus.publish(Outgoing(subjects.status_server("SOCK001"), loss))
        await bus.publish(
            Outgoing(subjects.status_plan("P104", subjects.socket_origin("SOCK001")), loss, headers=schedule)
        )

        async def put_aside() -> bool:
            # The schedule itself stands on the subject of plan P104, where a server's status has no place either.
            return (await operator.stream_state("DEADLETTER")).messages >= before + 3

        await eventually(put_aside, "both of them and the schedule among the dead letters")
    assert await system.server_is("SOCK002", "READY")


async def test_another_process_gets_no_queue_of_a_server_that_is_alive(system: System, secured: Settings) -> None:
    """`queue.create` is one subject for all, so the lease says whose queue it is."""
    async with As(secured, SOCK001) as bus:
        intruder = SocketServer(secured, bus, system.store, "SOCK002")
        with pytest.raises(QueueRefused, match="another process holds the lease of SOCK002"):
            await intruder._queue.create()


# -- how it is told -----------------------------------------------------------------------------------------


async def test_a_wrong_password_is_named_and_not_shown(secured: Settings) -> None:
    wrong = logged_in(secured, "operator", password=SecretStr("hunter2"))
    with pytest.raises(BrokerUnavailable, match="refuses the user 'operator'") as raised:
        await Bus.connect(wrong, "cli", wait=1)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(BrokerUnavailable, match="a connection without a user"):
        await Bus.connect(secured, "cli", wait=1)


async def test_a_role_with_the_wrong_user_names_the_missing_permission_and_ends(
    system: System, secured: Settings, store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    """SOCK002 started with the user of SOCK001."""
    await system.stop("SOCK002")
    async with As(secured, SOCK001) as bus:
        server = SocketServer(secured, bus, store, "SOCK002")
        with pytest.raises(RoleFailed, match=r"LEASE_FAILED.*'socket-server-SOCK001' publish to lease\.SOCK002"):
            await server.start()
        await server.stop()
    assert len([refusal for refusal in refusals(caplog) if "lease.SOCK002" in refusal]) >= 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_service_that_may_not_answer_is_not_half_announced(topology: Settings) -> None:
    async def nothing(_request: bytes) -> bytes:
        return b""

    async with As(topology, "monitor") as bus:
        with pytest.raises(NotPermitted, match="subscribe to"):
            await bus.add_service(
                "intruder",
                version="1.0.0",
                description="",
                metadata={},
                endpoints={"x": ("control.socket.SOCK001", nothing)},
                details=dict,
            )
        assert "intruder" not in {entry.name for entry in await bus.services()}


def _lost(server_id: str, incarnation: str) -> Message:
    now = format_time(time.time())
    return ServerStatus(
        server_id=server_id,
        status=ServerStatusCode.LOST,
        incarnation=incarnation,
        start_time=now,
        timestamp=now,
        reason="SERVER_LOST",
    )


async def test_an_operator_saves_and_restores_streams_and_nobody_else_does(topology: Settings) -> None:
    async with As(topology, "operator") as bus:
        saved = bytearray()
        about = await save_stream(bus, PHONE.name, saved.extend)
        assert about is not None
        await bus.apply_stream(RESTORING)
        await delete_stream(bus, PHONE.name)
        await restore_stream(bus, about["config"], about["state"], io.BytesIO(saved).read)
        for consumer in STATE_MANAGERS:
            await bus.apply_consumer(consumer, anew=True, first=1)
        await delete_stream(bus, RESTORING.name)
    async with As(topology, "queue-server") as bus:
        await apply_topology(bus, topology)  # finds everything as it was
        with pytest.raises(NotPermitted):
            await save_stream(bus, PHONE.name, saved.extend)
