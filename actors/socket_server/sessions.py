"""The sessions of one socket server: a registry by socket, examinee, plan and address, and pages of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import pydantic

from actors.runtime.actor.actor import Actor
from actors.runtime.actor.service import Service
from actors.runtime.broker.wire import Arrival
from actors.runtime.config.masking import masked
from actors.sessions.context import ServerContext
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.plan_feed import Join, Leave, PlanFeed, Resynchronise
from actors.sessions.proctor_session import ProctorSession
from actors.sessions.session import SocketSession
from protocol.messages.codec import field_error
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, LossReason
from protocol.messages.inspection import SessionsAsked
from protocol.records import keys
from protocol.times import format_time

MAX_ACTIVE = 2000
"""One lease reports the activity of at most so many sessions."""

MAX_PAGE = 500
PAGE_SLICE = 25
"""So many inspections of a page are made at once: the same event loop carries every client's frames."""

Activity = tuple[str, str, str, str]
"""planId, examineeId, socketId, and when the client was last heard (RFC 3339)."""


class Sessions:
    """The registry of the sessions on one server, and of the feeds of their plans.

    sessions = Sessions(context)
    sessions.add(examinee_session)
    sessions.examinee("P001", "E001")  # the newest session of the examinee, or None
    sessions.at("proctor.P001.SOCK001-1f")  # by address
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self.examinees: dict[str, ExamineeSession] = {}
        """By socketId."""
        self.proctors: dict[str, ProctorSession] = {}
        """By socketId."""
        self.feeds: dict[str, PlanFeed] = {}
        """By planId: the plans of the proctors."""
        self._by_address: dict[str, Actor] = {}
        self._proctors_of_plan: defaultdict[str, int] = defaultdict(int)
        self.sockets = 0
        """Open WebSockets, with or without a hello."""
        self.last_error: str | None = None
        """The last error that a session has failed with."""

    # -- lookups -------------------------------------------------------------------------------------

    def all(self) -> list[SocketSession]:
        """Return all sessions: examinees, then proctors."""
        return [*self.examinees.values(), *self.proctors.values()]

    def examinee(self, plan_id: str, examinee_id: str) -> ExamineeSession | None:
        """Return the newest session of an examinee."""
        session = self._by_address.get(f"session.{plan_id}.{examinee_id}")
        return session if isinstance(session, ExamineeSession) else None

    def socket(self, socket_id: str) -> SocketSession | None:
        """Return the session of a socket."""
        return self.examinees.get(socket_id) or self.proctors.get(socket_id)

    def at(self, address: str) -> Actor | None:
        """Return the session or feed at an address.

        `session.{planId}.{examineeId}`, `proctor.{planId}.{socketId}`, or `socket.plan.{planId}.proctors`.
        """
        return self._by_address.get(address)

    def inspect(self, request: Arrival) -> None:
        """Answer a request to `session.{planId}.{examineeId}` with the inspection of the session."""
        session = self._by_address.get(request.subject)
        if session is not None:
            self._context.bus.respond(request, session.inspection().model_dump_json(by_alias=True).encode())

    # -- adding and removing -------------------------------------------------------------------------

    def add(self, session: ExamineeSession) -> None:
        """Register the session of an examinee. The newest session of an examinee has the address."""
        self.examinees[session.socket_id] = session
        self._by_address[session.address] = session

    def remove(self, session: ExamineeSession) -> None:
        """Forget the session of an examinee."""
        del self.examinees[session.socket_id]
        self._forget_address(session)

    async def add_proctor(self, session: ProctorSession) -> None:
        """Register the session of a proctor, and have the feed of the plan send it a snapshot and the events."""
        plan_id = session.plan_id
        self.proctors[session.socket_id] = session
        self._by_address[session.address] = session
        self._proctors_of_plan[plan_id] += 1
        feed = self.feeds.get(plan_id)
        if feed is None:
            feed = self.feeds[plan_id] = PlanFeed(self._context, plan_id)
            self._by_address[feed.address] = feed
            await feed.start(self._feed_failed)
        feed.tell(Join(session))

    async def remove_proctor(self, session: ProctorSession) -> None:
        """Forget the session of a proctor; with the last proctor of a plan, its feed."""
        plan_id = session.plan_id
        del self.proctors[session.socket_id]
        self._forget_address(session)
        self._proctors_of_plan[plan_id] -= 1
        feed = self.feeds[plan_id]
        if self._proctors_of_plan[plan_id]:
            feed.tell(Leave(session))
            return
        del self._proctors_of_plan[plan_id], self.feeds[plan_id]
        self._forget_address(feed)
        await feed.stop()

    def _forget_address(self, actor: Actor) -> None:
        if self._by_address.get(actor.address) is actor:
            del self._by_address[actor.address]

    # -- failures ------------------------------------------------------------------------------------

    def session_failed(self, session: Service, error: BaseException) -> None:
        """End the connection of a session that has failed: its client comes back to a new session."""
        assert isinstance(session, SocketSession)
        self.last_error = masked(f"{session.address}: {error}")
        session.connection.abort(LossReason.PROTOCOL_ERROR.value)

    def _feed_failed(self, feed: Service, error: BaseException) -> None:
        """End the connections of the plan's proctors: they come back to a new feed."""
        assert isinstance(feed, PlanFeed)
        self.last_error = masked(f"{feed.address}: {error}")
        for proctor in self.proctors.values():
            if proctor.plan_id == feed.plan_id:
                proctor.connection.abort(LossReason.PROTOCOL_ERROR.value)

    # -- all of them ---------------------------------------------------------------------------------

    def announce_all(self) -> None:
        """Put CONNECTED into the log for every examinee."""
        for session in list(self.examinees.values()):
            session.announce()

    def report_closed(self, entries: Mapping[str, str]) -> None:
        """Put DISCONNECTED into the log for each recorded socket of this server that is not open here.

        `entries`: the index of the server's sockets, by socketId.
        """
        context = self._context
        for socket_id, entry in sorted(entries.items()):
            if socket_id in self.examinees:
                continue
            try:
                (plan_id, examinee_id), incarnation = keys.SocketEntry.decode(entry.partition(" ")[2])
            except ValueError:
                continue  # `state verify` reports it
            reason = LossReason.SOCKET_CLOSED if incarnation == context.incarnation else LossReason.SERVER_RESTARTED
            closed = ConnectionStatus(
                plan_id=plan_id,
                examinee_id=examinee_id,
                socket_id=socket_id,
                status=ConnectionStatusCode.DISCONNECTED,
                timestamp=format_time(context.clock.now()),
                reason=reason.value,
                server_id=context.server_id,
                incarnation=incarnation,
            )
            context.outbox.add(closed)

    def announce(self, plan_ids: Set[str]) -> None:
        """Put CONNECTED into the log for every examinee of these plans."""
        for session in list(self.examinees.values()):
            if session.plan_id in plan_ids:
                session.announce()

    def resynchronise(self, plan_ids: Set[str]) -> None:
        """Send every proctor of these plans a new snapshot from Redis: events were dropped."""
        for plan_id in plan_ids & self.feeds.keys():
            self.feeds[plan_id].tell(Resynchronise())

    async def tell_plans(self, plan_ids: Set[str]) -> None:
        """Tell every client of these plans their state, as Redis has it: messages about it may have been dropped."""
        for plan_id in plan_ids:
            self._context.plans.forget(plan_id)
        await self._tell_plans_of([session for session in self.all() if session.plan_id in plan_ids])

    async def tell_unread_plans(self) -> None:
        """Tell the clients of plans that Redis did not tell when they connected, as soon as it does."""
        unread = set(self._context.plans.unread)
        for plan_id in unread:
            await self._context.plans.of(plan_id)
        known = unread - self._context.plans.unread
        await self._tell_plans_of([session for session in self.all() if session.plan_id in known])

    async def _tell_plans_of(self, sessions: Sequence[SocketSession]) -> None:
        for session in sessions:
            event = await self._context.plans.of(session.plan_id)
            if isinstance(session, ProctorSession):
                await session.send_plan_state(event)
            else:
                session.deliver(event)

    def active(self) -> tuple[int, list[Activity]]:
        """Return the number of examinees, and the activity that is to be reported now."""
        now, wall = asyncio.get_running_loop().time(), self._context.clock.now()
        interval = self._context.settings.socket.activity_seconds
        active: list[Activity] = []
        for session in self.examinees.values():
            heard_at = session.connection.activity_to_report(now, interval)
            if heard_at is not None:
                last_heard = format_time(wall - (now - heard_at))
                active.append((session.plan_id, session.examinee_id, session.socket_id, last_heard))
                if len(active) >= MAX_ACTIVE:
                    break
        return len(self.examinees), active


