"""Find running actors on the bus, inspect them and their sessions, and send them requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from actors.runtime.broker.connection import Bus, ServiceEntry
from actors.runtime.broker.stream_state import ConsumerState
from actors.runtime.config.settings import Settings
from cli.shared.output import NotFound
from cli.shared.progress import ProgressBar
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
PAGE = 500  # sessions in one answer, about half a KiB each
SESSION_KINDS = ("examinee-session", "proctor-session")

Row = dict[str, Any]


class RequestRefused(ExamwireError):
    """An actor refused a request; the text is the actor's."""


@asynccontextmanager
async def connected(settings: Settings, name: str, *, dead_seconds: float | None = None) -> AsyncIterator[Bus]:
    """Connect the command `name` to NATS, and show how far long work is (`Bus.progress`).

    `dead_seconds`: as of `Bus.connect`. Raises `BrokerUnavailable` after `CONNECT_SECONDS`, as a person waits.

    Example::

        async with connected(settings, "actors ls") as bus:
            entries = await bus.services()
    """
    bus = await Bus.connect(settings, f"examwire {name}", wait=CONNECT_SECONDS, dead_seconds=dead_seconds)
    try:
        with ProgressBar() as bar:
            bus.progress = bar.report
            yield bus
    finally:
        await bus.close()


# -- actors ---------------------------------------------------------------------------------------------


def address_of(entry: ServiceEntry) -> str:
    return entry.metadata.get("address", entry.name)


def kind_of(entry: ServiceEntry) -> str:
    return entry.metadata.get("kind", entry.name)


async def inspections(bus: Bus, entries: Iterable[ServiceEntry]) -> list[Row]:
    """Return the inspection of each actor, in the order of `entries`."""
    return list(await asyncio.gather(*(inspection_of(bus, entry) for entry in entries)))


async def inspection_of(bus: Bus, entry: ServiceEntry) -> Row:
    """Return an actor's inspection. State `silent`: it did not answer; `listed`: it has no inspection subject."""
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
    """Return the state for people: a running actor may wait for an engine, be draining, or refuse clients."""
    details = row.get("details", {})
    if details.get("waitingFor"):
        return f"waits for {details['waitingFor']}"
    if details.get("drain"):
        return "draining"
    if details.get("accepting") is False:
        return "refuses clients"
    return str(row["state"])


async def entry_at(bus: Bus, address: str) -> ServiceEntry:
    """Find the actor with an address, a serverId, or the id or name of a micro service.

    Raises `NotFound`, or `ConfigurationError` when several actors match.
    """
    names = (address, f"socket.{address}")
    entries = await bus.services()
    exact = [entry for entry in entries if address_of(entry) in names]
    matching = exact or [entry for entry in entries if address in (entry.name, entry.id)]
    if not matching:
        raise NotFound(f"no actor has the address {address}: `examwire actors ls` lists the actors")
    if len(matching) > 1:
        addresses = ", ".join(address_of(entry) for entry in matching)
        raise ConfigurationError(f"{address} matches {len(matching)} actors: give one of {addresses}")
    return matching[0]


# -- sessions -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session:
    """A live session: its address, its server's address, its socketId and its inspection."""

    address: str
    server: str
    socket_id: str
    inspection: Row


def is_session(address: str) -> bool:
    """Return whether an address names a session. Sessions are asked through their socket server."""
    return address.startswith(("session.", "proctor."))


async def session_at(bus: Bus, address: str) -> Session:
    """Find the session `session.{planId}.{examineeId}` or `proctor.{planId}.{socketId}`. Raises `NotFound`."""
    plan_id, name = session_ids(address)
    if address.startswith("proctor."):
        server = server_of_socket(name)
        async for page in session_pages(bus, [(await entry_at(bus, server), 1)], plan=plan_id, kind="proctor-session"):
            for session in page:
                if session["address"] == address:
                    return Session(address, server, name, session)
        raise NotFound(f"no proctor of plan {plan_id} is connected on {name}")
    try:
        answer = await bus.request(subjects.session(plan_id, name), timeout=ANSWER_SECONDS)
    except NoResponders:
        raise NotFound(f"examinee {name} of plan {plan_id} is not connected") from None
    inspection: Row = json.loads(answer)
    details = inspection["details"]
    return Session(address, subjects.socket_server(details["serverId"]), details["socketId"], inspection)


