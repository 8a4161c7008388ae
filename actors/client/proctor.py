"""The typed Python client of a proctor: see `actors.client.client`."""

from __future__ import annotations

import secrets
from typing import Unpack

from actors.client.client import Client, ClientOptions
from protocol.client.plan_view import ApplyResult, PlanView
from protocol.messages.base import Message
from protocol.messages.frames import ExtendMobileSyncFrame, NotifyFrame, ReadmitFrame, RemoveFrame


class ProctorClient(Client):
    """A proctor's connection; `view` is the plan as told so far. `verdict` is the view's on the last message.

    Each action returns its requestId: `accepted` with it (or an `error`) follows as a frame, the effect as an event
    with that `actionId`. Whoever does not know whether an action arrived repeats it with the same `request_id`, on
    whatever connection: it has one effect.
    """

    __slots__ = ("verdict", "view")

    def __init__(self, url: str, token: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, token, **options)
        self.view = PlanView()
        self.verdict = ApplyResult.OTHER

    async def readmit(self, examinee_id: str, *, request_id: str | None = None) -> str:
        """Let an examinee in again after RECONNECT_LIMIT_EXCEEDED or a removal: `examinee_readmitted`."""
        return await self._ask(ReadmitFrame(examinee_id=examinee_id, request_id=request_id or secrets.token_hex(12)))

    async def remove(self, examinee_id: str, *, reason: str | None = None, request_id: str | None = None) -> str:
        """End the examinee's connection, and let nobody in under this id until readmitted: `examinee_removed`."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(RemoveFrame(examinee_id=examinee_id, request_id=request_id, reason=reason))

    async def extend_mobile_sync(self, examinee_id: str, seconds: int, *, request_id: str | None = None) -> str:
        """10 to 3600 `seconds` more for the picture: `mobile_sync_status` WAITING with the new deadline."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(ExtendMobileSyncFrame(examinee_id=examinee_id, request_id=request_id, seconds=seconds))

    async def notify(self, examinee_id: str, text: str, *, request_id: str | None = None) -> str:
        """Show the examinee a message of at most 1000 characters: `notice`, and `notice_confirmed` once it is read."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(NotifyFrame(examinee_id=examinee_id, request_id=request_id, text=text))

    async def _ask(self, frame: ReadmitFrame | RemoveFrame | ExtendMobileSyncFrame | NotifyFrame) -> str:
        await self.send(frame)
        assert frame.request_id is not None
        return frame.request_id

    def _take_in(self, message: Message) -> None:
        self.verdict = self.view.apply(message)
