"""Proctors that watch a plan: what they see, and which sockets they were told of."""

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
from protocol.messages.proctor_events import ExamineeConnected, ExamineeDisconnected, ExamineeMigrating

SNAPSHOT_SECONDS = 15.0
READMIT_SECONDS = 15.0


class ProctorView(PlanView):
    """A plan's view with the questions that the simulation asks."""

    def is_exhausted(self, examinee_id: str) -> bool:
        """Whether a recovery of the examinee would be refused."""
        return self.examinees.get(examinee_id, ExamineeView(examinee_id)).exhausted


class SimulatedProctor:
    """One proctor. `opened` and `ended` are the sockets that events told of; `interrupted`: some may be unseen.

    `notices`: the actionIds of its messages that were accepted; `confirmed`: how often events told of a confirmation.
    """

    def __init__(self, name: str, url: str, token: str, on_event: Callable[[Message], None] | None = None) -> None:
        self.name = name
        self.view = ProctorView()
        self.client = ProctorClient(url, token, client_id=name, browser_info="examwire simulate")
        self.client.view = self.view
        self.opened: set[str] = set()
        self.ended: set[str] = set()
        self.notices: set[str] = set()
        self.confirmed: Counter[str] = Counter()
        self.interrupted = False
        self.errors: list[str] = []
        self._on_event = on_event
        self._waiting: dict[asyncio.Future[None], Callable[[ProctorView], bool]] = {}

    @property
    def welcome(self) -> Welcome:
        """Of the latest connection."""
        assert self.client.welcome is not None
        return self.client.welcome

    async def join(self) -> None:
        """Connect and receive the whole snapshot. Raises `ConnectRefused`, `TimeoutError`."""
        await self.client.connect()
        async with asyncio.timeout(SNAPSHOT_SECONDS):
            while not self.view.complete:
                self._take_in(await self.client.receive())

    async def watch(self) -> None:
        """Take in what comes, until cancelled or given up."""
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
                self.notices.add(action_id)  # what a broken connection took along was sent to nobody
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
            case NoticeConfirmed(restated=None):
                self.confirmed[message.action_id] += 1
        if self.client.verdict is ApplyResult.APPLIED and self._on_event is not None:
            self._on_event(message)
        if not isinstance(message, Accepted):
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        for waiting, holds in list(self._waiting.items()):
            if not waiting.done() and holds(self.view):
                waiting.set_result(None)

    async def until(self, holds: Callable[[ProctorView], bool], seconds: float) -> None:
        """Until the view is so. Raises `TimeoutError`."""
        if holds(self.view):
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = holds
        try:
            async with asyncio.timeout(seconds):
                await waiting
        finally:
            del self._waiting[waiting]

    async def notify(self, examinee_id: str, text: str) -> str:
        """Send an examinee a message. Returns its actionId. Raises `ConnectionLost`."""
        return await self.client.notify(examinee_id, text)

    async def readmit(self, examinee_id: str) -> None:
        """Let an examinee in again and see it told. Raises `TimeoutError`."""
        await self.until(lambda view: view.is_exhausted(examinee_id), READMIT_SECONDS)
        await self.client.readmit(examinee_id)
        await self.until(lambda view: not view.is_exhausted(examinee_id), READMIT_SECONDS)
