"""Reading the frames of one client into the mailbox of its session."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeGuard

from actors.runtime.token_bucket import TokenBucket
from actors.sessions.session import SocketSession
from protocol.close_codes import CloseCode
from protocol.messages.base import Message
from protocol.messages.codec import Malformed
from protocol.messages.facts import LossReason
from protocol.messages.frames import CLIENT_FRAMES, refusal_of

log = logging.getLogger("examwire.session")

MAX_ERRORS = 20
"""A connection with more malformed messages is closed."""

FRAMES_PER_SECOND = 100
FRAMES_AT_ONCE = 300

_OBJECT = b"{"


class FrameReader:
    """Decodes the frames of one client, and puts them into the mailbox of its session.

    reader = FrameReader(session, max_unread_bytes)
    session.connection.read_with(reader)

    Malformed messages are answered with an error. A client that floods is read more slowly, and a client that sends
    and does not read its answers is dropped when more than `max_unread_bytes` wait for it.

    A lone message is handled when it arrives. A task reads only while something has to be waited for: a turn, the
    throttle, room in the mailbox. What arrives meanwhile waits in the connection.
    """

    __slots__ = ("_closed", "_errors", "_max_unread_bytes", "_throttle", "reading", "session")

    def __init__(self, session: SocketSession, max_unread_bytes: int) -> None:
        self.session = session
        self._max_unread_bytes = max_unread_bytes
        self._throttle: TokenBucket | None = None  # made with the first frame
        self._errors = 0
        self._closed = False
        self.reading: asyncio.Task[None] | None = None
        """The task, while there is one."""

    def read_now(self, text: bytes | None) -> bool:
        """Handle a message if nothing has to be waited for. False: it has to wait, and `wake` reads it then."""
        if self._closed:
            return True
        session = self.session
        if self.reading is not None or text is None or text[:1] != _OBJECT:
            return False  # each element of an array waits for its own turn
        if not (session.connection.quick and session.mailbox.has_room and self._turns().take()):
            return False
        try:
            if self._is_text(text):
                for message in CLIENT_FRAMES.decode_batch(text):
                    self._tell(message)
                self._check()
        except Exception:
            self._fail()
        return True

    def wake(self) -> None:
        """Read what waits in the connection."""
        if self.reading is None:
            self.reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        session, connection = self.session, self.session.connection
        try:
            while connection.waiting and not self._closed:
                text = connection.take()
                if not self._is_text(text):
                    return
                await connection.wait_turn(len(text))
                for index, message in enumerate(CLIENT_FRAMES.decode_batch(text)):
                    if index:  # each element of an array costs about as much as a lone message
                        await connection.wait_turn(0)
                    await self._turns().wait()
                    await session.mailbox.wait_for_room()
                    self._tell(message)
                self._check()
        except Exception:
            self._fail()
        finally:
            self.reading = None

    def _turns(self) -> TokenBucket:
        if self._throttle is None:
            self._throttle = TokenBucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
        return self._throttle

    def _tell(self, message: Message | Malformed) -> None:
        if isinstance(message, Malformed):
            self._errors += 1
            self.session.connection.send_message(refusal_of(message))
        else:
            self.session.tell(message)

    def _is_text(self, text: bytes | None) -> TypeGuard[bytes]:
        """Return whether it is a text in UTF-8. Anything else ends the connection."""
        if text is None:
            self._close(CloseCode.UNSUPPORTED_DATA)
            return False
        self._closed = not self.session.connection.check_utf8(text)
        return not self._closed

    def _check(self) -> None:
        if self._errors > MAX_ERRORS:
            self._close(CloseCode.TOO_MANY_ERRORS)
        elif (waiting := self.session.connection.unread_bytes) > self._max_unread_bytes:
            self._closed = True
            self.session.abort_slow("%d bytes wait to be read", waiting)

    def _close(self, code: CloseCode) -> None:
        """Close the connection. What has arrived after this frame is not read."""
        self._closed = True
        self.session.connection.close(code, LossReason.PROTOCOL_ERROR.value)

    def _fail(self) -> None:
        session = self.session
        log.exception("%s: a frame could not be read", session.address, extra=session.about())
        self._closed = True
        session.connection.close(CloseCode.INTERNAL_ERROR, LossReason.SOCKET_CLOSED.value)
