"""Worker processes of `examwire load`: examinees' sockets, or proctors.

Run as `python -m cli.load.workers KIND CONFIG`. Commands come as JSON lines on stdin, events go out as JSON lines on
stdout. A worker ends when its stdin ends, so none outlives `examwire load`. Settings come from the environment.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import uvloop

from actors.client.client import ClientClosed, ConnectRefused, GaveUp
from actors.client.examinee import ExamineeClient
from actors.client.proctor import ProctorClient
from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import issue_token
from protocol.close_codes import CloseCode
from protocol.errors import ExamwireError
from protocol.messages.frames import PlanSnapshot, Welcome
from protocol.messages.proctor_events import (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReadmitted,
    ExamineeReconnectExhausted,
    ExamineeReconnecting,
)
from protocol.texts import escape

HANDSHAKES_AT_ONCE = 64
MOVE_SECONDS = 20.0
CONNECT_SECONDS = 60.0
"""Seconds that an examinee keeps trying to connect."""
RETRY_SECONDS = 0.25
ROWS_A_LINE = 500
FLUSH_SECONDS = 0.005

_CONNECTION_EVENTS = (
    ExamineeConnected,
    ExamineeDisconnected,
    ExamineeMigrating,
    ExamineeReconnecting,
    ExamineeReconnectExhausted,
    ExamineeReadmitted,
)


def examinee_id(number: int) -> str:
    """Return the examineeId of an examinee's number."""
    return f"E{number:05d}"


def plan_of(plan_ids: Sequence[str], number: int) -> str:
    """Return the planId of an examinee's number: the plans in turn."""
    return plan_ids[(number - 1) % len(plan_ids)]


def raise_file_limit() -> None:
    """Raise the soft limit of file descriptors to the hard limit, for thousands of sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def write_event(event: str, **data: Any) -> None:
    """Write an event to `examwire load` as a JSON line."""
    sys.stdout.write(json.dumps({"event": event, **data}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


async def read_commands(obey: Callable[[dict[str, Any]], None]) -> None:
    """Read commands from stdin until it ends, and call `obey` with each."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        obey(json.loads(line))


class Welcomed(Protocol):
    """What a client gets when it has connected."""

    @property
    def socket_id(self) -> str: ...


class LoadClient(Protocol):
    """What a client of an examinee can do: an `ExamineeClient`, or one of another system that is measured, too."""

    @property
    def connected(self) -> bool: ...

    async def connect(self, url: str | None = None) -> Welcomed: ...

    def abort(self) -> None: ...


