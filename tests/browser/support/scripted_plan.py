"""A plan of any size for the wall, by script: the real pages, and a socket that says what the script wants said.

For what needs thousands of examinees and not the system behind them: frame times, pictures of the wall, crowds.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import issue_token
from actors.web_server.pages import Pages
from protocol.messages.frames import SUBPROTOCOL
from protocol.times import format_time

Row = dict[str, Any]
Event = dict[str, Any]
ROWS_A_FRAME = 500
SURNAMES = "김이박최정강조윤장임"
GIVEN = ("민준", "서연", "도윤", "서윤", "시우", "지우", "주원", "하윤", "지호", "서준")


class ScriptedPlan:
    """`async with ScriptedPlan(2000) as plan`: `plan.link` opens the wall; `say` sends events to it.

    The examinees are spread over two servers and over networks of 50; everybody is connected at first.
    """

    def __init__(self, examinees: int, *, seed: int = 1, plan_id: str = "P001") -> None:
        self.random = random.Random(seed)
        self.version = 1_000_000
        self.rows = {row["examineeId"]: row for row in (self._row(k) for k in range(examinees))}
        self.plan_id = plan_id
        self.scope: dict[str, list[str]] | None = None
        """The labels that the proctor's token is limited to."""
        self.state: Event | None = None
        """The `plan_state` that a proctor gets after the welcome, if there is one (`exam`)."""
        self.proctors: list[ServerConnection] = []
        self.asked: list[Event] = []
        self._server: Server | None = None
        self._http: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""
        self.socket_url = ""

    async def __aenter__(self) -> Self:
        await self.open_socket()
        pages = Pages(lambda: [self.socket_url])
        app = Starlette(routes=[*pages.routes(), Route("/v1/endpoints", self._endpoints), Route("/healthz", _healthy)])
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self._http = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._http.serve([listener]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_socket()
        if self._http is not None and self._serving is not None:
            self._http.should_exit = True
            await self._serving

    @property
    def link(self) -> str:
        return f"{self.url}/proctor#token={self.token}"

    @property
    def token(self) -> str:
        settings = load_settings(secret="a scripted plan needs no secret, but a token does")
        return issue_token(settings, "proctor", self.plan_id, "kim", scope=self.scope)

    # -- the socket ----------------------------------------------------------------------------------

    async def open_socket(self) -> None:
        """Begin to accept proctors; after `close_socket`, on the same port."""
        port = int(self.socket_url.rpartition(":")[2].partition("/")[0]) if self.socket_url else 0
        self._server = await serve(
            self._proctor, "127.0.0.1", port, subprotocols=[Subprotocol(SUBPROTOCOL)], close_timeout=1
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.socket_url = f"ws://127.0.0.1:{port}/v1/connect"

    async def close_socket(self) -> None:
        """As a server does that goes away."""
        if self._server is not None:
            self._server.close(code=1012)
            await self._server.wait_closed()
            self._server = None

    async def _proctor(self, connection: ServerConnection) -> None:
        await connection.recv()
        await self._send(connection, _welcome(self.socket_url, self.plan_id))
        if self.state is not None:
            await self._send(connection, self.state)
        rows = list(self.rows.values())
        parts = max(1, -(-len(rows) // ROWS_A_FRAME))
        for part in range(parts):
            part_rows = rows[part * ROWS_A_FRAME : (part + 1) * ROWS_A_FRAME]
            data = {"planId": self.plan_id, "examinees": part_rows, "part": part + 1, "parts": parts}
            await self._send(connection, {"type": "plan_snapshot", "data": data})
        self.proctors.append(connection)
        try:
            async for text in connection:
                frame = json.loads(text)
                if frame["type"] == "heartbeat":
                    await connection.send(text)
                elif frame["type"] != "proctor_activity":  # is not answered
                    self.asked.append(frame)
        except ConnectionClosed:
            pass
        finally:
            self.proctors.remove(connection)

    async def say(self, *events: Event) -> None:
        """Tell every proctor, in one frame."""
        for proctor in list(self.proctors):
            await self._send(proctor, list(events))

    async def _send(self, connection: ServerConnection, message: Any) -> None:
        await connection.send(json.dumps(message))

    async def _endpoints(self, _request: Request) -> Response:
        return JSONResponse({"socketServers": [self.socket_url]})

    # -- what happens to the exam ----------------------------------------------------------------------

    def exam(
        self,
        status: str,
        *,
        starts_in: float | None = None,
        ends_in: float | None = None,
        own: dict[str, dict[str, float]] | None = None,
        **more: Any,
    ) -> Event:
        """The state of the plan; `own`: an examinee's own `startsIn` and `endsIn`. Proctors who come later get it."""
        self.version += 1
        now = time.time()
        data: Event = {"planId": self.plan_id, "status": status, "policy": {}, "version": self.version}
        if starts_in is not None:
            data["startsAt"] = format_time(now + starts_in)
        if ends_in is not None:
            data["endsAt"] = format_time(now + ends_in)
        if own is not None:
            data["ownTimes"] = {
                examinee_id: {name[:-2] + "At": format_time(now + seconds) for name, seconds in times.items()}
                for examinee_id, times in own.items()
            }
        self.state = {"type": "plan_state", "data": {**data, **more, "serverTime": format_time(now)}}
        return self.state

    def finished(self, examinee_id: str, *, ago: float = 0.0, by: str | None = None) -> Event:
        """The examinee hands in, or is finished `by` a proctor or the end of the plan."""
        row = self.rows[examinee_id]
        reason = {None: "HANDED_IN", "plan": "PLAN_ENDED"}.get(by, "DECIDED")
        told = {"reason": reason, "by": by or examinee_id}
        event = self._event(examinee_id, "examinee_finished", ago, **told, status="FINISHED")
        row["status"] = row["connection"]["status"] = "FINISHED"
        row["connection"] |= {"reason": reason, "finishedBy": told["by"], "since": event["data"]["timestamp"]}
        return event

    # -- what happens to examinees -------------------------------------------------------------------

    def lost(self, examinee_id: str, *, ago: float = 0.0, reason: str = "SOCKET_CLOSED") -> Event:
        row = self.rows[examinee_id]
        row["status"] = row["connection"]["status"] = "DISCONNECTED"
        return self._event(examinee_id, "examinee_disconnected", ago, reason=reason, status="DISCONNECTED")

    def trying(self, examinee_id: str, attempt: int, *, ago: float = 0.0, after: float = 10.0) -> Event:
        following = format_time(time.time() + after)
        progress = {"attempt": attempt, "maxAttempts": 5, "nextAttemptAt": following}
        event = self._event(examinee_id, "examinee_reconnecting", ago, **progress)
        self.rows[examinee_id]["reconnect"] |= progress
        return event

    def shut_out(self, examinee_id: str, *, ago: float = 0.0) -> Event:
        row = self.rows[examinee_id]
        row["reconnect"] |= {"exhausted": True, "attempt": 5, "maxAttempts": 5}
        return self._event(examinee_id, "examinee_reconnect_exhausted", ago, attempt=5, maxAttempts=5)

    def back(self, examinee_id: str, *, ago: float = 0.0, after: float = 5.0) -> Event:
        row = self.rows[examinee_id]
        row["status"] = row["connection"]["status"] = "CONNECTED"
        row["reconnect"] = {"count": row["reconnect"]["count"] + 1, "attempt": 0, "exhausted": False}
        place = {"socketId": row["connection"]["socketId"], "serverId": row["connection"]["serverId"]}
        more = {**place, "status": "CONNECTED", "recovered": True, "outageSeconds": after}
        return self._event(examinee_id, "examinee_connected", ago, **more)

    def moving(self, examinee_id: str) -> Event:
        row = self.rows[examinee_id]
        row["status"] = row["connection"]["status"] = "MIGRATING"
        place = {"socketId": row["connection"]["socketId"], "serverId": row["connection"]["serverId"]}
        return self._event(examinee_id, "examinee_migrating", 0.0, **place, status="MIGRATING")

    def phone(self, examinee_id: str, status: str, *, left: float = 90.0, **more: Any) -> Event:
        """The mobile sync stage: WAITING with `left` seconds, FAILED, TIMED_OUT; COMPLETED is `pictured`."""
        deadline = format_time(time.time() + left) if status == "WAITING" else None
        self.version += 1
        timestamp = format_time(time.time())
        data: dict[str, Any] = {
            "planId": self.plan_id,
            "examineeId": examinee_id,
            "status": status,
            "timestamp": timestamp,
        }
        data |= {"deadline": deadline, "version": self.version, **more}
        self.rows[examinee_id]["mobileSync"] = {
            "status": status,
            "version": self.version,
            "timestamp": data["timestamp"],
            "deadline": deadline,
        }
        return {"type": "mobile_sync_status", "data": data}

    def pictured(self, examinee_id: str) -> Event:
        event = self.phone(examinee_id, "COMPLETED", deviceId="M001", imageUrl=f"/captures/{examinee_id}/sync_cap.jpg")
        return {"type": "mobile_sync_completed", "data": event["data"]}

    def asks_for_help(self, examinee_id: str, text: str) -> Event:
        """The examinee asks for help; only for proctors who are connected."""
        self.version += 1
        now = format_time(time.time())
        about = {"planId": self.plan_id, "examineeId": examinee_id, "timestamp": now, "version": self.version}
        help = {"requestId": f"help-{examinee_id}", "text": text, "since": now}
        return {
            "type": "help_requested",
            "data": {**about, "by": examinee_id, "unconfirmed": [], "sent": 0, "help": help},
        }

    def _event(self, examinee_id: str, kind: str, ago: float, **data: Any) -> Event:
        self.version += 1
        timestamp = format_time(time.time() - ago)
        row = self.rows[examinee_id]
        row["version"] = row["connection"]["version"] = self.version
        if kind in ("examinee_connected", "examinee_disconnected", "examinee_migrating"):
            row["connection"] |= {"since": timestamp, "reason": data.get("reason")}
        about = {"planId": self.plan_id, "examineeId": examinee_id, "name": row["name"], "timestamp": timestamp}
        about |= {"version": self.version, "labels": row.get("labels"), "flags": row["connection"].get("flags")}
        about["unstable"] = row["reconnect"].get("unstable")
        return {"type": kind, "data": {**about, **data}}

    def _row(self, k: int) -> Row:
        self.version += 1
        examinee_id = f"E{k + 1:04d}"
        name = SURNAMES[k % len(SURNAMES)] + GIVEN[(k * 7) % len(GIVEN)]
        server = f"SOCK{1 + k % 2:03d}"
        connection = {
            "status": "CONNECTED",
            "socketId": f"{server}-{k:06x}",
            "serverId": server,
            "ipAddress": f"10.20.{k // 50}.{10 + k % 50}",
            "since": format_time(time.time() - 3600 + k / 10),
            "version": self.version,
        }
        return {
            "examineeId": examinee_id,
            "name": name,
            "status": "CONNECTED",
            "lastActiveTime": format_time(time.time()),
            "connection": connection,
            "mobileSync": {"status": "NONE", "version": 0},
            "reconnect": {"count": 0, "attempt": 0, "exhausted": False},
            "version": self.version,
        }

    def seat(self, room_of: Callable[[int], str]) -> None:
        """Give everybody a room and a seat; before a proctor has connected."""
        for k, row in enumerate(self.rows.values()):
            row["labels"] = {"room": room_of(k), "seat": str(k % 30 + 1)}

    def taken_over(self, examinee_id: str, *differs: str) -> Event:
        """Another connection takes over that `differs` in this."""
        row = self.rows[examinee_id]
        row["connection"]["flags"] = list(differs)
        place = {"socketId": row["connection"]["socketId"], "serverId": row["connection"]["serverId"]}
        return self._event(examinee_id, "examinee_connected", 0.0, **place, status="CONNECTED", differs=list(differs))

    def never_came(self, examinee_id: str) -> None:
        """By the roster only; before a proctor has connected."""
        row = self.rows[examinee_id]
        row["status"] = row["connection"]["status"] = "NEVER"
        row["connection"] = {"status": "NEVER", "version": row["version"]}


def _welcome(url: str, plan_id: str) -> Event:
    policy = {"maxAttempts": 50, "backoffSeconds": [1, 2], "jitter": 0.3}  # a script is not in a hurry
    data = {"role": "proctor", "planId": plan_id, "serverId": "SOCK001", "socketId": "SOCK001-script"}
    return {"type": "welcome", "data": {**data, "heartbeatSeconds": 5, "reconnect": policy, "endpoints": [url]}}


async def _healthy(_request: Request) -> Response:
    return JSONResponse({"status": "alive"})
