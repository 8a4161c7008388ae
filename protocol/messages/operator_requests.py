"""Requests of an operator to a live actor on `control.{address}`, and the replies.

An actor replies with `done`, or with an `error` frame (`NOT_ALLOWED`) to requests that it does not take.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from protocol.ids import Id, SocketId
from protocol.messages.base import Message
from protocol.messages.codec import Codec
from protocol.messages.frames import Error


class Drain(Message):
    """Drain a socket server: send its clients to other servers, spread over `overSeconds`, then stop it.

    Refused (`UNAVAILABLE`) when no other server is READY, unless `force`. The reply comes when the drain has begun.
    """

    type: ClassVar[str] = "drain"
    over_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    force: bool = False


class Stop(Message):
    """Stop the actor's process gracefully, as SIGTERM does. The reply comes before the process ends."""

    type: ClassVar[str] = "stop"


class Kick(Message):
    """Close the connection `socketId` of a socket server with 4007; the client may connect again."""

    type: ClassVar[str] = "kick"
    socket_id: SocketId


class PurgePictures(Message):
    """Delete the pictures of a plan, or of one examinee of it, from the store of a web server; `details.pictures`."""

    type: ClassVar[str] = "purge_pictures"
    plan_id: Id
    examinee_id: Id | None = None


class Tail(Message):
    """Publish a `handled` on `inbox` for each message that the actor handles, for `seconds`.

    `session`: the address of a session of the socket server, to tail that one. The same request again extends the
    tail. At most `perSecond` are published; the others are counted (`leftOut`).
    """

    type: ClassVar[str] = "tail"
    # Only an inbox is allowed: the actor publishes there with its own permissions.
    inbox: Annotated[str, Field(max_length=256, pattern=r"^_INBOX[A-Za-z0-9_.-]+$")]
    session: Annotated[str, Field(max_length=256)] | None = None
    seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    per_second: Annotated[int, Field(ge=1, le=1000)] = 200


class Handled(Message):
    """A message that a tailed actor has handled; `took` is in milliseconds."""

    type: ClassVar[str] = "handled"
    address: str
    time: str
    message: str
    about: dict[str, Any] = Field(default_factory=dict)
    took: float
    error: str | None = None
    left_out: int = 0


class Done(Message):
    """The request is done, or has begun; `text` is for people."""

    type: ClassVar[str] = "done"
    text: str
    details: dict[str, Any] = Field(default_factory=dict)


Request = Drain | Stop | Kick | PurgePictures | Tail

REQUESTS = Codec.of((Drain, Stop, Kick, PurgePictures, Tail))
ANSWERS = Codec.of((Done, Error))
