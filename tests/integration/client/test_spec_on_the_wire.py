"""What the specifications say against what really goes over the wire: every frame, every NATS message, every HTTP
exchange of a run through the scenarios, with loss, removal, drain and errors.
"""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest

from actors.retention.purger import Purger
from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings, token_secret
from actors.runtime.store.state_store import StateStore
from actors.state_manager.recovery.announcement import announce_sessions
from actors.web_server.server import WebServer
from cli.operate.dead_letter_admin import DeadLetterAdmin
from cli.shared.live_actors import RequestRefused, ask
from cli.shared.output import NotFound
from protocol.access.phone_codes import code_digest, normalise_code
from protocol.broker import subjects
from protocol.broker.streams import LEASE, PHONE, StreamSpec
from protocol.close_codes import CloseCode
from protocol.messages.codec import encode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, Enrol, LossReason, MobileSyncWait, Readmit
from protocol.messages.operator_requests import Drain, Kick, Stop, Tail
from protocol.messages.plan_facts import (
    ExamWindow,
    PlanClose,
    PlanFact,
    PlanOpen,
    PlanPolicy,
    PlanRestate,
    PlanSchedule,
)
from protocol.messages.server_messages import QueueCreate
from protocol.spec.asyncapi import asyncapi
from protocol.spec.http_routes import ROUTES
from protocol.spec.openapi import openapi
from protocol.times import format_time
from tests.integration.support.clients.phones import Site, capture_path, open_site, picture, upload_path
from tests.integration.support.clients.recording import (
    RecordedBroker,
    RecordedHttp,
    RecordedSystem,
    check_messages,
    settled,
    socket_of,
)
from tests.integration.support.settings import changed
from tests.integration.support.system import RawClient, eventually
from tests.support.specs import AsyncApi, OpenApi, SpecBroken

GARBAGE = b'{"type":"readmit","data":{"planId":"P001","examineeId":"E001","timestamp":"now","by":"nobody"}}'
BAD_PAGE = b'{"sessions":{"limit":-2}}'
NONSENSE = frozenset({GARBAGE, BAD_PAGE})
"""Payloads that are to be refused: no specification has them."""

NOT_IN_THIS_RUN = {
    "maxDeliveries/maxDeliveries": "none of our consumers has a limit (tests/integration/log/test_dead_letters.py)",
    "statusPlan/restate": "a late message must have changed what was told (tests/unit/state_manager/test_losses.py)",
    "socketReplay/replay_marker": "a dead letter of SOCKET was replayed (tests/integration/log/test_dead_letters.py)",
}


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """A ladder of three seconds, a stage of two, pictures of at most 256 KiB, kept in NATS."""
    return changed(
        settings,
        {
            "reconnect.max_attempts": 2,
            "reconnect.backoff_seconds": [1.0, 1.0],
            "mobile_sync.max_bytes": 256 * 1024,
            "server.lease_seconds": 1,
            "captures.store": "nats",
        },
    )


