"""Reading the frames of one client into the mailbox of its session."""

from __future__ import annotations

from actors.runtime.token_bucket import TokenBucket
from actors.sessions.session import SocketSession
from protocol.close_codes import CloseCode
from protocol.messages.codec import Malformed
from protocol.messages.facts import LossReason
from protocol.messages.frames import CLIENT_FRAMES, refusal_of

MAX_ERRORS = 20
"""A connection with more malformed messages is closed."""

FRAMES_PER_SECOND = 100
FRAMES_AT_ONCE = 300


async def read_frames(session: SocketSession, max_unread_bytes: int) -> None:
    """Read and decode frames until the connection is closed. Raises `ConnectionClosed`.

    Malformed messages are answered with an error. A client that floods is read more slowly, and a client that sends
    and does not read its answers is dropped when more than `max_unread_bytes` wait for it.
    """
    connection = session.connection
    errors = 0
    throttle = TokenBucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
    while True:
        text = await connection.recv()
        if not isinstance(text, str):
            await connection.end(CloseCode.UNSUPPORTED_DATA, LossReason.PROTOCOL_ERROR.value)
            return
        await connection.wait_turn(len(text))
        for index, message in enumerate(CLIENT_FRAMES.decode_batch(text)):
            if index:  # each element of an array costs about as much as a lone message
                await connection.wait_turn(0)
            await throttle.wait()
            if isinstance(message, Malformed):
                errors += 1
                connection.send_message(refusal_of(message))
            else:
                await session.put(message)
        if errors > MAX_ERRORS:
            await connection.end(CloseCode.TOO_MANY_ERRORS, LossReason.PROTOCOL_ERROR.value)
            return
        if (waiting := connection.unread_bytes) > max_unread_bytes:
            session.abort_slow("%d bytes wait to be read", waiting)
            return
