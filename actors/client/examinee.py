"""The typed Python client of an examinee: see `actors.client.client`."""

from __future__ import annotations

from typing import Unpack

from actors.client.client import Client, ClientOptions
from protocol.messages.base import Message
from protocol.messages.facts import Notice
from protocol.messages.frames import ConfirmNotice, EnterMobileSync
from protocol.messages.session_messages import SessionState
from protocol.messages.views import MobileSyncView, NoticeView


class ExamineeClient(Client):
    """The client of an examinee.

    client = ExamineeClient("ws://127.0.0.1:8001", token)
    await client.connect()
    await client.enter_mobile_sync()

    `session_state` and `mobile_sync` are the latest that the server sent (by version). `notices` are the messages of
    proctors that this client has not confirmed, by actionId, in the order of their arrival.
    """

    __slots__ = ("_confirmed", "mobile_sync", "notices", "session_state")

    def __init__(self, url: str, token: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(url, token, **options)
        self.session_state: SessionState | None = None
        self.mobile_sync = MobileSyncView()
        self.notices: dict[str, NoticeView] = {}
        self._confirmed: set[str] = set()

    async def confirm_notice(self, action_id: str) -> None:
        """Confirm that a message was read: `accepted` follows once that is in the log. A repetition does no harm.

        Raises `ConnectionLost`; then the message stays in `notices`.
        """
        await self.send(ConfirmNotice(action_id=action_id))
        self._confirmed.add(action_id)
        self.notices.pop(action_id, None)

    async def enter_mobile_sync(self) -> None:
        """Send `mobile_sync_wait`; a `mobile_sync_status` WAITING follows as a frame."""
        await self.send(EnterMobileSync())

    def _update(self, message: Message) -> None:
        match message:
            case SessionState():
                self.session_state = message
                for notice in message.notices:
                    # Its confirmation was lost with a connection: the message is shown again.
                    self._confirmed.discard(notice.action_id)
                    self.notices.setdefault(notice.action_id, notice)
                view = message.mobile_sync
            case Notice():
                if message.action_id not in self._confirmed:
                    notice = NoticeView(
                        action_id=message.action_id, text=message.text, by=message.by, sent_at=message.timestamp
                    )
                    self.notices.setdefault(message.action_id, notice)
                return
            case _ if message.type in ("mobile_sync_status", "mobile_sync_completed"):
                view = MobileSyncView.model_validate(message.data())
            case _:
                return
        if view.version >= self.mobile_sync.version:
            self.mobile_sync = view
