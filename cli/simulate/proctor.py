"""Simulated proctors, which watch a plan and record the sockets that events mention."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from actors.client.client import GaveUp
from actors.client.proctor import ProctorClient
from protocol.client.plan_view import ApplyResult, ExamineeView, PlanView
from protocol.messages.base import Message
from protocol.messages.facts import NoticeConfirmed
from protocol.messages.frames import Accepted, Error, NotifyFrame, PlanSnapshot, Welcome
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeFinished,
    ExamineeMigrating,
)

SNAPSHOT_SECONDS = 15.0
READMIT_SECONDS = 15.0


class ProctorView(PlanView):
    """A proctor's view of a plan, with a query for the simulation."""

    def is_exhausted(self, examinee_id: str) -> bool:
        """Return whether the examinee would be refused until a proctor readmits it."""
        return self.examinees.get(examinee_id, ExamineeView(examinee_id)).exhausted


class SimulatedProctor:
    """One proctor. `opened` and `ended`: the sockets in its events; `interrupted`: it may have missed events.

    `notices`: the actionIds of its accepted messages; `confirmed`: how many events confirmed each of them. `finished`:
    the examinees in its events about the end of the exam.

    Example::

        proctor = SimulatedProctor("T001", url, token)
        await proctor.join()
        await proctor.until(lambda view: view.is_exhausted("E001"), seconds=60)
    """

    def __init__(self, name: str, url: str, token: str, on_event: Callable[[Message], None] | None = None) -> None:
        self.name = name
        self.view = ProctorView()
        self.client = ProctorClient(url, token, client_id=name, browser_info="examwire simulate")
        self.client.view = self.view
        self.opened: set[str] = set()
        self.ended: set[str] = set()
        self.finished: set[str] = set()
        self.notices: set[str] = set()
        self.confirmed: Counter[str] = Counter()
        self.interrupted = False
        self.errors: list[str] = []
        self._on_event = on_event
        self._waiting: dict[asyncio.Future[None], Callable[[ProctorView], bool]] = {}

    @property
    def welcome(self) -> Welcome:
        """The welcome of the latest connection."""
        assert self.client.welcome is not None
        return self.client.welcome

    async def join(self) -> None:
        """Connect and receive the whole snapshot. Raises `ConnectRefused`, `TimeoutError`."""
        await self.client.connect()
        async with asyncio.timeout(SNAPSHOT_SECONDS):
            while not self.view.complete:
                self._take_in(await self.client.receive())

    async def watch(self) -> None:
        """Process incoming messages until cancelled or given up."""
        try:
            async for message in self.client.frames():
                self._take_in(message)
        except GaveUp as gave_up:
            self.errors.append(f"{self.name}: {gave_up}")

    def _take_in(self, message: Message) -> None:
        match message:
            case Welcome():
                self.interrupted = True
            case PlanSnapshot(resync=True):
                self.interrupted = True
            case Accepted(request_type=NotifyFrame.type, request_id=str(action_id)):
                self.notices.add(
                    action_id
                )  # count accepted messages only: a message lost with the connection was never sent
            case Error():
                self.errors.append(f"{self.name}: {message.code} {message.message}")
            case ExamineeConnected():
                self.opened.add(message.socket_id)
                if message.replaced is not None:
                    self.ended.add(message.replaced.socket_id)
            case ExamineeMigrating():
                self.ended.add(message.socket_id)
            case ExamineeDisconnected() if message.socket_id is not None:
                self.ended.add(message.socket_id)
            case ExamineeFinished():
                self.finished.add(message.examinee_id)
            case NoticeConfirmed(restated=None):
                self.confirmed[message.action_id] += 1
        if self.client.verdict is ApplyResult.APPLIED and self._on_event is not None:
            self._on_event(message)
        if not isinstance(message, Accepted):
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        for waiter, condition in list(self._waiting.items()):
            if not waiter.done() and condition(self.view):
                waiter.set_result(None)

    async def until(self, condition: Callable[[ProctorView], bool], seconds: float) -> None:
        """Wait until `condition` is true for the view. Raises `TimeoutError`."""
        if condition(self.view):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = condition
        try:
            async with asyncio.timeout(seconds):
                await waiter
        finally:
            del self._waiting[waiter]

    async def notify(self, examinee_id: str, text: str) -> str:
        """Send a message to an examinee and return its actionId. Raises `ConnectionLost`."""
        return await self.client.notify(examinee_id, text)

    async def readmit(self, examinee_id: str) -> None:
        """Readmit an examinee and wait for the event. Raises `TimeoutError`."""
        await self.until(lambda view: view.is_exhausted(examinee_id), READMIT_SECONDS)
        await self.client.readmit(examinee_id)
        await self.until(lambda view: not view.is_exhausted(examinee_id), READMIT_SECONDS)
