"""Socket server start-up (document 9): its steps in their order, its queue, and the failures that end it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from actors import server_queue
from actors.queue_server import QueueServer
from actors.runtime.bus import Bus, Outgoing
from actors.runtime.settings import Settings
from actors.socket_server import QueueBatch, SocketServer
from cli.engines import free_port
from protocol import keys, subjects
from protocol.codec import encode
from protocol.errors import ErrorCode, RoleFailed
from protocol.events import ExamineeConnected
from protocol.frames import Error
from protocol.server_messages import QueueCreate, QueueCreated
from protocol.session_messages import SessionClose
from tests.integration.settings import changed
from tests.integration.system import RawClient, System, eventually

FIELDS = {"serverType", "statusCode", "startTime", "queueId", "cpuUsage", "memoryUsage", "networkStatus"}


def quick(settings: Settings, **changes: Any) -> Settings:
    """Settings with a short lease and few attempts, and what the test wants otherwise."""
    return changed(settings, {"server.lease_seconds": 1, "server.start_attempts": 2, **changes})


@pytest.fixture
async def bare(bus: Bus, settings: Settings) -> AsyncIterator[System]:
    """Everything but socket servers."""
    async with System(quick(settings), servers=()) as system:
        yield system
        assert system.failures == []


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def record_of(system: System, server_id: str = "SOCK001") -> dict[str, str]:
    return await system.store.entries(keys.server_status(server_id))


async def filters_of(bus: Bus, consumer: str) -> set[str] | None:
    """What a consumer of SOCKET receives; `None`: there is no such consumer."""
    config = await bus.consumer_config("SOCKET", consumer)
    if config is None:
        return None
    return set(config.get("filter_subjects") or [config["filter_subject"]])


async def filters_become(bus: Bus, consumer: str, wanted: set[str] | None) -> None:
    async def same() -> bool:
        return await filters_of(bus, consumer) == wanted

    await eventually(same, f"{consumer} receives {wanted}")


class Watched(QueueServer):
    """A queue server that looks around before it answers."""

    def __init__(self, settings: Settings, bus: Bus, look: Callable[[], Any]) -> None:
        self._look = look
        super().__init__(settings, bus)

    async def _requested(self, payload: bytes) -> bytes:
        await self._look()
        return await super()._requested(payload)


async def test_every_step_comes_in_the_order_of_the_document(bus: Bus, settings: Settings) -> None:
    port = free_port()
    trace: list[str] = []
    requests: list[dict[str, Any]] = []
    seen: list[dict[str, str]] = []
    open_at: dict[str, bool] = {}

    async with System(quick(settings, **{"socket.port": port}), servers=()) as system:

        async def arrived(msg: Msg) -> None:
            step = msg.subject
            if step.startswith("status.server."):
                step = json.loads(msg.data)["data"]["status"]
            if step not in trace:
                trace.append(step)
                open_at[step] = is_open(port)

        async def look() -> None:
            """The request has come: what is there by now, and what is not yet?"""

            async def starting() -> dict[str, str]:
                return await record_of(system)

            seen.append(await eventually(starting, "STARTING in Redis"))
            open_at["asked"] = is_open(port)

        async def asked(msg: Msg) -> None:
            requests.append(json.loads(msg.data))
            await arrived(msg)

        await bus.subscribe("lease.*", arrived)
        await bus.subscribe("status.server.>", arrived)
        await bus.subscribe(subjects.QUEUE_CREATE, asked)
        await bus.subscribe("$JS.API.CONSUMER.MSG.NEXT.SOCKET.SOCK001_Q", arrived)
        await bus.round_trip()
        await system.stop("queue-server")
        await system.start("queue-server", lambda its: Watched(system.settings, its, look))
        server = await system.start_server("SOCK001")
        await eventually(lambda: system.server_is("SOCK001", "READY"), "READY in Redis")

        pull = "$JS.API.CONSUMER.MSG.NEXT.SOCKET.SOCK001_Q"
        assert trace[:3] == ["lease.SOCK001", "STARTING", subjects.QUEUE_CREATE]
        assert set(trace[3:]) == {pull, "READY"}
        assert open_at["lease.SOCK001"] is open_at["STARTING"] is open_at["asked"] is False
        assert open_at["READY"] is True
        assert server.url == f"ws://127.0.0.1:{port}/v1/connect"

        assert requests[0]["type"] == "queue_create"
        request = requests[0]["data"]
        assert (request["serverId"], request["queueId"], request["queueType"]) == (
            "SOCK001",
            "SOCK001_Q",
            "socket_message",
        )
        assert request["config"] == {"maxSize": 10000, "expireTime": 3600, "priority": "high"}

        (starting,) = seen
        assert (starting["serverType"], starting["statusCode"]) == ("SOCKET", "STARTING")
        ready = await record_of(system)
        assert ready.keys() >= FIELDS
        assert (ready["serverType"], ready["statusCode"], ready["queueId"]) == ("SOCKET", "READY", "SOCK001_Q")
        assert ready["startTime"] == starting["startTime"]
        assert ready["url"] == server.url


async def test_the_queue_exists_with_its_configuration(bare: System, bus: Bus) -> None:
    server = await bare.start_server("SOCK001")
    config = await bus.consumer_config("SOCKET", "SOCK001_Q")
    assert config is not None
    assert await filters_of(bus, "SOCK001_Q") == {"socket.SOCK001"}
    assert config["inactive_threshold"] == 3600
    assert {name: config["metadata"][f"examwire.{name}"] for name in ("maxSize", "expireTime", "priority")} == {
        "maxSize": "10000",
        "expireTime": "3600",
        "priority": "high",
    }
    assert config["metadata"]["examwire.incarnation"] == server.incarnation


async def test_what_ready_says_is_measured_and_kept_fresh_by_the_heartbeat(bare: System) -> None:
    await bare.start_server("SOCK001")

    async def heard() -> dict[str, str] | None:
        record = await record_of(bare)
        return record if record.get("lastHeartbeat") else None

    first = await eventually(heard, "the first heartbeat in Redis")
    for _ in range(2):

        async def later(known: str = first["lastHeartbeat"]) -> dict[str, str] | None:
            record = await record_of(bare)
            return record if record["lastHeartbeat"] > known else None

        first = await eventually(later, "the next heartbeat in Redis")
    assert first["statusCode"] == "READY"
    assert 0 <= float(first["cpuUsage"]) <= 100
    assert 0 < float(first["memoryUsage"]) <= 100
    assert first["networkStatus"] in ("GOOD", "SLOW", "BAD")


async def test_a_stopped_server_says_so_and_its_clients_are_sent_away(bare: System) -> None:
    await bare.start_server("SOCK001")
    examinee = await bare.examinee()
    await bare.stop("SOCK001")
    assert await examinee.closed() == 1012
    await eventually(lambda: bare.server_is("SOCK001", "STOPPED"), "STOPPED in Redis")
    await bare.status("E001", "DISCONNECTED")
    assert (await bare.progress())["reason"] == "SERVER_STOPPED"


# -- what the queue receives ------------------------------------------------------------------------------


async def test_the_queue_grows_and_shrinks_with_the_plans_of_the_clients(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_queue, "IDLE_PLAN_SECONDS", 0.2)
    often = {"socket.ping_interval_seconds": 0.1, "socket.ping_timeout_seconds": 5}  # how often the server looks
    async with System(quick(settings, **often), servers=("SOCK001",)) as system:
        assert await filters_of(bus, "SOCK001_Q") == {"socket.SOCK001"}
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None
        first = await system.examinee("E001", plan_id="P001")
        second = await system.examinee("E002", plan_id="P002")
        proctor = await system.proctor(plan_id="P001")
        assert await filters_of(bus, "SOCK001_Q") == {
            "socket.SOCK001",
            "socket.plan.P001.examinee.*",
            "socket.plan.P002.examinee.*",
        }
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") == {"socket.plan.P001.proctors"}
        await second.close()
        await filters_become(bus, "SOCK001_Q", {"socket.SOCK001", "socket.plan.P001.examinee.*"})
        await proctor.close()
        await filters_become(bus, "SOCK001_Q_BROADCAST", None)
        await first.close()
        await filters_become(bus, "SOCK001_Q", {"socket.SOCK001"})

        # Whoever comes now finds everything as if the plan had never been given up.
        proctor = await system.proctor(plan_id="P001")
        await system.examinee("E001", plan_id="P001", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        assert system.failures == []


async def test_with_normal_priority_all_messages_share_one_consumer(bus: Bus, settings: Settings) -> None:
    async with System(quick(settings), servers=("SOCK001",)) as system:
        await system.proctor()
        await system.stop("SOCK001")
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is not None
    async with System(quick(settings, **{"socket.queue_priority": "normal"}), servers=("SOCK001",)) as system:
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None  # what was left over is gone
        proctor = await system.proctor()
        await system.examinee("E001")
        await proctor.expect("examinee_connected", examineeId="E001")
        assert await filters_of(bus, "SOCK001_Q") == {
            "socket.SOCK001",
            "socket.plan.P001.examinee.*",
            "socket.plan.P001.proctors",
        }
        assert await filters_of(bus, "SOCK001_Q_BROADCAST") is None


class Gate:
    """Holds up what a server reads from its queue, so that messages pile up."""

    def __init__(self, server: SocketServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._put = server.put
        self._open, self._broadcasts = asyncio.Event(), asyncio.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(server, "put", self._wait)

    async def _wait(self, batch: QueueBatch) -> None:
        self.reached.set()
        await (self._broadcasts if batch.deliveries[0].subject.endswith(".proctors") else self._open).wait()
        await self._put(batch)

    def open_for_broadcasts(self) -> None:
        self._broadcasts.set()

    def open(self) -> None:
        self._open.set()
        self._broadcasts.set()


def event(examinee_id: str, version: int, plan_id: str = "P001") -> Outgoing:
    connected = ExamineeConnected(
        plan_id=plan_id,
        examinee_id=examinee_id,
        socket_id="SOCK009-1",
        timestamp="2024-01-01T09:00:00Z",
        version=version,
    )
    return Outgoing(subjects.socket_proctors(plan_id), encode(connected))


async def test_a_backlog_over_max_size_is_dropped_and_proctors_get_a_fresh_snapshot(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 10}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(event("X000", 1))
        await gate.reached.wait()
        await bus.publish_surely([event(f"X{number}", number) for number in range(2, 1200)])
        gate.open()
        again = await proctor.expect("plan_snapshot", resync=True)
        assert [row["examineeId"] for row in again["data"]["examinees"]] == ["E001"]

        async def drained() -> bool:
            info = await bus._js.consumer_info("SOCKET", "SOCK001_Q_BROADCAST")
            return bool(info.num_pending == 0)

        await eventually(drained, "the backlog is gone")
        assert "X1199" not in {frame["data"].get("examineeId") for frame in proctor.frames}
        await system.examinee("E002")
        await proctor.expect("examinee_connected", examineeId="E002")
        assert system.failures == []


def nobodys_close() -> Outgoing:
    close = SessionClose(socket_id="SOCK001-nobody", code=4503)
    return Outgoing(subjects.socket_server("SOCK001"), encode(close))


async def replaced_unheard(system: System) -> tuple[RawClient, RawClient, str]:
    """An examinee who has moved to another browser; the word to close the old one waits. The current socket."""
    old = system.clients[0]
    new = await system.raw("SOCK001")
    welcome = await new.hello(system.token("examinee", "E001"), "another-browser")

    async def recorded() -> bool:
        return bool((await system.progress()).get("socketId") == welcome["data"]["socketId"])

    await eventually(recorded, "the new socket is the current one")
    assert old.websocket.close_code is None
    return old, new, str(welcome["data"]["socketId"])


async def test_dropped_broadcasts_take_nothing_else_with_them(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 700}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        # More than one pull takes, so that what comes next waits in the queue itself.
        await bus.publish_surely([nobodys_close() for _ in range(600)])
        await gate.reached.wait()
        old, new, _ = await replaced_unheard(system)
        await bus.publish_surely([event(f"X{number}", number) for number in range(1, 2000)])
        gate.open_for_broadcasts()
        await proctor.expect("plan_snapshot", resync=True)
        gate.open()
        assert await old.closed() == 4503
        await new.expect("session_state")
        assert new.websocket.close_code is None
        assert system.failures == []


async def test_a_dropped_word_to_close_a_socket_is_said_again(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_max_size": 10}), servers=("SOCK001",)) as system:
        await system.examinee("E001")
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(nobodys_close())
        await gate.reached.wait()
        await bus.publish_surely([nobodys_close() for _ in range(1200)])
        old, new, current = await replaced_unheard(system)
        gate.open()
        assert await old.closed() == 4503
        assert (await new.expect("session_state"))["data"]["socketId"] == current
        assert (await system.progress())["socketId"] == current, "the old one has not taken over again"
        assert system.failures == []


async def test_a_message_older_than_expire_time_is_not_delivered_and_an_unused_queue_is_removed(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with System(quick(settings, **{"socket.queue_expire_seconds": 1}), servers=("SOCK001",)) as system:
        proctor = await system.proctor()
        gate = Gate(system.server("SOCK001"), monkeypatch)
        await bus.publish(event("STALE", 1))
        await gate.reached.wait()
        stored = time.time()

        async def too_old() -> bool:
            return time.time() - stored > 1.1

        await eventually(too_old, "the message is older than expireTime")
        gate.open()
        await bus.publish(event("FRESH", 2))
        await proctor.expect("examinee_connected", examineeId="FRESH")
        assert proctor.about("STALE") == []
        assert await filters_of(bus, "SOCK001_Q") is not None
        await system.stop("SOCK001")
        await filters_become(bus, "SOCK001_Q", None)


async def test_a_queue_that_vanishes_is_made_again_and_nobody_misses_anything(bare: System, bus: Bus) -> None:
    await bare.start_server("SOCK001")
    proctor = await bare.proctor()
    for consumer in ("SOCK001_Q", "SOCK001_Q_BROADCAST"):
        await bus.delete_consumer("SOCKET", consumer)
    await proctor.expect("plan_snapshot", resync=True)
    await bare.examinee("E001")
    await proctor.expect("examinee_connected", examineeId="E001")
    assert await filters_of(bus, "SOCK001_Q") == {"socket.SOCK001", "socket.plan.P001.examinee.*"}


# -- failures -----------------------------------------------------------------------------------------


async def fails(system: System, reason: str) -> RoleFailed:
    """Start SOCK001, which fails; FAILED with the reason is in Redis, and nobody listens."""
    with pytest.raises(RoleFailed, match=f"SOCK001 cannot start: {reason}") as caught:
        await system.start_server("SOCK001")
    await eventually(lambda: system.server_is("SOCK001", "FAILED"), "FAILED in Redis")
    assert (await record_of(system))["reason"] == reason
    await system.stop("SOCK001")
    assert (await record_of(system))["statusCode"] == "FAILED"
    return caught.value


def attempts(caplog: pytest.LogCaptureFixture, reason: str) -> int:
    return sum(reason in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


async def test_without_a_queue_server_the_start_fails_plainly(bare: System, caplog: pytest.LogCaptureFixture) -> None:
    await bare.stop("queue-server")
    error = await fails(bare, "QUEUE_CREATE_FAILED")
    assert "nobody listens on queue.create" in str(error)
    assert attempts(caplog, "QUEUE_CREATE_FAILED") == 2


async def test_a_queue_server_that_refuses_is_asked_a_bounded_number_of_times(bare: System, bus: Bus) -> None:
    await bare.stop("queue-server")
    asked: list[bytes] = []

    async def refuse(msg: Msg) -> None:
        asked.append(msg.data)
        await msg.respond(encode(Error(code=ErrorCode.UNAVAILABLE, message="no room for another queue")))

    await bus.subscribe(subjects.QUEUE_CREATE, refuse)
    await bus.round_trip()
    error = await fails(bare, "QUEUE_CREATE_FAILED")
    assert "no room for another queue" in str(error)
    assert len(asked) == 2


async def test_a_queue_that_is_gone_before_it_is_read_fails_the_subscription(
    bare: System, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bare.stop("queue-server")

    async def promise(msg: Msg) -> None:
        request = json.loads(msg.data)["data"]
        made = QueueCreated(
            server_id=request["serverId"], queue_id=request["queueId"], stream="SOCKET", consumers=["SOCK001_Q"]
        )
        await msg.respond(encode(made))

    await bus.subscribe(subjects.QUEUE_CREATE, promise)
    await bus.round_trip()
    error = await fails(bare, "SUBSCRIBE_FAILED")
    assert "consumer SOCKET/SOCK001_Q does not exist" in str(error)
    assert attempts(caplog, "SUBSCRIBE_FAILED") == 2


async def test_handlers_that_cannot_be_registered_fail_the_start(
    bare: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = Bus.connect

    async def without_services(url: str, name: str) -> Bus:
        bus = await make(url, name)
        subscribe = bus._nc.subscribe

        async def refuse(subject: str, *args: Any, **kwargs: Any) -> Any:
            if subject.startswith("$SRV."):
                raise nats.errors.OutboundBufferLimitError
            return await subscribe(subject, *args, **kwargs)

        monkeypatch.setattr(bus._nc, "subscribe", refuse)
        return bus

    monkeypatch.setattr(Bus, "connect", without_services)
    await fails(bare, "HANDLER_REGISTER_FAILED")
    assert attempts(caplog, "HANDLER_REGISTER_FAILED") == 2


async def test_a_taken_port_fails_the_start_and_a_free_one_afterwards_does_not(bus: Bus, settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with System(quick(settings, **{"socket.port": port}), servers=()) as system:
            await fails(system, "PORT_OPEN_FAILED")
            taken.close()
            await system.start_server("SOCK001")
            await eventually(lambda: system.server_is("SOCK001", "READY"), "READY in Redis")
            assert not (await record_of(system))["reason"]
            client = await RawClient.open(f"ws://127.0.0.1:{port}/v1/connect")
            await client.hello(system.token("examinee", "E001"))
            await client.close()


async def test_as_a_process_a_failed_start_is_said_plainly_and_ends_with_a_code(bare: System) -> None:
    await bare.stop("queue-server")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "run", "socket-server", "--server-id", "SOCK001"),
        *("--nats-url", bare.settings.nats_url, "--redis-url", bare.settings.redis_url),
        *("--data-dir", str(bare.settings.data_dir)),
        env={"EXAMWIRE_SERVER__START_ATTEMPTS": "2", "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert out == b""
    last = err.decode().strip().splitlines()[-1]
    assert "SOCK001 cannot start: QUEUE_CREATE_FAILED: nobody listens on queue.create" in last
    assert "Traceback" not in err.decode()
    await eventually(lambda: bare.server_is("SOCK001", "FAILED"), "FAILED in Redis")


async def test_a_queue_request_that_does_not_fit_is_refused_by_name(bare: System, bus: Bus) -> None:
    good = QueueCreate(server_id="SOCK005", queue_id="SOCK005_Q")
    for change, field in (
        ({"queueId": "SOCK001_Q"}, "data.queueId"),
        ({"queueType": "work"}, "data.queueType"),
        ({"config": {"maxSize": 0}}, "data.config.maxSize"),
        ({"config": {"expireTime": -1}}, "data.config.expireTime"),
        ({"config": {"priority": "urgent"}}, "data.config.priority"),
    ):
        body = json.dumps({"type": "queue_create", "data": {**good.data(), **change}}).encode()
        answer = json.loads(await bus.request(subjects.QUEUE_CREATE, body))
        assert (answer["type"], answer["data"]["code"], answer["data"]["field"]) == ("error", "INVALID_FIELD", field)
    assert await bus.consumer_config("SOCKET", "SOCK005_Q") is None
    answer = json.loads(await bus.request(subjects.QUEUE_CREATE, encode(good)))
    assert answer["data"]["consumers"] == ["SOCK005_Q"]
