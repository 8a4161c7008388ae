"""`examwire actors`: who is running, and how they are doing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.runtime.bus import Bus, ServiceEntry
from actors.runtime.settings import Settings
from cli.config import takes_settings
from cli.output import Format, NotFound, OutputOption, WatchOption, run_until_interrupted, show, table, watch
from protocol import subjects
from protocol.errors import BrokerUnavailable, ConfigurationError, NoResponders
from protocol.ids import check_id

if TYPE_CHECKING:
    from rich.console import RenderableType

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 3.0
PAGE = 500  # sessions an answer; one of them is about half a KiB

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def actors() -> None:
    """The actors that answer on the bus, by address."""


@app.command("ls")
@takes_settings("nats_url", "data_dir", running=True)
def list_actors(
    settings: Settings,
    kind: Annotated[str | None, typer.Option("--kind", help="Only actors of this kind.", show_default=False)] = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="The sessions of socket servers, too.")] = False,
    watching: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the actors. Sessions are listed by their server: with --sessions, or with a --kind that is a session's."""

    async def work() -> None:
        bus = await Bus.connect(settings.nats_url, "examwire actors", wait=CONNECT_SECONDS)

        async def fetch() -> list[dict[str, Any]]:
            entries = await bus.services()
            found = list(await asyncio.gather(*(inspection_of(bus, entry) for entry in entries)))
            if sessions or (kind is not None and kind.endswith("session")):
                pages = await asyncio.gather(*(sessions_of(bus, entry) for entry in entries))
                found += [session for page in pages for session in page]
            return [actor for actor in found if kind is None or actor["kind"] == kind]

        try:
            if watching:
                await watch(fetch, lambda found: found, _draw, output)
            found = await fetch()
            show(found, lambda: _draw(found), output)
        finally:
            await bus.close()

    run_until_interrupted(work())


@app.command("show")
@takes_settings("nats_url", "data_dir", running=True)
def show_actor(
    settings: Settings,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="An address that `actors ls` shows, or session.PLAN.EXAMINEE.", show_default=False
        ),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show one actor's inspection. Exit code 3 when there is none at this address, or the examinee is not connected."""

    session = _session_ids(address) if address.startswith("session.") else None

    async def work() -> None:
        bus = await Bus.connect(settings.nats_url, "examwire actors", wait=CONNECT_SECONDS)
        try:
            found = await (_service(bus, address) if session is None else _session(bus, *session))
        finally:
            await bus.close()
        show(found, lambda: table(["field", "value"], _fields(found)), output)

    run_until_interrupted(work())


async def inspection_of(bus: Bus, entry: ServiceEntry) -> dict[str, Any]:
    """What the actor of an entry answers; one that does not is `silent`, one that cannot be asked `listed`."""
    known = {
        "address": entry.metadata.get("address", entry.name),
        "kind": entry.metadata.get("kind", entry.name),
        "id": entry.id,
    }
    subject = entry.metadata.get("inspect")
    if subject is None:
        return {**known, "state": "listed"}
    try:
        answer = json.loads(await bus.request(subject, timeout=ANSWER_SECONDS))
    except (NoResponders, BrokerUnavailable) as error:
        return {**known, "state": "silent", "lastError": str(error)}
    return {**known, **answer}


async def sessions_of(bus: Bus, entry: ServiceEntry) -> list[dict[str, Any]]:
    """The inspections of the sessions that a socket server holds; nobody else holds any. None if it does not answer.

    Asked for page by page; a session that comes or goes in between may be missing or there twice, so by address.
    """
    subject = entry.metadata.get("inspect")
    if subject is None or entry.metadata.get("kind") != "socket-server":
        return []
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while True:
        request = json.dumps({"sessions": {"offset": offset, "limit": PAGE}}).encode()
        try:
            answer = json.loads(await bus.request(subject, request, timeout=ANSWER_SECONDS))
        except (NoResponders, BrokerUnavailable):
            return []  # its own row says `silent`
        page = answer["sessions"]
        found.update({session["address"]: session for session in page})
        offset += len(page)
        if not page or offset >= answer["total"]:
            return list(found.values())


def _session_ids(address: str) -> tuple[str, str]:
    parts = address.split(".")
    if len(parts) != 3:
        raise ConfigurationError(f"{address!r}: the address of a session is session.PLAN_ID.EXAMINEE_ID")
    return check_id("planId", parts[1]), check_id("examineeId", parts[2])


async def _session(bus: Bus, plan_id: str, examinee_id: str) -> dict[str, Any]:
    try:
        answer = await bus.request(subjects.session(plan_id, examinee_id), timeout=ANSWER_SECONDS)
    except NoResponders:
        raise NotFound(f"examinee {examinee_id} of plan {plan_id} is not connected") from None
    found: dict[str, Any] = json.loads(answer)
    return found


async def _service(bus: Bus, address: str) -> dict[str, Any]:
    entries = await bus.services()
    matching = [
        entry for entry in entries if address in (entry.metadata.get("address", entry.name), entry.name, entry.id)
    ]
    if not matching:
        raise NotFound(f"no actor at {address}: `examwire actors ls` shows those that there are")
    if len(matching) > 1:
        ids = ", ".join(entry.metadata.get("address", entry.id) for entry in matching)
        raise ConfigurationError(f"{address} names {len(matching)} actors; ask for one of {ids}")
    return await inspection_of(bus, matching[0])


def _draw(found: Sequence[dict[str, Any]]) -> RenderableType:
    columns = ["address", "kind", "state", "since", "mailbox", "peak", "handled", "failed", "restarts", "last error"]
    return table(
        columns,
        [
            (
                one["address"],
                one["kind"],
                one["state"],
                one.get("since"),
                f"{one['mailboxDepth']}/{one['mailboxCapacity']}" if "mailboxDepth" in one else None,
                one.get("mailboxPeak"),
                one.get("handled"),
                one.get("failed"),
                one.get("restarts"),
                one.get("lastError"),
            )
            for one in found
        ],
    )


def _fields(found: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)
        for name, value in found.items()
    ]
