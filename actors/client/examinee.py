"""The typed Python client of an examinee: see `actors.client.client`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Unpack

from actors.client.client import Client, ClientOptions, ConnectionLost
from protocol.errors import ErrorCode
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatusCode, Notice
from protocol.messages.frames import (
    Accepted,
    AskForHelp,
    CancelHelp,
    ConfirmNotice,
    EnterMobileSync,
    Error,
    FinishFrame,
)
from protocol.messages.proctor_events import HelpEvent
from protocol.messages.session_messages import SessionState
from protocol.messages.views import HelpView, MobileSyncView, NoticeView

FINISH_AGAIN_SECONDS = 5.0
"""A request to hand in that was refused, because there were too many, is repeated after so many seconds."""


class ExamineeClient(Client):
    """The client of an examinee.

    client = ExamineeClient("ws://127.0.0.1:8001", token)
    await client.connect()
    await client.enter_mobile_sync()

    `session_state` and `mobile_sync` are the latest that the server sent (by version). `notices` are the messages of
    proctors that this client has not confirmed, by actionId, in the order of their arrival. `help` is the open request
    for help. `finishing` is the requestId of the request to hand in that the server has not accepted yet.
    """

    __slots__ = (
        "_confirmed",
        "_help_version",
        "_repeating",
        "_retry",
        "finishing",
        "help",
        "mobile_sync",
        "notices",
        "session_state",
    )

    def __init__(self, url: str, token: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, token, **options)
        self.session_state: SessionState | None = None
        self.mobile_sync = MobileSyncView()
        self.notices: dict[str, NoticeView] = {}
        self._confirmed: set[str] = set()
        self.help: HelpView | None = None
        self._help_version = 0
        self.finishing: str | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._repeating: asyncio.Task[None] | None = None

    @property
    def finished(self) -> bool:
        """Whether the exam is over for the examinee, as the server has told last."""
        state = self.session_state
        return state is not None and state.connection.status == ConnectionStatusCode.FINISHED

    async def finish(self, *, request_id: str | None = None) -> str:
        """Hand in: the exam is over for this examinee. Returns the requestId; `accepted` with it follows.

        Until then it is sent again on each new connection, with the same requestId, so it has one effect. To repeat it
        in another process, pass the `request_id` on.
        """
        self.finishing = request_id or self.finishing or secrets.token_hex(12)
        asked = self.finishing
        await self._send_finish()
        return asked

    async def _send_finish(self) -> None:
        if self.finishing is not None:
            with contextlib.suppress(ConnectionLost):  # sent again after the next welcome
                await self.send(FinishFrame(request_id=self.finishing))

    async def _welcomed(self) -> None:
        await self._send_finish()

    def _update_finish(self, message: Accepted | Error) -> None:
        if self.finishing is None or message.request_id != self.finishing:
            return
        if isinstance(message, Error) and message.code is ErrorCode.TOO_MANY_REQUESTS:
            self._retry = asyncio.get_running_loop().call_later(FINISH_AGAIN_SECONDS, self._repeat_finish)
        else:
            self.finishing = None

    def _repeat_finish(self) -> None:
        if self.connected:  # else it is sent after the next welcome
            self._repeating = asyncio.create_task(self._send_finish())

    async def confirm_notice(self, action_id: str) -> None:
        """Confirm that a message was read: `accepted` follows once that is in the log. A repetition does no harm.

        Raises `ConnectionLost`; then the message stays in `notices`.
        """
        await self.send(ConfirmNotice(action_id=action_id))
        self._confirmed.add(action_id)
        self.notices.pop(action_id, None)

    async def ask_for_help(self, text: str | None = None, *, request_id: str | None = None) -> str:
        """Ask the proctors for help. Returns the requestId; `help_requested` follows, and `help` is set.

        While a request is open it has no effect. When it is not known whether it arrived (`ConnectionLost`), repeat it
        with the same `request_id`.
        """
        request_id = request_id or secrets.token_hex(12)
        await self.send(AskForHelp(request_id=request_id, text=text))
        return request_id

    async def cancel_help(self) -> None:
        """Take the open request for help back; without one, do nothing."""
        if self.help is not None:
            await self.send(CancelHelp(request_id=self.help.request_id))

    def _set_help(self, open_request: HelpView | None, version: int) -> None:
        if version >= self._help_version:
            self.help, self._help_version = open_request, version

    async def enter_mobile_sync(self) -> None:
        """Send `mobile_sync_wait`; a `mobile_sync_status` WAITING follows as a frame."""
        await self.send(EnterMobileSync())

    def _update(self, message: Message) -> None:
        match message:
            case Accepted() | Error():
                self._update_finish(message)
                return
            case SessionState():
                self.session_state = message
                if self.finished:
                    self.finishing = None  # it was heard
                for notice in message.notices:
                    # Its confirmation was lost with a connection: the message is shown again.
                    self._confirmed.discard(notice.action_id)
                    self.notices.setdefault(notice.action_id, notice)
                self._set_help(message.help, message.notices_version)
                view = message.mobile_sync
            case HelpEvent():
                self._set_help(message.help, message.version)
                return
            case Notice():
                if message.action_id not in self._confirmed:
                    notice = NoticeView(
                        action_id=message.action_id,
                        text=message.text,
                        by=message.by,
                        by_name=message.by_name,
                        sent_at=message.timestamp,
                    )
                    self.notices.setdefault(message.action_id, notice)
                return
            case _ if message.type in ("mobile_sync_status", "mobile_sync_completed"):
                view = MobileSyncView.model_validate(message.data())
            case _:
                return
        if view.version >= self.mobile_sync.version:
            self.mobile_sync = view
