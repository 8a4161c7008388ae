"""The sessions of one socket server, a page at a time, for whoever inspects it.

A page is built between the server's other work: never more than a slice of it at once, for the same event loop
carries every client's frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pydantic

from actors.runtime.actor.actor import Actor
from protocol.messages.codec import field_error
from protocol.messages.inspection import SessionsAsked

MAX_PAGE = 500
SLICE = 25


async def page_of(sessions: Iterable[Actor], asked: Any) -> bytes:
    """`{"total", "next", "sessions": [inspection...]}` as JSON; `next` is `null` on the last page.

    By serial, so that who stays is on exactly one page, whoever else comes and goes meanwhile. `total` counts all that
    are asked for. At most 500 a page. Raises `ProtocolError` when `asked` is not understood.
    """
    try:
        wanted = SessionsAsked.model_validate(asked)
    except pydantic.ValidationError as error:
        raise field_error(error, "sessions") from None
    everyone = [
        one
        for one in sessions
        if (wanted.kind is None or one.kind == wanted.kind)
        and (wanted.plan_id is None or getattr(one, "plan_id", None) == wanted.plan_id)
    ]
    rest = sorted((one for one in everyone if one.serial > wanted.after), key=lambda one: one.serial)
    limit = min(wanted.limit, MAX_PAGE)
    shown = rest[wanted.offset : wanted.offset + limit]
    listed: list[bytes] = []
    for start in range(0, len(shown), SLICE):
        await asyncio.sleep(0)  # others first
        listed += [one.inspection().model_dump_json(by_alias=True).encode() for one in shown[start : start + SLICE]]
    last = wanted.offset + limit >= len(rest) or not shown
    following = b"null" if last else b"%d" % shown[-1].serial
    return b'{"total":%d,"next":%b,"sessions":[%b]}' % (len(everyone), following, b",".join(listed))
