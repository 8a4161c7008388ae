"""What an actor answers when it is inspected (`inspect.{actor}`, `session.{planId}.{examineeId}`); request and reply.

These answers are plain objects, not messages with a `type`, and say `null` where there is nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from protocol.ids import Id
from protocol.messages.base import Wire


class Inspection(Wire):
    """What an actor answers when it is inspected. Times are RFC 3339.

    `handled`: messages since `since`. `failed`, `restarts` and `lastError` outlive a restart by the supervisor.
    """

    address: str
    kind: str
    since: str
    state: str
    mailbox_depth: int
    mailbox_capacity: int
    mailbox_peak: int
    mailbox_refused: int
    handled: int
    failed: int
    restarts: int
    last_error: str | None
    last_error_at: str | None
    details: dict[str, Any]


class SessionsAsked(Wire):
    """Which sessions: those after serial `after` (the `next` of the page before), then `offset` further."""

    after: int = 0
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0)] = 100
    plan_id: Id | None = None
    kind: str | None = None


class SessionsRequest(Wire):
    """To a socket server: one page of its sessions instead of its own inspection."""

    sessions: SessionsAsked


class SessionsPage(Wire):
    """`total` counts all that are asked for; `next` is the `after` of the next page, `null` on the last one."""

    total: int
    next: int | None
    sessions: list[Inspection]


class ProcessFacts(Wire):
    """The answer on `{inspect subject}.process`. `fdLimit` is the soft limit; `listens`: what listens on which host."""

    host: str
    pid: int
    version: str
    time: str
    fds_open: int
    fd_limit: int
    memory_bytes: int
    listens: dict[str, str]
