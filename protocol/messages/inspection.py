"""Requests to inspect an actor, and the replies, on `inspect.{actor}` and `session.{planId}.{examineeId}`.

They are plain objects, not messages with a `type`, and have `null` for absent values.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from protocol.ids import Id
from protocol.messages.base import Wire


class Inspection(Wire):
    """The state of an actor. Times are RFC 3339.

    `handled` counts messages since `since`. `failed`, `restarts` and `lastError` survive a restart by the supervisor.
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
    """Which sessions to list: after the serial `after` (the `next` of the previous page), skip `offset` of them."""

    after: int = 0
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0)] = 100
    plan_id: Id | None = None
    kind: str | None = None


class SessionsRequest(Wire):
    """Ask a socket server for a page of its sessions instead of its own inspection."""

    sessions: SessionsAsked


class SessionsPage(Wire):
    """A page of sessions: `total` counts all that match, `next` is the next page's `after`, `null` on the last page."""

    total: int
    next: int | None
    sessions: list[Inspection]


class ProcessFacts(Wire):
    """The process of an actor, from `{inspect subject}.process`.

    `fdLimit` is the soft limit. `listens`: the setting of each listening port's host, and the host.
    """

    host: str
    pid: int
    version: str
    time: str
    fds_open: int
    fd_limit: int
    memory_bytes: int
    listens: dict[str, str]