async def page_of(sessions: Iterable[Actor], query: Any) -> bytes:
    """Return a page of sessions as JSON: `{"total", "next", "sessions": [inspection...]}`, at most 500 of them.

    A page is in the order of serials, so that a session that stays is on exactly one page while others come and go.
    `next` is where the next page begins, `null` on the last one. `total` counts all sessions of the plan and kind that
    are requested. Raises `ProtocolError` when `query` is invalid.
    """
    try:
        page_query = SessionsAsked.model_validate(query)
    except pydantic.ValidationError as error:
        raise field_error(error, "sessions") from None
    matching = [
        session
        for session in sessions
        if (page_query.kind is None or session.kind == page_query.kind)
        and (page_query.plan_id is None or getattr(session, "plan_id", None) == page_query.plan_id)
    ]
    remaining = sorted(
        (session for session in matching if session.serial > page_query.after), key=lambda each: each.serial
    )
    limit = min(page_query.limit, MAX_PAGE)
    page = remaining[page_query.offset : page_query.offset + limit]
    encoded: list[bytes] = []
    for start in range(0, len(page), PAGE_SLICE):
        await asyncio.sleep(0)  # let other work run
        inspections = [session.inspection() for session in page[start : start + PAGE_SLICE]]
        encoded += [inspection.model_dump_json(by_alias=True).encode() for inspection in inspections]
    last = page_query.offset + limit >= len(remaining) or not page
    following = b"null" if last else b"%d" % page[-1].serial
    return b'{"total":%d,"next":%b,"sessions":[%b]}' % (len(matching), following, b",".join(encoded))