class ExamineeWorker:
    """The examinees of one process: `count` of them from number `first` on, on the socket servers `urls`.

    Commands: `connect` (`numbers`, `connectionNo`, `phase`), `drop` (`number`, `phase`), `check`. An examinee on a
    drained server moves by itself, as every client does (event `moved`); others reconnect only on command.
    """

    def __init__(self, plan_ids: Sequence[str], urls: Sequence[str], first: int, count: int) -> None:
        settings = load_settings()
        self._urls = urls
        # Signed before the run: a signature costs as much CPU as a handshake.
        self.tokens = {
            number: issue_token(settings, "examinee", plan_of(plan_ids, number), examinee_id(number))
            for number in range(first, first + count)
        }
        self._clients: dict[int, LoadClient] = {}
        self._room = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        self._refusals = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._moves: dict[int, asyncio.Task[None]] = {}

    def obey(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "connect":
                self._begin(self._connect(command["numbers"], command["connectionNo"], command["phase"]))
            case "drop":
                self._begin(self._drop(command["number"], command["phase"]))
            case "check":
                self._begin(self._check())
            case command_name:
                raise ValueError(f"no such command: {command_name}")

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drop(self, number: int, phase: str) -> None:
        if number in self._moves:  # wait for the migration: meanwhile there is no connection to drop
            await asyncio.wait({self._moves[number]})
        client = self._clients.pop(number)
        at = time.time()
        client.abort()
        write_event("dropped", number=number, at=at, phase=phase)

    async def _check(self) -> None:
        if self._moves:
            await asyncio.wait(self._moves.values(), timeout=MOVE_SECONDS)
        write_event("checked", gone=[number for number, client in self._clients.items() if not client.connected])

    def _ended(self, number: int, code: int | None) -> None:
        client = self._clients.get(number)
        if isinstance(client, ExamineeClient) and code == CloseCode.MIGRATE:
            self._moves[number] = self._begin(self._move(number, client))

    async def _move(self, number: int, client: ExamineeClient) -> None:
        """Receive frames, which idle examinees do not do, until the client is connected to its new server."""
        left_at = time.time()
        try:
            while not isinstance(await client.receive(), Welcome):
                pass
        except GaveUp as gave_up:
            print(escape(f"{examinee_id(number)}: {gave_up}"), file=sys.stderr)
        else:
            assert client.welcome is not None
            write_event("moved", number=number, left=left_at, welcomed=time.time(), socketId=client.welcome.socket_id)
        finally:
            del self._moves[number]

    async def _connect(self, numbers: Sequence[int], connection_no: int, phase: str) -> None:
        self._refusals = 0
        rows = await asyncio.gather(*(self._one(number, connection_no) for number in numbers))
        connected_rows = [row for row in rows if row is not None]
        failed = [number for number, row in zip(numbers, rows, strict=True) if row is None]
        write_event("connected", rows=connected_rows, failed=failed, refusals=self._refusals, phase=phase)

    def new_client(self, number: int, connection_no: int) -> LoadClient:
        """Return a client of an examinee, which is not connected yet."""
        return ExamineeClient(
            self._urls[number % len(self._urls)],
            self.tokens[number],
            client_id=f"load-{examinee_id(number)}",
            connection_no=connection_no,
            heartbeats=False,
            on_end=partial(self._ended, number),
        )

    async def _one(self, number: int, connection_no: int) -> tuple[int, float, float, str] | None:
        """Connect an examinee; return number, start time, welcome time and socketId, or `None` if it is refused."""
        name = examinee_id(number)
        client = self.new_client(number, connection_no)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_SECONDS
        for attempt in itertools.count(number):
            async with self._room:
                started = time.time()
                try:
                    welcome = await client.connect(self._urls[attempt % len(self._urls)])
                except ConnectRefused as refused:
                    self._refusals += 1
                    final = refused.code is not None and refused.code >= 4500
                    if final or loop.time() > deadline:
                        print(escape(f"{name}: {refused}"), file=sys.stderr)
                        return None
                    wait = refused.retry_after or RETRY_SECONDS
                else:
                    self._clients[number] = client
                    return number, started, time.time(), welcome.socket_id
            await asyncio.sleep(wait)
        return None


async def run_examinees(worker: type[ExamineeWorker], **config: Any) -> None:
    """Run an `ExamineeWorker` until stdin ends. `config`: its arguments."""
    seats = worker(**config)
    write_event("ready")
    await read_commands(seats.obey)


class ProctorWorker:
    """A proctor that reports its plan's events with the times at which it received them, if it `reports`."""

    def __init__(self, plan_id: str, url: str, name: str, *, reports: bool) -> None:
        token = issue_token(load_settings(), "proctor", plan_id, name)
        self.name = name
        self.url = url
        self.token = token
        self.ready = asyncio.Event()
        self.reports = reports
        self._client = ProctorClient(url, token, client_id=name)
        self._rows: list[tuple[str, str, int, float, bool]] = []
        self._flushing: asyncio.TimerHandle | None = None

    async def watch(self) -> None:
        """Connect and report events until the client is closed."""
        await self._client.connect()
        try:
            async for frame in self._client.frames():
                at = time.time()
                if isinstance(frame, PlanSnapshot):
                    self._snapshot(frame, at)
                elif self.reports and isinstance(frame, _CONNECTION_EVENTS):
                    restated = bool(getattr(frame, "restated", None))
                    self.report((frame.type, frame.examinee_id, frame.version, at, restated))
        except ClientClosed:
            return

    def _snapshot(self, frame: PlanSnapshot, at: float) -> None:
        if self._client.view.complete and not self.ready.is_set():
            self.ready.set()
        elif self.ready.is_set() and self.reports:
            # The snapshot replaces dropped events, or the proctor reconnected: its rows count as events.
            self._flush()
            types = {
                "CONNECTED": ExamineeConnected.type,
                "DISCONNECTED": ExamineeDisconnected.type,
                "MIGRATING": ExamineeMigrating.type,
            }
            rows = [
                (types[row.status], row.examinee_id, row.connection.version, at, True)
                for row in frame.examinees
                if row.status in types
            ]
            write_event("snapshot", by=self.name, rows=rows, last=frame.part == frame.parts)

    def report(self, row: tuple[str, str, int, float, bool]) -> None:
        """Report an event: type, examineeId, version, time, and whether it was published again. Many go together."""
        self._rows.append(row)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        rows, self._rows = self._rows, []
        for start in range(0, len(rows), ROWS_A_LINE):
            write_event("seen", by=self.name, rows=rows[start : start + ROWS_A_LINE])

    def view(self) -> list[tuple[str, str | None]]:
        """Return the socket of each examinee in this proctor's view; `None` if not connected."""
        return [
            (examinee.examinee_id, examinee.socket_id if examinee.connected else None)
            for examinee in self._client.view.examinees.values()
        ]

    async def leave(self) -> None:
        await self._client.close()


async def run_proctors(worker: type[ProctorWorker], url: str, seats: Sequence[tuple[str, str, bool]]) -> None:
    """Run a proctor for each planId, name and `reports` of `seats` until stdin ends.

    Command: `view`, answered with the views of all.
    """
    proctors = [worker(plan_id, url, name, reports=reports) for plan_id, name, reports in seats]
    room = asyncio.Semaphore(HANDSHAKES_AT_ONCE)

    async def begin(proctor: ProctorWorker) -> asyncio.Task[None]:
        async with room:
            watching = asyncio.create_task(proctor.watch())
            ready = asyncio.create_task(proctor.ready.wait())
            await asyncio.wait({watching, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            return watching

    def obey(command: dict[str, Any]) -> None:
        match command["do"]:
            case "view":
                write_event("view", views={proctor.name: proctor.view() for proctor in proctors})
            case command_name:
                raise ValueError(f"no such command: {command_name}")

    watching = await asyncio.gather(*(begin(proctor) for proctor in proctors))
    if not any(task.done() for task in watching):
        write_event("ready")
    waiting = asyncio.create_task(read_commands(obey))
    await asyncio.wait({*watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in watching:
        if task.done():
            await task  # raises its error
    for proctor in proctors:
        await proctor.leave()
    await asyncio.gather(*watching)


def main(examinees: type[ExamineeWorker] = ExamineeWorker, proctors: type[ProctorWorker] = ProctorWorker) -> None:
    """Run the worker named by the argument KIND, with the JSON object CONFIG as its arguments."""
    _, kind, config = sys.argv
    kinds = {"examinees": partial(run_examinees, examinees), "proctors": partial(run_proctors, proctors)}
    raise_file_limit()
    # A full garbage collection over thousands of connections takes 0.25 s and would distort the measurement.
    gc.set_threshold(50_000, 20, 1000)
    uvloop.run(_run(kinds[kind], json.loads(config)))


async def _run(work: Callable[..., Awaitable[None]], config: dict[str, Any]) -> None:
    try:
        await work(**config)
    except ExamwireError as error:
        print(escape(f"{type(error).__name__}: {error}"), file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
