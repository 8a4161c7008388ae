"""What the proctors of one plan on one server are sent: each event once, in the order of its version."""

from __future__ import annotations

import asyncio
import logging
import time

import pydantic_core

from actors import traces
from actors.proctor_session import Parsed, ProctorSession, aspect_of
from actors.runtime import tracing
from actors.runtime.state_store import StateStore
from actors.socket_metrics import observe_told
from protocol import keys
from protocol.errors import StateDamaged
from protocol.facts import Aspect, LossReason
from protocol.frames import ExamineeRow, PlanSnapshot
from protocol.rows import (
    MOBILE_SYNC_FIELDS,
    NOTICES_FIELDS,
    PROGRESS_FIELDS,
    examinee_row,
    mobile_sync_view,
    notices_view,
)

log = logging.getLogger("examwire.plan_feed")

Values = list[str | None]

ROWS_A_FRAME = 500
ROWS_A_READ = 250
OVERLAP_SECONDS = 15.0


class PlanFeed:
    """Drops what a newer version has overtaken and sends the rest to every proctor, encoded once."""

    def __init__(self, plan_id: str, store: StateStore, max_buffer_bytes: int) -> None:
        self.plan_id = plan_id
        self.proctors: set[ProctorSession] = set()
        self._store = store
        self._max_buffer = max_buffer_bytes
        self._versions: dict[tuple[str, Aspect], int] = {}
        self.sent = self.dropped = 0

    def broadcast(self, events: list[Parsed], payload: bytes | None = None) -> None:
        """Send events of the plan on, each checked to be one; `payload` holds these and no others."""
        news = [event for event in events if self._is_news(event)]
        self.dropped += len(events) - len(news)
        if news:
            self._send(news, payload.decode() if payload is not None and len(news) == len(events) else _text(news))

    def _send(self, news: list[Parsed], text: str) -> None:
        self.sent += len(news)
        since = traces.now()
        for proctor in self.proctors:
            if proctor.held_back is not None:
                proctor.held_back.extend(news)
                continue
            connection = proctor.connection
            if proctor.known is None:
                connection.send_now(text)
            elif unknown := proctor.not_in_snapshot(news):
                connection.send_now(_text(unknown))
            if connection.unsent > self._max_buffer:
                wait = connection.unsent
                log.warning("%s reads too slowly: %d bytes wait", proctor.address, wait, extra=proctor.about())
                connection.break_off(LossReason.SLOW_CLIENT.value)
        if any(proctor.held_back is None for proctor in self.proctors):
            observe_told(news, time.time())
        if tracing.on():
            traces.told(news, len(self.proctors), since)

    def _is_news(self, event: Parsed) -> bool:
        version = event["data"]["version"]
        aspect = aspect_of(event)
        if version <= self._versions.get(aspect, 0):
            return False
        self._versions[aspect] = version
        return True

    async def snapshot(self, proctor: ProctorSession, *, resync: bool = False) -> None:
        """Send every examinee of the plan, then what was held back meanwhile. Raises `StateUnavailable`."""
        proctor.held_back = proctor.held_back if proctor.held_back is not None else []
        rows = await self._rows()
        known: dict[tuple[str, Aspect], int] = {}
        for row in rows:
            known[row.examinee_id, "connection"] = row.version
            known[row.examinee_id, "mobile_sync"] = row.mobile_sync.version
            known[row.examinee_id, "notices"] = row.notices.version if row.notices is not None else 0
        parts = max(1, -(-len(rows) // ROWS_A_FRAME))
        for part in range(parts):
            proctor.connection.tell(
                PlanSnapshot(
                    plan_id=self.plan_id,
                    examinees=rows[part * ROWS_A_FRAME : (part + 1) * ROWS_A_FRAME],
                    part=part + 1,
                    parts=parts,
                    resync=True if resync else None,
                )
            )
        held, proctor.held_back, proctor.known = proctor.held_back or [], None, known
        if unknown := proctor.not_in_snapshot(held):
            proctor.connection.send_now(_text(unknown))
        # Events that the snapshot contains are on their way for a moment only.
        asyncio.get_running_loop().call_later(OVERLAP_SECONDS, proctor.forget_snapshot)

    async def _rows(self) -> list[ExamineeRow]:
        examinees = await self._store.members(keys.plan_examinees(self.plan_id))
        rows: list[ExamineeRow] = []
        for start in range(0, len(examinees), ROWS_A_READ):
            some = examinees[start : start + ROWS_A_READ]
            progress = await self._store.fields([keys.progress(self.plan_id, one) for one in some], PROGRESS_FIELDS)
            pictures = await self._store.fields(
                [keys.mobile_sync(self.plan_id, one) for one in some], MOBILE_SYNC_FIELDS
            )
            notices = await self._store.fields([keys.notices(self.plan_id, one) for one in some], NOTICES_FIELDS)
            for one, *fields in zip(some, progress, pictures, notices, strict=True):
                try:
                    rows.append(examinee_row(one, *fields))
                except ValueError as error:
                    key = _garbled(self.plan_id, one, *fields[1:])
                    raise StateDamaged(f"{key}: {str(error).splitlines()[0]}", key) from error
        return rows


def _garbled(plan_id: str, examinee_id: str, mobile_sync: Values, notices: Values) -> str:
    """Which record of an examinee is to blame when no row can be made of the three."""
    try:
        mobile_sync_view(dict(zip(MOBILE_SYNC_FIELDS, mobile_sync, strict=True)))
    except ValueError:
        return keys.mobile_sync(plan_id, examinee_id)
    try:
        notices_view(dict(zip(NOTICES_FIELDS, notices, strict=True)))
    except ValueError:
        return keys.notices(plan_id, examinee_id)
    return keys.progress(plan_id, examinee_id)


def _text(events: list[Parsed]) -> str:
    return pydantic_core.to_json(events if len(events) > 1 else events[0]).decode()