def session_ids(address: str) -> tuple[str, str]:
    """Split a session's address into planId and examineeId (or socketId). Raises `ConfigurationError`."""
    parts = address.split(".")
    if len(parts) != 3:
        raise ConfigurationError(
            f"{address!r} is not a session address: use session.PLAN_ID.EXAMINEE_ID or proctor.PLAN_ID.SOCKET_ID"
        )
    check_id("planId", parts[1])
    if parts[0] == "proctor":
        server_of_socket(parts[2])
        return parts[1], parts[2]
    return parts[1], check_id("examineeId", parts[2])


def server_of_socket(socket_id: str) -> str:
    """Return the address of the socket server of a socketId `{serverId}-{unique}`. Raises `ConfigurationError`."""
    server_id, dash, _ = socket_id.rpartition("-")
    if not dash:
        raise ConfigurationError(
            f"{socket_id!r} is not a socketId such as SOCK001-5f2c9a: `examwire sessions ls` lists them"
        )
    return subjects.socket_server(check_server_id(server_id))


async def count_sessions(
    bus: Bus, entries: Iterable[ServiceEntry], *, plan: str | None = None, kind: str | None = None
) -> tuple[list[tuple[ServiceEntry, int]], list[str]]:
    """Count the matching sessions of each socket server; also return the addresses of servers that did not answer."""
    servers = [entry for entry in entries if kind_of(entry) == "socket-server" and "inspect" in entry.metadata]
    pages = await asyncio.gather(
        *(_page(bus, server, plan, kind, 0, 0, 0) for server in servers), return_exceptions=True
    )
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
    """Yield pages of session inspections, server by server, oldest session first.

    `servers`: with their counts from `count_sessions`, which `offset` uses to skip. A session that stays connected
    appears exactly once.
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
    page_query = {"after": after, "offset": offset, "limit": limit, "planId": plan, "kind": kind}
    request = json.dumps({"sessions": page_query}).encode()
    answer: Row = json.loads(await bus.request(entry.metadata["inspect"], request, timeout=ANSWER_SECONDS))
    if "sessions" not in answer:
        raise RequestRefused(f"{address_of(entry)}: {answer.get('data', answer)}")
    return answer


# -- requests -------------------------------------------------------------------------------------------


async def ask(bus: Bus, address: str, request: Request) -> Done:
    """Send a request to an actor and return its answer. Raises `NotFound`, `RequestRefused`, `BrokerUnavailable`."""
    try:
        answer = ANSWERS.decode_one(await bus.request(subjects.control(address), encode(request), ANSWER_SECONDS))
    except NoResponders:
        raise NotFound(f"no actor has the address {address}: `examwire actors ls` lists the actors") from None
    if isinstance(answer, Error):
        error = NotFound if answer.code is ErrorCode.NOT_FOUND else RequestRefused
        raise error(answer.message)
    assert isinstance(answer, Done)
    return answer


# -- queues and rates -----------------------------------------------------------------------------------


async def add_queue_lag(bus: Bus, rows: Iterable[Row]) -> None:
    """Add `queueLag` (pending messages) and `queueUnacknowledged` to each row whose actor reads consumers.

    State managers that share one consumer all show its full lag. `None`: the consumer does not exist.
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
        states.update({f"{state.stream}/{state.name}": state for state in answer})
    for row in rows:
        consumers = [states.get(name) for name in row["details"]["consumers"]]
        known = [state for state in consumers if state is not None]
        complete = len(known) == len(consumers)
        row["queueLag"] = sum(state.pending for state in known) if complete else None
        row["queueUnacknowledged"] = sum(state.unacknowledged for state in known) if complete else None


class RateMeter:
    """Rates of actors from two successive inspections; the first one gives the average since the actor's start.

    Example::

        rates = RateMeter()
        rates.compare(rows)  # adds ratePerSecond and newFailures to each row
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[str, float, int, int]] = {}

    def compare(self, rows: Iterable[Row]) -> None:
        """Add `ratePerSecond` (messages handled) and `newFailures` (since the last call) to each row."""
        now = self._clock()
        samples: dict[str, tuple[str, float, int, int]] = {}
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
            samples[key] = (row["since"], now, handled, failed)
        self._seen = samples
