"""What an operator asks of a live actor on `control.{address}`; request and reply.

Each actor answers what it understands with `done`, anything else with an `error` frame (`NOT_ALLOWED`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from protocol.ids import SocketId
from protocol.messages.base import Message
from protocol.messages.codec import Codec
from protocol.messages.frames import Error


class Drain(Message):
    """To a socket server: send the clients away within `overSeconds`, evenly, then end.

    Refused (`UNAVAILABLE`) when no other server is READY, unless `force`. Answered when it has begun.
    """

    type: ClassVar[str] = "drain"
    over_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    force: bool = False


class Stop(Message):
    """To any actor of a role: have its process end in good order (as SIGTERM does). Answered before it ends."""

    type: ClassVar[str] = "stop"


class Kick(Message):
    """To a socket server: end the connection behind `socketId`; the client may come back (4007)."""

    type: ClassVar[str] = "kick"
    socket_id: SocketId


class Tail(Message):
    """To any actor: publish a `handled` on `inbox` for each message it handles, for `seconds`.

    `session`: the address of a session, when a socket server is asked. A tail that is asked for again goes on; at
    most `perSecond` are sent, the others are counted (`left_out`).
    """

    type: ClassVar[str] = "tail"
    # An inbox and nothing else: an actor publishes there with its own rights.
    inbox: Annotated[str, Field(max_length=256, pattern=r"^_INBOX[A-Za-z0-9_.-]+$")]
    session: Annotated[str, Field(max_length=256)] | None = None
    seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    per_second: Annotated[int, Field(ge=1, le=1000)] = 200


class Handled(Message):
    """One message that a tailed actor has handled; `took` in milliseconds."""

    type: ClassVar[str] = "handled"
    address: str
    time: str
    message: str
    about: dict[str, Any] = Field(default_factory=dict)
    took: float
    error: str | None = None
    left_out: int = 0


class Done(Message):
    """What was asked for is done, or has begun; `text` says it to people."""

    type: ClassVar[str] = "done"
    text: str
    details: dict[str, Any] = Field(default_factory=dict)


Request = Drain | Stop | Kick | Tail

REQUESTS = Codec.of((Drain, Stop, Kick, Tail))
ANSWERS = Codec.of((Done, Error))
