"""Simulated examinees: their actions are drawn from a seed, their reconnects follow the rules of the client library."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from PIL import Image, ImageDraw

from actors.client.client import Change, ConnectionLost, ConnectRefused, GaveUp
from actors.client.examinee import ExamineeClient
from cli.simulate.proctor import SimulatedProctor
from cli.simulate.stories import SHORT_ACTIONS, Action
from protocol.client.exam_clock import ExamPhase
from protocol.client.reconnect import GiveUp, GiveUpReason, Lost, Wait
from protocol.close_codes import CloseCode
from protocol.errors import ExamwireError
from protocol.messages.facts import ConnectionStatusCode, FinishReason
from protocol.messages.frames import ReconnectPolicy, Role, Welcome
from protocol.messages.session_messages import SessionState
from protocol.times import parse_time

UPLOAD_TRIES = 4
UPLOAD_SECONDS = 10.0
GRACE_SECONDS = 20.0
MORE_SECONDS = 10
LONGEST_STAGE_SECONDS = 30.0
"""Nobody waits in an exam for a deadline that is farther away: the stage may end after the exam."""
BEGIN_SECONDS = 60.0
HAND_IN_SHARE = 0.75
"""So many hand in; the others are there when the plan ends."""
LEAVING_SHARE = 0.5
"""So many of them close the page then."""
MESSAGES = (
    "Ten minutes are left.",
    "Please put your phone where the camera sees it.",
    "시험 종료 10분 전입니다.",
    "책상 위를 정리해 주시기 바랍니다.",
)


class DeadlinePassed(ExamwireError):
    """The web server refuses the picture because the mobile sync stage is over."""


class ExamOver(ExamwireError):
    """The plan has ended while the examinee was doing something."""


@dataclass(frozen=True, slots=True)
class SimulationTarget:
    """The tested system: addresses, plan, a function that signs tokens, and the speed relative to people."""

    socket_urls: tuple[str, ...]
    web_url: str | None
    plan_id: str
    token: Callable[[Role, str], str]
    speed: float = 1.0


@dataclass(slots=True)
class ActualSockets:
    """The sockets of an examinee for which a `session_state` came, and the current one.

    `quiet`: those whose end is no loss, because the exam was over for the examinee. `finished`: why it was.
    """

    opened: set[str] = field(default_factory=set)
    current: str | None = None
    quiet: set[str] = field(default_factory=set)
    finished: FinishReason | None = None


class SimulatedExaminee:
    """One examinee, who performs the actions of a `story`. `doing` and `waiting` are for the live view.

    `confirmed`: the proctors' messages that were confirmed; `unread`: those that were not, as the simulation ended.
    `over`: the client was told that the exam is over. `hands_in`, `leaves`: what the examinee does at its end.

    Example::

        examinee = SimulatedExaminee("E001", target, (Action.CLOSES, Action.SYNCS), proctor, random.Random(1))
        await examinee.live(endless=False)
        await examinee.leave()
    """

    def __init__(
        self,
        examinee_id: str,
        target: SimulationTarget,
        story: tuple[Action, ...],
        proctor: SimulatedProctor,
        rng: random.Random,
    ) -> None:
        self.examinee_id = examinee_id
        self.story = story
        self.performed = 0
        self.uploads = 0
        self.confirmed: set[str] = set()
        self.unread: set[str] = set()
        self.failures: list[str] = []
        self.doing = "not there yet"
        self.waiting: Wait | None = None
        self.truth = ActualSockets()
        self.over = False
        self.hands_in = rng.random() < HAND_IN_SHARE
        self.leaves = rng.random() < LEAVING_SHARE
        self._target = target
        self._proctor = proctor
        self._rng = rng
        self._first = rng.randrange(len(target.socket_urls))
        self._client_count = 0
        self._changed_event = asyncio.Event()
        self._gave_up: GiveUp | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self.client = self._new_client()

    @property
    def present(self) -> bool:
        """Whether the examinee is connected and the system has recorded it."""
        welcome = self.client.welcome
        return self.client.connected and welcome is not None and welcome.socket_id == self.truth.current

    @property
    def away(self) -> bool:
        """Whether there is no connection, so that proctors must see a loss."""
        return not self.client.connected

    def ended(self) -> set[str]:
        """Return the sockets whose end is a loss."""
        return self.truth.opened - self.truth.quiet - ({self.truth.current} if self.client.connected else set())

    # -- the story -----------------------------------------------------------------------------------

    async def live(self, *, endless: bool, exam: bool = False) -> None:
        """Join, then perform the actions of the story. `endless`: then perform short actions until cancelled.

        `exam`: first wait for its beginning, and hand in at its end.
        """
        with contextlib.suppress(ExamOver):
            await self._pause(0.0, 2.0)
            await self._attempt("joins", self._join())
            if exam:
                await self._attempt("waits for the beginning", self._wait_for_the_beginning())
            await self._perform_story(endless=endless, exam=exam)
            if exam and self.hands_in:
                await self._attempt("hands in", self._hand_in())
        self.doing = "has handed in" if self.truth.finished is FinishReason.HANDED_IN else ""

    async def _perform_story(self, *, endless: bool, exam: bool) -> None:
        acts = list(self.story)
        last_seconds = self._rng.uniform(2.0, 10.0)
        while acts or endless:
            self.doing = ""
            await self._pause(1.0, 6.0)
            left = self.client.exam.seconds
            if exam and endless and self.hands_in and left is not None and left < last_seconds:
                return
            act = acts.pop(0) if acts else self._rng.choice(SHORT_ACTIONS)
            if not self.present:  # after the loss of a server, wait before the next action
                await self._attempt("waits for the connection", self._come_back())
            await self._attempt(act.value, self._perform(act))
            self.performed += 1

    async def _wait_for_the_beginning(self) -> None:
        left = self.client.exam.seconds or 0.0
        await self._until(lambda: self.client.exam.phase is ExamPhase.RUNNING, left + BEGIN_SECONDS)

    async def _hand_in(self) -> None:
        if not self.present:
            await self._come_back()
        await self.client.finish()
        await self._until(lambda: self.client.finished, GRACE_SECONDS)
        if self.leaves:
            await self._pause(0.5, 2.0)
            await self.client.close()

    async def _attempt(self, what: str, act: Coroutine[Any, Any, None]) -> None:
        self.doing = what
        try:
            await act
        except ExamOver:
            raise
        except (ExamwireError, OSError) as error:  # TimeoutError is an OSError
            if self.over:
                raise ExamOver from error
            self.failures.append(f"{self.examinee_id} {what}: {error if str(error) else 'not in time'}")

    async def _perform(self, act: Action) -> None:
        match act:
            case Action.CLOSES:
                await self.client.close()
                await self._pause(1.0, 4.0)
                await self._join()
            case Action.BREAKS:
                self.client.abort()
                await self._come_back()
            case Action.HANGS:
                self.client.fall_silent()
                # Longer than the ping interval and timeout, which `heartbeatSeconds` follows.
                interval = self._policy()[1]
                await asyncio.sleep(3 * interval + 1)
                self.client.wake()
                with contextlib.suppress(TimeoutError):  # a server may have a longer ping timeout
                    await self._until(lambda: not self.client.connected, interval)
                await self._come_back()
            case Action.MOVES:
                await self._move()
            case Action.SYNCS:
                await self._sync()
            case Action.NEVER_SYNCS:
                await self._never_sync()
            case Action.IS_TOLD:
                await self._be_told()
            case Action.STAYS_AWAY:
                await self._stay_away()

    async def _join(self) -> None:
        """Connect with the current client; if it is refused, wait until a proctor readmits it."""
        self._read(connect=True)
        await self._come_back()

    async def _come_back(self) -> None:
        """Wait until the client has reconnected and the system has recorded it."""
        while True:
            known = self._policy()[0]
            limit = sum(known.backoff_seconds) * (1 + known.jitter) + GRACE_SECONDS
            await self._until(lambda: self.present or self._gave_up is not None, limit)
            if self._gave_up is None:
                return
            if self._gave_up.code != CloseCode.RECONNECT_LIMIT_EXCEEDED:
                if self._gave_up.reason is GiveUpReason.ATTEMPTS_USED_UP:
                    self._read(connect=True)  # a person reloads the page
                    continue
                raise TimeoutError(f"gave up: {self._gave_up.reason} {self._gave_up.code or self._gave_up.status}")
            self.doing = "asks a proctor to be let in"
            await self._proctor.readmit(self.examinee_id)
            self._read(connect=True)

    async def _move(self) -> None:
        old_client, old_reader = self.client, self._reader
        # The old client must not reconnect, for any reason.
        old_client.reconnect = False
        self.client = self._new_client()
        self._read(connect=True)
        await self._come_back()
        if old_reader is not None:  # the server closes the old connection with REPLACED
            await asyncio.wait({old_reader}, timeout=GRACE_SECONDS)
            if not old_reader.done():
                await old_client.close()
                raise TimeoutError("the older connection was not closed")

    async def _sync(self) -> None:
        client = self.client
        if self._target.web_url is None:
            raise OSError("no web server to upload to: set --web-url")
        before = client.mobile_sync.version
        for may_repeat in (True, False):
            await client.enter_mobile_sync()
            await self._until(lambda: client.mobile_sync.status in ("WAITING", "COMPLETED"), GRACE_SECONDS)
            if client.mobile_sync.status == "COMPLETED":
                await self._be_asked_again(client)
            if client.mobile_sync.status == "WAITING" and self._rng.random() < 0.5:
                await self._ask_for_more_time(client)
            await self._pause(1.0, 3.0)
            try:
                await asyncio.to_thread(self._upload, self._target.web_url, self._picture())
                break
            except DeadlinePassed:  # the stage was entered long ago, as after a reload: enter it again
                if not may_repeat:
                    raise
        self.uploads += 1
        await self._until(
            lambda: client.mobile_sync.status == "COMPLETED" and client.mobile_sync.version > before, GRACE_SECONDS
        )

    async def _be_asked_again(self, client: ExamineeClient) -> None:
        """Have the proctor reject the picture that is there, so that another one is taken."""
        captures = client.mobile_sync.captures or []
        counting = next(capture.capture_id for capture in captures if capture.verdict != "rejected")
        await self._proctor.client.review_capture(self.examinee_id, counting, "rejected", reason="BLURRED")
        await self._until(lambda: client.mobile_sync.status == "WAITING", GRACE_SECONDS)

    async def _ask_for_more_time(self, client: ExamineeClient) -> None:
        """Have the proctor extend the deadline of the mobile sync."""
        deadline = client.mobile_sync.deadline or ""
        await self._proctor.client.extend_mobile_sync(self.examinee_id, MORE_SECONDS)
        await self._until(
            lambda: client.mobile_sync.status != "WAITING" or (client.mobile_sync.deadline or "") > deadline,
            GRACE_SECONDS,
        )

    async def _be_told(self) -> None:
        client = self.client
        action_id = await self._proctor.notify(self.examinee_id, self._rng.choice(MESSAGES))
        try:
            await self._until(lambda: action_id in client.notices, GRACE_SECONDS)
            await self._pause(0.5, 3.0)  # reading time
        except asyncio.CancelledError:
            self.unread.add(action_id)
            raise
        await client.confirm_notice(action_id)
        self.confirmed.add(action_id)
        await self._proctor.until(lambda _: self._proctor.confirmed[action_id] > 0, GRACE_SECONDS)

    async def _never_sync(self) -> None:
        client = self.client
        await client.enter_mobile_sync()
        await self._until(lambda: client.mobile_sync.status in ("WAITING", "COMPLETED"), GRACE_SECONDS)
        deadline = client.mobile_sync.deadline
        if client.mobile_sync.status == "COMPLETED" or deadline is None:
            return  # an earlier run has completed the stage; that is final
        left = parse_time(deadline) - parse_time(client.mobile_sync.timestamp or deadline)
        if client.exam.seconds is not None and left > LONGEST_STAGE_SECONDS:
            return  # it ends after the exam
        await self._until(lambda: client.mobile_sync.status == "TIMED_OUT", left + GRACE_SECONDS)

    async def _stay_away(self) -> None:
        await self._stop_reading()
        self.client.abort()
        steps = self._policy()[0].backoff_seconds
        await self._proctor.until(lambda view: view.is_exhausted(self.examinee_id), sum(steps) + GRACE_SECONDS)
        await self._pause(0.5, 2.0)
        await self._join()

    # -- the client ----------------------------------------------------------------------------------

    def _new_client(self) -> ExamineeClient:
        urls = self._target.socket_urls
        url = urls[(self._first + self._client_count) % len(urls)]  # the next client connects to another server
        self._client_count += 1
        return ExamineeClient(
            url,
            self._target.token("examinee", self.examinee_id),
            client_id=f"{self.examinee_id[:40]}-place-{self._client_count}-{self._rng.randrange(16**6):06x}",
            browser_info="examwire simulate",
            on_change=self._changed,
            rng=random.Random(self._rng.random()),
        )

    def _policy(self) -> tuple[ReconnectPolicy, float]:
        welcome = self.client.welcome or self._proctor.welcome
        return welcome.reconnect, welcome.heartbeat_seconds

    def _changed(self, change: Change) -> None:
        self.waiting = change if isinstance(change, Wait) else None
        self._changed_event.set()

    def _read(self, *, connect: bool) -> None:
        self._gave_up = None
        self._reader = asyncio.create_task(self._receive(self.client, connect=connect))
        self._readers.add(self._reader)
        self._reader.add_done_callback(self._readers.discard)

    async def _receive(self, client: ExamineeClient, *, connect: bool) -> None:
        try:
            if connect:
                with contextlib.suppress(ConnectRefused):  # frames() goes on by the rules
                    await client.connect()
            async for frame in client.frames():
                if isinstance(frame, SessionState) and client is self.client:
                    self._take_in(frame)
                elif isinstance(frame, Welcome):
                    client.session_state = None
                self._changed_event.set()
        except ConnectionLost:
            return  # the old client, see _move
        except GaveUp as gave_up:
            if client is self.client:
                self._give_up(gave_up)

    def _take_in(self, state: SessionState) -> None:
        if state.connection.status != ConnectionStatusCode.FINISHED:
            self.truth.opened.add(state.socket_id)
            self.truth.current = state.socket_id
        elif self.truth.current is not None:
            self.truth.finished = FinishReason(state.connection.reason or FinishReason.DECIDED)
            self.truth.quiet.add(self.truth.current)

    def _give_up(self, gave_up: GaveUp) -> None:
        self._gave_up = gave_up.step
        if gave_up.step.code == CloseCode.EXAM_OVER:
            self.over = True
            welcome, last = self.client.welcome, gave_up.last
            was_there = isinstance(last, Lost) and last.lasted > 0
            if was_there and welcome is not None and welcome.socket_id == self.truth.current:
                self.truth.quiet.add(welcome.socket_id)
                self.truth.finished = self.truth.finished or FinishReason.PLAN_ENDED
        self._changed_event.set()

    async def _stop_reading(self) -> None:
        for reader in list(self._readers):
            reader.cancel()
        if self._readers:
            await asyncio.wait(self._readers)

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                if self.over:
                    raise ExamOver
                self._changed_event.clear()
                await self._changed_event.wait()

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._rng.uniform(least, most) / self._target.speed)

    async def leave(self) -> None:
        """Close the connection and stop all tasks."""
        await self.client.close()
        await self._stop_reading()

    # -- the phone -----------------------------------------------------------------------------------

    def _picture(self) -> bytes:
        size = (self._rng.choice((640, 800, 1024)), self._rng.choice((480, 600, 768)))
        image = Image.effect_noise(size, self._rng.uniform(10, 60)).convert("RGB")
        # Each picture is different, as an identical one would be a retry without effect.
        label = f"{self._target.plan_id} {self.examinee_id} {time.time_ns()}"
        ImageDraw.Draw(image).text((20, 20), label, fill=(255, 240, 0))
        content = io.BytesIO()
        image.save(content, "JPEG", quality=80)
        return content.getvalue()

    def _upload(self, web_url: str, picture: bytes) -> None:
        """Upload as a phone does: PUT, repeated after Retry-After on a 503. Raises `OSError`, `DeadlinePassed`."""
        plan_id, token = self._target.plan_id, self._target.token("mobile", self.examinee_id)
        query = urlencode({"deviceId": f"M-{self.examinee_id}"[:64], "model": "Simulated", "osVersion": "1"})
        path = f"/v1/plans/{plan_id}/examinees/{self.examinee_id}/mobile-sync?{query}"
        for _ in range(UPLOAD_TRIES):
            status, retry_after, body = _put(web_url, path, token, picture)
            if status == 201:
                return
            if status == 409:
                raise DeadlinePassed(body[:200])
            if status != 503:
                break
            time.sleep(retry_after)  # this function runs in its own thread
        raise OSError(f"the upload was answered with {status}: {body[:200]}")


def _put(web_url: str, path: str, token: str, body: bytes) -> tuple[int, float, str]:
    parts = urlsplit(web_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=UPLOAD_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        connection.request("PUT", parts.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        later = response.getheader("Retry-After") or ""
        return response.status, float(later) if later.isdigit() else 1.0, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"the web server at {web_url} does not speak HTTP: {error!r}") from error
    finally:
        connection.close()
