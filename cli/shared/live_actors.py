"""Reaching live actors: who is on the bus, what they answer, how far their queues are, what is asked of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from actors.runtime.broker.connection import Bus, ServiceEntry
from actors.runtime.broker.stream_admin import ConsumerState
from actors.runtime.config.settings import Settings
from cli.shared.output import NotFound
from protocol.broker import subjects
from protocol.errors import (
    BrokerUnavailable,
    ConfigurationError,
    ErrorCode,
    ExamwireError,
    NoResponders,
)
from protocol.ids import check_id, check_server_id
from protocol.messages.codec import encode
from protocol.messages.frames import Error
from protocol.messages.operator_requests import ANSWERS, Done, Request
from protocol.times import parse_time

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 3.0
PAGE = 500  # sessions an answer; one of them is about half a KiB
SESSION_KINDS = ("examinee-session", "proctor-session")

Row = dict[str, Any]


class RequestRefused(ExamwireError):
    """An actor does not do what was asked of it; the text is its own."""


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Bus]:
    """A connection of the command `name`. Raises `BrokerUnavailable` soon: somebody waits."""
    bus = await Bus.connect(settings, f"examwire {name}", wait=CONNECT_SECONDS)
    try:
        yield bus
    finally:
        await bus.close()


# -- who is there ---------------------------------------------------------------------------------------


def address_of(entry: ServiceEntry) -> str:
    return entry.metadata.get("address", entry.name)


def kind_of(entry: ServiceEntry) -> str:
    return entry.metadata.get("kind", entry.name)


async def inspections(bus: Bus, entries: Iterable[ServiceEntry]) -> list[Row]:
    """What each of the actors answers, in the order of `entries`."""
    return list(await asyncio.gather(*(inspection_of(bus, entry) for entry in entries)))


async def inspection_of(bus: Bus, entry: ServiceEntry) -> Row:
    """What the actor of an entry answers; one that does not is `silent`, one that cannot be asked `listed`."""
    known = {"address": address_of(entry), "kind": kind_of(entry), "id": entry.id}
    subject = entry.metadata.get("inspect")
    if subject is None:
        return {**known, "state": "listed"}
    try:
        answer = json.loads(await bus.request(subject, timeout=ANSWER_SECONDS))
    except (NoResponders, BrokerUnavailable) as error:
        return {**known, "state": "silent", "lastError": str(error)}
    return {**known, **answer}


def shown_state(row: Row) -> str:
    """For people: an actor that runs may still wait for an engine, be drained, or let nobody in."""
    details = row.get("details", {})
    if details.get("waitingFor"):
        return f"waits for {details['waitingFor']}"
    if details.get("drain"):
        return "draining"
    if details.get("accepting") is False:
        return "accepts nobody"
    return str(row["state"])


async def entry_at(bus: Bus, address: str) -> ServiceEntry:
    """The one actor at an address; a serverId, the id or the name of a micro service will do.

    Raises `NotFound`, or `ConfigurationError` when several are meant.
    """
    names = (address, f"socket.{address}")
    entries = await bus.services()
    exact = [entry for entry in entries if address_of(entry) in names]
    matching = exact or [entry for entry in entries if address in (entry.name, entry.id)]
    if not matching:
        raise NotFound(f"no actor at {address}: `examwire actors ls` shows those that there are")
    if len(matching) > 1:
        found = ", ".join(address_of(entry) for entry in matching)
        raise ConfigurationError(f"{address} names {len(matching)} actors; ask for one of {found}")
    return matching[0]


# -- sessions -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    """A live session: its own address, that of its socket server, and its socket."""

    address: str
    server: str
    socket_id: str
    inspection: Row


def is_session(address: str) -> bool:
    """Whether this is the address of a session, which is not on the bus by itself."""
    return address.startswith(("session.", "proctor."))


async def session_at(bus: Bus, address: str) -> Session:
    """The session at `session.{planId}.{examineeId}` or `proctor.{planId}.{socketId}`. Raises `NotFound`."""
    plan_id, name = session_ids(address)
    if address.startswith("proctor."):
        server = server_of_socket(name)
        async for page in session_pages(bus, [(await entry_at(bus, server), 1)], plan=plan_id, kind="proctor-session"):
            for found in page:
                if found["address"] == address:
                    return Session(address, server, name, found)
        raise NotFound(f"no proctor of plan {plan_id} is connected by {name}")
    try:
        answer = await bus.request(subjects.session(plan_id, name), timeout=ANSWER_SECONDS)
    except NoResponders:
        raise NotFound(f"examinee {name} of plan {plan_id} is not connected") from None
    inspection: Row = json.loads(answer)
    details = inspection["details"]
    return Session(address, subjects.socket_server(details["serverId"]), details["socketId"], inspection)


def session_ids(address: str) -> tuple[str, str]:
    """Plan and examinee (or a proctor's socket) of a session's address. Raises an error of usage."""
    parts = address.split(".")
    if len(parts) != 3:
        raise ConfigurationError(
            f"{address!r}: the address of a session is session.PLAN_ID.EXAMINEE_ID or proctor.PLAN_ID.SOCKET_ID"
        )
    check_id("planId", parts[1])
    if parts[0] == "proctor":
        server_of_socket(parts[2])
        return parts[1], parts[2]
    return parts[1], check_id("examineeId", parts[2])


def server_of_socket(socket_id: str) -> str:
    """The address of the socket server that made a socketId, `{serverId}-{unique}`. Raises an error of usage."""
    server_id, dash, _ = socket_id.rpartition("-")
    if not dash:
        raise ConfigurationError(f"{socket_id!r} is no socketId such as SOCK001-5f2c9a: `examwire sessions ls`")
    return subjects.socket_server(check_server_id(server_id))


async def count_sessions(
    bus: Bus, entries: Iterable[ServiceEntry], *, plan: str | None = None, kind: str | None = None
) -> tuple[list[tuple[ServiceEntry, int]], list[str]]:
    """The socket servers, each with how many sessions of that sort it holds; the addresses of those that are silent."""
    servers = [entry for entry in entries if kind_of(entry) == "socket-server" and "inspect" in entry.metadata]
    pages = await asyncio.gather(*(_page(bus, one, plan, kind, 0, 0, 0) for one in servers), return_exceptions=True)
    counted: list[tuple[ServiceEntry, int]] = []
    silent: list[str] = []
    for entry, page in zip(servers, pages, strict=True):
        if isinstance(page, NoResponders | BrokerUnavailable):
            silent.append(address_of(entry))
        elif isinstance(page, BaseException):
            raise page
        else:
            counted.append((entry, page["total"]))
    return counted, silent


async def session_pages(
    bus: Bus,
    servers: Sequence[tuple[ServiceEntry, int]],
    *,
    plan: str | None = None,
    kind: str | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> AsyncIterator[list[Row]]:
    """The inspections of sessions, server by server, in the order of their arrival, some hundred at a time.

    `servers` with their counts (`count_sessions`), by which `offset` skips. Who stays connected is there exactly once.
    """
    for entry, total in servers:
        if offset >= total > 0:
            offset -= total
            continue
        after = 0
        while limit is None or limit > 0:
            page = await _page(bus, entry, plan, kind, after, offset, PAGE if limit is None else min(PAGE, limit))
            offset, after = 0, page["next"]
            if page["sessions"]:
                yield page["sessions"]
            if limit is not None:
                limit -= len(page["sessions"])
            if after is None:
                break


async def _page(
    bus: Bus, entry: ServiceEntry, plan: str | None, kind: str | None, after: int, offset: int, limit: int
) -> Row:
    wanted = {"after": after, "offset": offset, "limit": limit, "planId": plan, "kind": kind}
    request = json.dumps({"sessions": wanted}).encode()
    answer: Row = json.loads(await bus.request(entry.metadata["inspect"], request, timeout=ANSWER_SECONDS))
    if "sessions" not in answer:
        raise RequestRefused(f"{address_of(entry)}: {answer.get('data', answer)}")
    return answer


# -- what is asked of them ------------------------------------------------------------------------------


async def ask(bus: Bus, address: str, request: Request) -> Done:
    """Have an actor do something. Raises `NotFound`, `RequestRefused` with the actor's words, `BrokerUnavailable`."""
    try:
        answer = ANSWERS.decode_one(await bus.request(subjects.control(address), encode(request), ANSWER_SECONDS))
    except NoResponders:
        raise NotFound(f"no actor at {address}: `examwire actors ls` shows those that there are") from None
    if isinstance(answer, Error):
        error = NotFound if answer.code is ErrorCode.NOT_FOUND else RequestRefused
        raise error(answer.message)
    assert isinstance(answer, Done)
    return answer


# -- queues and rates -----------------------------------------------------------------------------------


async def add_queue_lag(bus: Bus, rows: Iterable[Row]) -> None:
    """`queueLag` (messages that wait) and `queueUnacknowledged` for each row whose actor reads consumers.

    Several state managers share one consumer, so each of them shows all of it. `None`: the consumer is not there.
    """
    rows = [row for row in rows if row.get("details", {}).get("consumers")]
    streams = sorted({name.partition("/")[0] for row in rows for name in row["details"]["consumers"]})
    answers = await asyncio.gather(*(bus.consumer_states(stream) for stream in streams), return_exceptions=True)
    states: dict[str, ConsumerState] = {}
    for answer in answers:
        if isinstance(answer, BrokerUnavailable):
            continue  # shown as unknown
        if isinstance(answer, BaseException):
            raise answer
        states.update({f"{one.stream}/{one.name}": one for one in answer})
    for row in rows:
        found = [states.get(name) for name in row["details"]["consumers"]]
        known = [one for one in found if one is not None]
        complete = len(known) == len(found)
        row["queueLag"] = sum(one.pending for one in known) if complete else None
        row["queueUnacknowledged"] = sum(one.unacknowledged for one in known) if complete else None


class RateMeter:
    """Rates by comparing an inspection with the one before; the first look gives the average since the start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[str, float, int, int]] = {}

    def compare(self, rows: Iterable[Row]) -> None:
        """Add `ratePerSecond` (messages handled) and `newFailures` (since the look before) to each row."""
        now = self._clock()
        seen: dict[str, tuple[str, float, int, int]] = {}
        for row in rows:
            if "handled" not in row:
                continue
            key, handled, failed = str(row.get("id", row["address"])), row["handled"], row["failed"]
            since, at, before, failed_before = self._seen.get(key, ("", 0.0, 0, failed))
            if since == row["since"] and now > at:
                row["ratePerSecond"] = round((handled - before) / (now - at), 1)
            else:
                row["ratePerSecond"] = round(handled / max(1.0, time.time() - parse_time(row["since"])), 1)
            row["newFailures"] = failed - failed_before
            seen[key] = (row["since"], now, handled, failed)
        self._seen = seen
