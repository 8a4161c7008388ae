"""The typed Python client of a proctor: see `actors.client.client`."""

from __future__ import annotations

import secrets
from typing import Unpack

from actors.client.client import Client, ClientOptions
from protocol.client.plan_view import ApplyResult, PlanView
from protocol.messages.base import Message
from protocol.messages.frames import (
    ActivityFrame,
    CloseHelp,
    ExtendExamFrame,
    ExtendMobileSyncFrame,
    FinishFrame,
    NotifyFrame,
    NotifyPlanFrame,
    ProctorAction,
    ReadmitFrame,
    RemoveFrame,
    ResumeFrame,
    ReviewCaptureFrame,
    TakeHelp,
)
from protocol.messages.session_messages import ProctorDoing
from protocol.messages.views import Verdict


class ProctorClient(Client):
    """The client of a proctor. `view` is the plan as told so far, `verdict` what it did with the last message.

    client = ProctorClient("ws://127.0.0.1:8001", token)
    await client.connect()
    request_id = await client.readmit("E001")

    Each action returns its requestId. A frame `accepted` (or `error`) with it follows, and the effect as an event with
    that `actionId`. When it is not known whether an action arrived, repeat it with the same `request_id`, on any
    connection: it has one effect.
    """

    __slots__ = ("verdict", "view")

    def __init__(self, url: str, token: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, token, **options)
        self.view = PlanView()
        self.verdict = ApplyResult.OTHER

    async def readmit(self, examinee_id: str, *, request_id: str | None = None) -> str:
        """Let an examinee in again after RECONNECT_LIMIT_EXCEEDED or a removal. Event: `examinee_readmitted`."""
        return await self._ask(ReadmitFrame(examinee_id=examinee_id, request_id=request_id or secrets.token_hex(12)))

    async def remove(self, examinee_id: str, *, reason: str | None = None, request_id: str | None = None) -> str:
        """Close the examinee's connection, and refuse new ones until a readmission. Event: `examinee_removed`."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(RemoveFrame(examinee_id=examinee_id, request_id=request_id, reason=reason))

    async def extend_mobile_sync(self, examinee_id: str, seconds: int, *, request_id: str | None = None) -> str:
        """Give 10 to 3600 `seconds` more for the picture. Event: `mobile_sync_status` WAITING with the new deadline."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(ExtendMobileSyncFrame(examinee_id=examinee_id, request_id=request_id, seconds=seconds))

    async def review_capture(
        self,
        examinee_id: str,
        capture_id: str,
        verdict: Verdict,
        *,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Accept a picture, or ask for another one: `mobile_sync_completed` or `mobile_sync_status` WAITING follows."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(
            ReviewCaptureFrame(
                examinee_id=examinee_id, request_id=request_id, capture_id=capture_id, verdict=verdict, reason=reason
            )
        )

    async def notify(self, examinee_id: str, text: str, *, request_id: str | None = None) -> str:
        """Show the examinee a message of at most 1000 characters. Events: `notice`, `notice_confirmed` when read."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(NotifyFrame(examinee_id=examinee_id, request_id=request_id, text=text))

    async def finish(self, examinee_id: str, *, request_id: str | None = None) -> str:
        """End the exam for an examinee. Event: `examinee_finished`."""
        return await self._ask(FinishFrame(examinee_id=examinee_id, request_id=request_id or secrets.token_hex(12)))

    async def resume(self, examinee_id: str, *, request_id: str | None = None) -> str:
        """Let a finished examinee go on. Event: `examinee_resumed`."""
        return await self._ask(ResumeFrame(examinee_id=examinee_id, request_id=request_id or secrets.token_hex(12)))

    async def extend_exam(self, seconds: int, examinee_id: str | None = None, *, request_id: str | None = None) -> str:
        """Give `seconds` more to one examinee, or to everybody when nobody is named. Event: `plan_state`."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(ExtendExamFrame(examinee_id=examinee_id, request_id=request_id, seconds=seconds))

    async def notify_plan(self, text: str, examinees: list[str] | None = None, *, request_id: str | None = None) -> str:
        """Show a message to everybody, or to these examinees. Events: `plan_notice`, `notice_confirmed` of each."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(NotifyPlanFrame(request_id=request_id, text=text, examinees=examinees))

    async def take_help(self, examinee_id: str, help_id: str, *, request_id: str | None = None) -> str:
        """Take an examinee's request for help, whose requestId is `help_id`. Event: `help_taken`."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(TakeHelp(examinee_id=examinee_id, help_id=help_id, request_id=request_id))

    async def close_help(self, examinee_id: str, help_id: str, *, request_id: str | None = None) -> str:
        """Close an examinee's request for help. Event: `help_closed`."""
        request_id = request_id or secrets.token_hex(12)
        return await self._ask(CloseHelp(examinee_id=examinee_id, help_id=help_id, request_id=request_id))

    async def tell_activity(self, examinee_id: str, doing: ProctorDoing) -> None:
        """Tell the other proctors what this one is doing with an examinee; they get a frame `proctor_activity`.

        Call it again every `ACTIVITY_SECONDS` for as long as it lasts.
        """
        await self.send(ActivityFrame(examinee_id=examinee_id, doing=doing))

    async def _ask(self, frame: ProctorAction) -> str:
        await self.send(frame)
        assert frame.request_id is not None
        return frame.request_id

    def _update(self, message: Message) -> None:
        self.verdict = self.view.apply(message)