class Exam:
    """The run: a system, its web server, and the scenarios one after another."""

    def __init__(self, system: RecordedSystem, site: Site, bus: Bus) -> None:
        self.system, self.site, self.bus = system, site, bus
        self.http = site.http
        self.capture_id = ""

    async def run(self) -> None:
        await self.whole_exam()  # first, for the deletion at its end also removes what all servers have read
        proctor = await self.system.proctor("SOCK001")
        await self.system.proctor("SOCK002", name="proctor-2")
        await self.unwelcome()
        await self.roster(proctor)
        first = await self.mobile_sync(proctor)
        await self.messages(first, proctor)
        await self.loss_and_recovery(first, proctor)
        await self.shut_out(proctor)
        await self.time_is_up(proctor)
        await self.removal(proctor)
        await self.asked_by_http()
        await self.operators(proctor)
        await self.dead_letter()
        await self.drained(proctor)

    async def unwelcome(self) -> None:
        """Hellos that are none, of nobody, of somebody who has no place here."""
        for hello, code in (
            ('{"type":"hello","data":{"clientId":"c"}}', CloseCode.INVALID_HELLO),
            ("no json", CloseCode.INVALID_HELLO),
        ):
            client = await self.system.raw()
            await socket_of(client).talk_nonsense(hello)
            assert await client.closed() == code
        for role, code in (("nobody", CloseCode.INVALID_TOKEN), ("mobile", CloseCode.FORBIDDEN)):
            client = await self.system.raw()
            token = "no.token.atall" if role == "nobody" else self.system.token("mobile", "E001")
            await client.say("hello", token=token, clientId="c", connectionNo=1)
            assert await client.closed() == code

    async def roster(self, proctor: RawClient) -> None:
        """An examinee that is enrolled and never comes."""
        enrol = Enrol(
            plan_id="P001", examinee_id="E009", name="김하늘", by="operator", timestamp=format_time(time.time())
        )
        await self.bus.publish(Outgoing(subjects.status_plan("P001", subjects.OPERATOR), encode(enrol), "enrol-1"))
        await proctor.expect("examinee_enrolled", examineeId="E009")

    async def mobile_sync(self, proctor: RawClient) -> RawClient:
        """Scenario 3, with a code for the phone, a picture that is none, and one that is too large."""
        examinee = await self.system.examinee("E001")
        own = self.site.bearer("examinee")
        code_path = "/v1/plans/P001/examinees/E001/phone-code"
        assert (await self.http.post(code_path, headers=own)).status_code == 409
        await examinee.say("mobile_sync_wait", planId="P001", examineeId="E001")
        await examinee.expect("mobile_sync_status", status="WAITING")
        response = await self.http.post(code_path, headers=own)
        assert response.status_code == 201
        redeemed = f"/v1/phone-codes/{response.json()['code']}"
        joined = await self.http.post(f"{redeemed}?deviceId=M001")
        assert joined.status_code == 200
        assert (await self.http.post(f"{redeemed}?deviceId=M002")).status_code == 409
        assert (await self.http.post(f"{redeemed}?deviceId=M.2")).status_code == 400
        phone = {"Authorization": f"Bearer {joined.json()['token']}"}
        assert (await self.site.put(b"no picture", headers=phone)).status_code == 415
        await proctor.expect("mobile_sync_status", examineeId="E001", status="FAILED")
        assert (await self.site.put(b"x" * 300_000, headers=phone)).status_code == 413
        assert (await self.site.put(picture(), headers=phone)).status_code == 201
        await examinee.expect("mobile_sync_completed")
        (capture,) = (await proctor.expect("mobile_sync_completed", examineeId="E001"))["data"]["captures"]
        assert (await self.http.post(code_path, headers=own)).status_code == 409
        assert (await self.http.post(redeemed)).status_code == 410
        self.capture_id = capture["captureId"]
        about = {"examineeId": "E001", "captureId": self.capture_id}
        await proctor.say("capture_review", **about, verdict="rejected", reason="TOO_DARK", requestId="c1")
        await proctor.expect("mobile_sync_status", examineeId="E001", status="WAITING", actionId="c1")
        assert (await self.http.get("/v1/plans/P001/examinees/E001/mobile-stage", headers=phone)).status_code == 200
        await proctor.say("capture_review", **about, verdict="accepted", requestId="c2")
        await proctor.expect("mobile_sync_completed", examineeId="E001", actionId="c2")
        return examinee

    async def messages(self, examinee: RawClient, proctor: RawClient) -> None:
        """A notice that is confirmed, and frames that are refused."""
        await proctor.say("notify", examineeId="E001", requestId="n1", text="잠시만 기다려 주십시오.")
        await proctor.expect("accepted", requestId="n1")
        await examinee.expect("notice", actionId="n1")
        await examinee.say("notice_confirm", actionId="n1")
        await examinee.expect("accepted", requestType="notice_confirm")
        await proctor.expect("notice_confirmed", actionId="n1")
        await self.help(examinee, proctor)
        await proctor.say("notify_plan", requestId="n2", text="Ten minutes are left.")
        await examinee.expect("notice", actionId="n2")
        await proctor.expect("plan_notice", actionId="n2")
        await proctor.say("proctor_activity", examineeId="E001", doing="looking")
        await examinee.say("heartbeat")
        await examinee.expect("heartbeat")
        await examinee.websocket.send('[{"type":"heartbeat"},{"type":"heartbeat","data":{}}]')
        await examinee.expect("heartbeat", after=len(examinee.frames))
        for nonsense in (
            '{"type":"readmit","data":{"examineeId":"E002","requestId":"r0"}}',
            '{"type":"dance","data":{}}',
            '{"type":"notice_confirm","data":{"actionId":7}}',
            '{"type":"hello","data":{"clientId":"c","connectionNo":2}}',
            '{"type":"mobile_sync_wait","data":{"planId":"P002"}}',
        ):
            before = len(examinee.frames)
            await socket_of(examinee).talk_nonsense(nonsense)
            await examinee.expect("error", after=before)
        await proctor.say("remove", examineeId="E404", requestId="r404")
        await proctor.expect("error", code="NOT_FOUND", requestId="r404")

    async def help(self, examinee: RawClient, proctor: RawClient) -> None:
        """Help that is asked, taken and closed; and asked and taken back."""
        await examinee.say("help_request", requestId="h1", text="Page 3 does not load.")
        await proctor.expect("help_requested", requestId="h1")
        await proctor.say("help_take", examineeId="E001", helpId="h1", requestId="t1")
        await examinee.expect("help_taken", requestId="h1")
        await proctor.say("help_close", examineeId="E001", helpId="h1", requestId="c1")
        await examinee.expect("help_closed", requestId="h1")
        await examinee.say("help_request", requestId="h2")
        await examinee.say("help_cancel", requestId="h2")
        await proctor.expect("help_closed", requestId="h2")

    async def loss_and_recovery(self, examinee: RawClient, proctor: RawClient) -> None:
        """Scenario 2: broken off, back on the other server, replaced by a newer tab, called lost by mistake."""
        examinee.abort()
        await proctor.expect("examinee_disconnected", examineeId="E001")
        await proctor.expect("examinee_reconnecting", examineeId="E001")
        returning = await self.system.examinee("E001", "SOCK002", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", recovered=True)
        newer = await self.system.examinee("E001", client_id="another-tab")
        assert await returning.closed() == CloseCode.REPLACED
        socket_id = (await newer.expect("session_state"))["data"]["socketId"]
        mistaken = ConnectionStatus(
            plan_id="P001",
            examinee_id="E001",
            socket_id=socket_id,
            server_id="SOCK001",
            status=ConnectionStatusCode.DISCONNECTED,
            reason=LossReason.SERVER_LOST,
            timestamp=format_time(time.time()),
        )
        before = len(proctor.frames)
        await self.bus.publish(
            Outgoing(subjects.status_plan("P001", subjects.OPERATOR), encode(mistaken), "mistaken-1")
        )
        await proctor.expect("examinee_connected", after=before, examineeId="E001")

    async def shut_out(self, proctor: RawClient) -> None:
        """All attempts used up, refused, readmitted."""
        (await self.system.examinee("E003")).abort()
        await proctor.expect("examinee_reconnect_exhausted", examineeId="E003")
        refused = await self.system.raw()
        await refused.hello(self.system.token("examinee", "E003"), "browser-E003", 2)
        assert await refused.closed() == CloseCode.RECONNECT_LIMIT_EXCEEDED
        admission = "/v1/plans/P001/examinees/E003/admission"
        response = await self.http.get(admission, headers=self.site.bearer("examinee", "E003"))
        assert response.json() == {"admitted": False}
        await proctor.say("readmit", examineeId="E003", requestId="r3")
        await proctor.expect("accepted", requestId="r3")
        await proctor.expect("examinee_readmitted", examineeId="E003")
        await self.system.examinee("E003", connection_no=3)

    async def time_is_up(self, proctor: RawClient) -> None:
        """A stage that ends without a picture, and with it the code of its phone; and is extended."""
        await self.system.examinee("E002")
        now = time.time()
        wait = MobileSyncWait(
            plan_id="P001", examinee_id="E002", timestamp=format_time(now), deadline=format_time(now + 3)
        )
        await self.bus.publish(Outgoing(subjects.status_plan("P001", subjects.OPERATOR), encode(wait), "wait-2"))
        await proctor.expect("mobile_sync_status", examineeId="E002", status="WAITING")
        code_path = "/v1/plans/P001/examinees/E002/phone-code"
        response = await self.http.post(code_path, headers=self.site.bearer("examinee", "E002"))
        assert response.status_code == 201
        await proctor.expect("mobile_sync_status", examineeId="E002", status="TIMED_OUT", seconds=20)

        code = normalise_code(response.json()["code"])
        assert code is not None
        code_subject = subjects.phone_code(code_digest(code, token_secret(self.site.settings)))
        await eventually(lambda: self.has_expired(PHONE, code_subject), "the code expires")
        late = await self.site.put(picture(), examinee_id="E002")
        assert late.status_code == 409
        await proctor.say("extend_mobile_sync", examineeId="E002", requestId="x2", seconds=60)
        await proctor.expect("mobile_sync_status", examineeId="E002", status="WAITING", actionId="x2")

    async def removal(self, proctor: RawClient) -> None:
        examinee = await self.system.examinee("E004")
        await proctor.say("remove", examineeId="E004", requestId="r4", reason="another person sat down")
        assert await examinee.closed() == CloseCode.REMOVED
        await proctor.expect("examinee_removed", examineeId="E004")
        assert (await self.site.put(picture(), examinee_id="E004")).status_code == 403

    async def decide(self, fact: type[PlanFact], **fields: Any) -> None:
        """Store a fact about P002, as an operator does."""
        message = fact(plan_id="P002", by="operator", timestamp=format_time(time.time()), **fields)
        await self.bus.publish(Outgoing(subjects.status_plan("P002", subjects.OPERATOR), encode(message)))

    async def whole_exam(self) -> None:
        """Another plan: scheduled and opened, with help, more time, hand-ins and an end; and deleted."""
        proctor = await self.system.proctor("SOCK002", plan_id="P002")
        colleague = await self.system.proctor("SOCK001", plan_id="P002", name="proctor-2")
        examinee = await self.system.examinee("E001", plan_id="P002")
        policy = PlanPolicy(unstable_share=0.001, unstable_window_seconds=60)
        begins, ends = format_time(time.time() + 3600), format_time(time.time() + 7200)
        await self.decide(PlanSchedule, starts_at=begins, ends_at=ends, policy=policy)
        await proctor.expect("plan_state", status="SCHEDULED")
        await self.decide(ExamWindow, examinee_id="E001", extra_seconds=60)
        await self.decide(PlanOpen)
        await examinee.expect("plan_state", status="OPEN", after=3)

        await examinee.say("help_request", requestId="h1", text="The keyboard does not work.")
        await proctor.expect("help_requested", examineeId="E001")
        await proctor.say("proctor_activity", examineeId="E001", doing="looking")
        await colleague.expect("proctor_activity", doing="looking")
        await proctor.say("help_take", examineeId="E001", helpId="h1", requestId="t1")
        await examinee.expect("help_taken")
        await proctor.say("help_close", examineeId="E001", helpId="h1", requestId="t2")
        await examinee.expect("help_closed")
        await examinee.say("help_request", requestId="h2")
        await examinee.say("help_cancel", requestId="h2")
        await proctor.expect("help_closed", requestId="h2")
        await proctor.say("notify_plan", requestId="n1", text="Ten minutes are left.")
        await proctor.expect("plan_notice", actionId="n1")
        await proctor.say("extend_exam", examineeId="E001", requestId="x1", seconds=60)
        await proctor.expect("accepted", requestId="x1")

        examinee.abort()
        await proctor.expect("examinee_reconnecting", examineeId="E001")
        examinee = await self.system.examinee("E001", plan_id="P002", connection_no=2)
        await proctor.expect("examinee_connected", examineeId="E001", unstable=True)
        stable = await self.bus.last_message("STATUS", subjects.status_timer("P002", "E001", "*"))
        assert stable is not None  # the minute until the schedule is not waited for
        await self.bus.publish(Outgoing(subjects.status_plan("P002", subjects.TIMER), stable.payload))
        await proctor.expect("examinee_unstable", examineeId="E001")

        await examinee.say("finish", requestId="f1")
        await proctor.expect("examinee_finished", examineeId="E001")
        await proctor.say("resume", examineeId="E001", requestId="r1")
        await proctor.expect("examinee_resumed", examineeId="E001")
        await self.decide(PlanRestate)
        await self.decide(PlanClose)
        assert await examinee.closed() == CloseCode.EXAM_OVER
        await Purger(self.bus, self.system.store, "operator").purge("P002")

    async def asked_by_http(self) -> None:
        """Each address, as it should be asked and as it should not."""
        http, bearer = self.http, self.site.bearer
        proctor, examinee = bearer("proctor", "proctor-1"), bearer("examinee")
        timeline = "/v1/plans/P001/examinees/E001/timeline"
        report = "/v1/plans/P001/report.csv"
        requests: list[tuple[str, str, dict[str, str], int]] = [
            ("GET", capture_path(), proctor, 200),
            ("HEAD", capture_path(), proctor, 200),
            ("GET", capture_path(), examinee, 200),
            ("GET", capture_path().replace("sync_cap", self.capture_id), proctor, 200),
            ("GET", capture_path(), {}, 401),
            ("GET", capture_path(), bearer("examinee", "E002"), 403),
            ("GET", capture_path(examinee_id="E003"), proctor, 404),
            ("GET", capture_path(examinee_id="E.3"), proctor, 400),
            ("GET", capture_path().replace("sync_cap", "0" * 64), proctor, 404),
            ("GET", capture_path().replace("sync_cap", "0" * 64), examinee, 403),
            ("GET", capture_path().replace("sync_cap", "other"), proctor, 400),
            ("GET", timeline, proctor, 200),
            ("GET", f"{timeline}?limit=3&all=true", proctor, 200),
            ("GET", f"{timeline}?limit=0", proctor, 400),
            ("GET", timeline, examinee, 403),
            ("GET", timeline.replace("E001", "E404"), proctor, 404),
            ("GET", report, proctor, 200),
            ("GET", f"{report}?affected=true&ignoreBelowSeconds=0.5&from=2020-01-01T00:00:00Z", proctor, 200),
            ("GET", f"{report}?from=yesterday", proctor, 400),
            ("GET", report, {}, 401),
            ("GET", "/v1/plans/P001/examinees/E001/mobile-stage", bearer(), 200),
            ("GET", "/v1/plans/P001/examinees/E404/mobile-stage", bearer("mobile", "E404"), 200),
            ("GET", "/v1/plans/P001/examinees/E001/mobile-stage", proctor, 403),
            ("GET", "/v1/endpoints", {}, 200),
            ("GET", "/healthz", {}, 200),
            ("GET", "/readyz", {}, 404),
            ("GET", "/metrics", {}, 404),
            ("GET", "/nowhere", {}, 404),
            ("DELETE", report, proctor, 405),
            ("PUT", upload_path(deviceId="M.1"), bearer(), 400),
            ("PUT", upload_path(), {}, 401),
            ("PUT", upload_path("P002"), bearer(), 403),
        ]
        for method, path, headers, status in requests:
            response = await http.request(method, path, headers=headers)
            assert response.status_code == status, (method, path, response.text)
        for headers, status in (({}, 404), ({"Origin": "https://other.example"}, 403)):
            response = await http.post("/v1/phone-codes/2222-2222", headers=headers)
            assert response.status_code == status

    async def operators(self, proctor: RawClient) -> None:
        """Inspected, tailed, kicked."""
        inbox = self.bus.new_inbox()
        await ask(self.bus, "socket.SOCK002", Tail(inbox=inbox, seconds=5))
        examinee = await self.system.examinee("E005", "SOCK002")
        for entry in await self.bus.services():
            await self.bus.request(entry.metadata["inspect"])
            await self.bus.request(f"{entry.metadata['inspect']}.process")
            if entry.metadata["address"] == "socket.SOCK002":
                page = await self.bus.request(entry.metadata["inspect"], b'{"sessions":{"limit":2,"planId":"P001"}}')
                assert json.loads(page)["sessions"]
                await self.bus.request(entry.metadata["inspect"], BAD_PAGE)
        await self.bus.request(subjects.session("P001", "E005"))
        await self.bus.publish(Outgoing(subjects.PROBE, b""))  # as the doctor does
        for request in (Kick(socket_id="SOCK002-none"), Stop()):  # it has no process of its own to end here
            with pytest.raises((NotFound, RequestRefused)):
                await ask(self.bus, "socket.SOCK002", request)
        invalid_request = QueueCreate(server_id="SOCK003", queue_id="SOCK009_Q")
        assert json.loads(await self.bus.request(subjects.QUEUE_CREATE, encode(invalid_request)))["type"] == "error"
        socket_id = (await examinee.expect("session_state"))["data"]["socketId"]
        await announce_sessions(self.bus, "STATE_REPAIRED")  # as a state manager does after a loss of Redis
        await examinee.expect("session_state", after=len(examinee.frames))
        await ask(self.bus, "socket.SOCK002", Kick(socket_id=socket_id))
        assert await examinee.closed() == CloseCode.KICKED
        await proctor.expect("examinee_disconnected", examineeId="E005", reason="KICKED")

    async def dead_letter(self) -> None:
        """A message that nobody can read is put aside, mended and replayed."""
        await self.bus.publish(Outgoing(subjects.status_plan("P001", subjects.OPERATOR), GARBAGE))
        desk = DeadLetterAdmin(self.bus)

        async def put_aside() -> int:
            return next(iter([letter.number async for letter in desk.letters()]), 0)

        number = await eventually(put_aside, "the letter")
        mended = Readmit(plan_id="P001", examinee_id="E001", by="operator", timestamp=format_time(time.time()))
        await desk.replay(number, encode(mended))

    async def drained(self, proctor: RawClient) -> None:
        """SOCK001 is drained: its clients go to SOCK002, and then it ends."""

        async def known() -> bool:
            return bool(self.system.server("SOCK001")._endpoints.others)

        await eventually(known, "another server to go to")
        moving = await self.system.examinee("E006")
        watching = await self.system.proctor("SOCK002", name="proctor-3")
        await ask(self.bus, "socket.SOCK001", Drain(over_seconds=0))
        assert await moving.closed() == CloseCode.MIGRATE
        assert await proctor.closed() == CloseCode.MIGRATE
        await watching.expect("examinee_migrating", examineeId="E006")
        await self.system.examinee("E006", "SOCK002", connection_no=2)
        await watching.expect("examinee_connected", examineeId="E006", migrated=True)
        await self.system.stop("SOCK001")
        await watching.close()

        await eventually(lambda: self.has_expired(LEASE, subjects.lease("SOCK001")), "the lease expires")

    async def has_expired(self, stream: StreamSpec, subject: str) -> bool:
        """Whether NATS has left its marker."""
        newest = await self.bus.last_message(stream.name, subject)
        return newest is not None and "Nats-Marker-Reason" in newest.headers


async def test_everything_that_goes_over_the_wire_is_specified(quick: Settings, bus: Bus, store: StateStore) -> None:
    spoken, served = AsyncApi(asyncapi("0")), OpenApi(openapi("0"))
    broker = await RecordedBroker.listen(quick.nats_url)
    async with RecordedSystem(quick) as system:
        server = await system.start("web-server", lambda own: WebServer(quick, own, system.store))
        assert isinstance(server, WebServer)
        site = Site(server, quick, bus)
        http = RecordedHttp(served, site.http)
        await Exam(system, site, bus).run()
        await site.http.aclose()
        await settled(broker)
        assert system.failures == []
    stored = await broker.stored(bus)
    await broker.close()

    frames = system.check(spoken)
    published_count = check_messages(spoken, broker.published, NONSENSE)
    stored_count = check_messages(spoken, stored, NONSENSE)
    print(f"{frames} frames, {published_count} NATS messages, {stored_count} stored, {http.exchanges} HTTP exchanges")
    assert min(frames, published_count, stored_count) > 100
    assert http.exchanges > 40
    specified = {
        f"{channel}/{message}"
        for channel, described in spoken.document["channels"].items()
        for message in described["messages"]
    }
    # Whether messages are ready together is a matter of moments.
    unseen = {name for name in specified - spoken.seen if not name.endswith("/array")}
    assert unseen - {"connect/server.array"} == set(NOT_IN_THIS_RUN)
    assert {f"{route.method} {route.path} {route.answer.status}" for route in ROUTES} <= served.seen

    # And it would notice: a field under another name, in a frame, on a subject, in the header of a message.
    for schema, field in (("ExamineeDisconnected", "reason"), ("PlanSnapshot", "parts"), ("Hello", "connectionNo")):
        with pytest.raises(SpecBroken, match=f"{field}|{field}X"):
            system.check(AsyncApi(renamed(spoken.document, schema, field)))
    for schema, field in (("ConnectionStatus", "connectionNo"), ("Lease", "cpuUsage"), ("Letter", "reason")):
        with pytest.raises(SpecBroken, match=f"{field}|{field}X"):
            check_messages(AsyncApi(renamed(spoken.document, schema, field)), broker.published, NONSENSE)


def renamed(document: dict[str, Any], schema: str, field: str) -> dict[str, Any]:
    """The document with another name for a field."""
    changed = copy.deepcopy(document)
    schema_of = changed["components"]["schemas"][schema]
    schema_of["properties"][f"{field}X"] = schema_of["properties"].pop(field)
    if field in schema_of.get("required", []):
        schema_of["required"] = [f"{field}X" if name == field else name for name in schema_of["required"]]
    return changed


async def test_an_unspecified_answer_fails_the_check(quick: Settings, bus: Bus, store: StateStore) -> None:
    document = openapi("0")
    del document["components"]["schemas"]["Admission"]["properties"]["admitted"]
    async with open_site(quick, bus, store) as site:
        RecordedHttp(OpenApi(document), site.http)
        with pytest.raises(SpecBroken, match="admitted"):
            await site.http.get("/v1/plans/P001/examinees/E001/admission", headers=site.bearer("examinee"))
        with pytest.raises(SpecBroken, match="only"):
            OpenApi(document).exchange("GET", "/healthz", "", 418, {}, b"")
