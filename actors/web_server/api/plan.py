"""The endpoints of pages about a plan: the socket servers, an examinee's timeline, the outage report."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import overload

import pydantic_core
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.runtime.broker.connection import Bus
from actors.runtime.config.sections import MobileSyncSettings
from actors.runtime.config.tokens import TokenVerifier
from actors.runtime.store.ready_servers import ReadyServers
from actors.runtime.store.state_store import StateStore
from actors.status_log.plan_log import Beginning, PlanLog
from actors.status_log.roster import read_enrolled
from actors.web_server.api.plan_log_cache import PlanLogCache
from actors.web_server.bodies import fresh_answer
from actors.web_server.problems import RETRY_AFTER, Problem
from actors.web_server.requests import REDIS_SECONDS, claims_of, within_limits
from protocol.access.claims import Claims
from protocol.errors import BrokerUnavailable, ErrorCode, InvalidField, StateDamaged, StateUnavailable
from protocol.ids import check_id
from protocol.log.outage_csv import outages_csv
from protocol.log.outages import Enrolled, OutageRow, Outages
from protocol.log.timeline import Timeline
from protocol.log.timeline_entry import TimelineEntry
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.web")

LIMIT = 200
LARGEST_LIMIT = 2000
LARGEST_VERSION = 2**53
READERS = 2
READERS_WAITING = 50


class PlanApi:
    """Reads the log for proctors; `READERS` requests at a time, because a request may read all of it.

    Example::

        routes = PlanApi(settings.mobile_sync, bus, store, verifier, ready_servers).routes()
    """

    def __init__(
        self,
        settings: MobileSyncSettings,
        bus: Bus,
        store: StateStore,
        verifier: TokenVerifier,
        endpoints: ReadyServers,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._verifier = verifier
        self._endpoints = endpoints
        self._log_cache = PlanLogCache(bus)
        self._readers = asyncio.Semaphore(READERS)
        self._waiting = 0

    def routes(self) -> list[Route]:
        return [
            Route("/v1/endpoints", self.endpoints),
            Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/timeline", self.timeline),
            Route("/v1/plans/{plan_id:path}/report.csv", self.report),
        ]

    async def endpoints(self, _request: Request) -> Response:
        """`GET /v1/endpoints`: the READY socket servers and the limits of a mobile sync; public, for any origin.

        The order is random: clients begin with the first server, and must not all begin with the same.
        """
        ready = self._endpoints.ready
        if not ready:
            detail = "no socket server is READY"
            headers = {**RETRY_AFTER, "Access-Control-Allow-Origin": "*"}
            raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=headers)
        answer = {
            "socketServers": random.sample(ready, len(ready)),
            "mobileSyncSeconds": self._settings.timeout_seconds,
            "maxPictureBytes": self._settings.max_bytes,
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"})

    async def timeline(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/examinees/{examineeId}/timeline?limit&all&before`, for proctors of the plan.

        The newest `limit` entries in order (by default only those with an effect), and the outages of all entries up
        to now. With `before`, the newest ones older than that version, without outages. Of an examinee with very many
        facts only the newest are read: what came before them counts as a beginning of the log that has expired.
        """
        claims, plan_id = self._watched_plan(request)
        examinee_id = check_id("examineeId", request.path_params["examinee_id"])
        limit = _whole_number(request, "limit", LIMIT, LARGEST_LIMIT)
        before = _whole_number(request, "before", None, LARGEST_VERSION)
        everything = _switch(request, "all")
        async with self._reading(f"timeline of {examinee_id} in {plan_id}"):
            beginning = await PlanLog(self._bus, plan_id).beginning()
            if not await within_limits(self._store, claims, [examinee_id]):
                raise _never_seen(f"examinee {examinee_id} of plan {plan_id}", beginning)
            read = await self._log_cache.read(plan_id, examinee_id, before)
            truncated = beginning.truncated or bool(read.whole_from)
            # Both go through the entries independently: the timeline does not need the outages.
            timeline, outages = Timeline(truncated=truncated), Outages(truncated=truncated)
            newest: deque[TimelineEntry] = deque(maxlen=limit)
            count = 0
            for entry in read.entries:
                outages.add(entry)
                timeline_entry = timeline.add(entry)
                if timeline_entry is None or not entry.concerns(examinee_id) or entry.version < read.whole_from:
                    continue
                if timeline_entry.effect or everything:
                    newest.append(timeline_entry)
                    count += 1
        known = examinee_id in timeline.examinees
        if not known and before is None:
            raise _never_seen(f"examinee {examinee_id} of plan {plan_id}", beginning)
        row: OutageRow | None = None
        if outages.begin is not None and before is None:
            (row,) = outages.rows(outages.begin, max(self._bus.clock.now(), outages.begin)) or (None,)
        if row is not None and read.whole_from:
            row = row.model_copy(update={"complete": False})
        first_logged = timeline.examinees[examinee_id].first_logged if known else None
        answer = {
            "planId": plan_id,
            "examineeId": examinee_id,
            "asOf": format_time(self._bus.clock.now()),
            "logSince": beginning.since,
            "logGaps": [gap.model_dump(mode="json", by_alias=True) for gap in beginning.gaps_of(first_logged)],
            "complete": not read.whole_from and (not known or timeline.examinees[examinee_id].complete),
            "older": count - len(newest),
            "before": newest[0].version if count > len(newest) else read.whole_from or None,
            "entries": [entry.model_dump(mode="json", by_alias=True, exclude_none=True) for entry in newest],
            "outages": row.model_dump(mode="json", by_alias=True) if row is not None else None,
        }
        return await fresh_answer(request, pydantic_core.to_json(answer), "application/json", {})

    async def report(self, request: Request) -> Response:
        """`GET /v1/plans/{planId}/report.csv?from&to&ignoreBelowSeconds&affected`, for proctors of the plan.

        The window is that of `examwire plans report`: by default from the first fact up to now; times as in RFC 3339.
        """
        claims, plan_id = self._watched_plan(request)
        now = self._bus.clock.now()
        first, last = _moment(request, "from"), min(_moment(request, "to") or now, now)
        ignore_below = _seconds(request, "ignoreBelowSeconds")
        affected = _switch(request, "affected")
        async with self._reading(f"report of {plan_id}"):
            beginning, outages = await PlanLog(self._bus, plan_id).outages()
            roster = await self._enrolled(plan_id)
        if outages.begin is None and not roster:
            raise _never_seen(f"plan {plan_id}", beginning)
        if first is not None and first > last:
            raise InvalidField("from", "must not be later than `to`, or than now")
        begin = min(outages.begin or last, last) if first is None else first
        rows = outages.rows(begin, last, ignore_below=ignore_below, roster=roster)
        visible = set(await within_limits(self._store, claims, [row.examinee_id for row in rows]))
        rows = [row for row in rows if row.examinee_id in visible]
        content = outages_csv(plan_id, [row for row in rows if row.outages or not affected])
        headers = {"Content-Disposition": f'attachment; filename="outages-{plan_id}.csv"'}
        return await fresh_answer(request, content, "text/csv; charset=utf-8", headers)

    async def _enrolled(self, plan_id: str) -> dict[str, Enrolled]:
        """Return who is on the roster; without Redis the report is still made, from the log alone."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return await read_enrolled(self._store, plan_id)
        except (StateUnavailable, StateDamaged, TimeoutError, ValueError) as error:
            log.warning("plan %s: the report has no names but those of the log: %r", plan_id, error)
            return {}

    def _watched_plan(self, request: Request) -> tuple[Claims, str]:
        """Return the claims, and the plan of the URL if they allow to watch it.

        Raises `InvalidToken`, `InvalidField`, 403.
        """
        claims = claims_of(self._verifier, request)
        plan_id = check_id("planId", request.path_params["plan_id"])
        if not claims.may_watch(plan_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token does not allow to watch this plan")
        return claims, plan_id

    @asynccontextmanager
    async def _reading(self, what: str) -> AsyncIterator[None]:
        """Limit the readers of the log. Raises a 503 `Problem` when too many wait, or NATS does not answer."""
        if self._waiting >= READERS_WAITING:
            raise Problem(503, ErrorCode.UNAVAILABLE, "too many requests for timelines", headers=RETRY_AFTER)
        self._waiting += 1
        try:
            async with self._readers:
                yield
        except BrokerUnavailable as error:
            log.warning("%s: the log cannot be read: %s", what, error)
            detail = "the log cannot be read now"
            raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=RETRY_AFTER) from None
        finally:
            self._waiting -= 1


def _never_seen(who: str, beginning: Beginning) -> Problem:
    reach = f"which goes back to {beginning.since}" if beginning.since is not None else "which is empty"
    return Problem(404, ErrorCode.NOT_FOUND, f"the log has no fact about {who}, {reach}")


# -- parameters of the query --------------------------------------------------------------------------------


@overload
def _whole_number(request: Request, name: str, default: int, largest: int) -> int: ...
@overload
def _whole_number(request: Request, name: str, default: None, largest: int) -> int | None: ...
def _whole_number(request: Request, name: str, default: int | None, largest: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest)) and 1 <= int(text) <= largest):
        raise InvalidField(name, f"must be a whole number from 1 to {largest}")
    return int(text)


def _seconds(request: Request, name: str) -> float:
    text = request.query_params.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:  # nan as well
        raise InvalidField(name, "must be a number of seconds")
    return seconds


def _moment(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidField(name, "must be a time as RFC 3339 has it, such as 2026-11-22T09:00:00Z") from None


def _switch(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidField(name, "must be true or false")
    return text == "true"
