"""The recorded state of one examinee's connection. Its rules are in `connection` and `admission`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionStatus, ConnectionStatusCode, FinishReason
from protocol.messages.views import ConnectionView, Difference, ReconnectView
from protocol.rules.history import StoredState
from protocol.times import format_time, parse_time

READMITTED = "READMITTED"
"""`reason` of a disconnected examinee whom a proctor has readmitted; no attempts are counted."""

REMOVED = CloseCode.REMOVED.name
"""`reason` of an examinee whom a proctor has removed; no attempts are counted."""

RESUMED = "RESUMED"
"""`reason` of a finished examinee who goes on with the exam and is not connected; no attempts are counted."""


MOST_OUTAGES = 20
"""So many recent outages of an examinee are kept; with one more the two oldest are kept as one."""


@dataclass(frozen=True, slots=True)
class Outage(StoredState):
    """An outage that is over: it lasted `seconds` until `ended` (seconds since the epoch)."""

    ended: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionState(StoredState):
    """The state of an examinee's connection.

    `version` is the version that last changed it; `loss_version` names the current or latest outage
    (its loss or migration, or what a proctor has decided since). `socket_id` is the current socket, or the last one
    while disconnected or migrating; a state with a `status` has a socket, its server and `since`. `enrolled`: the
    roster lists the examinee, as `name` with `labels`. `removed_by` and `removed_why`: the proctor of the last removal,
    and the reason given. `finished`: why the exam is over for the examinee, since `finished_at`, as `finished_by` said;
    `status` goes on to say where their socket is. `actions`: the applied actions of proctors.

    `opened_at`: when the current socket opened, if it was announced again later.
    `close_code`: that of the last end of a socket. `connected_version`: of the fact that has connected the socket.
    `flags`: in what the newest connection that differs from the one before it differs; a proctor's decision clears it.
    `outages`: the recent ones, while the exam runs, and `unstable`: with the present one they are more than
    `unstable_share` of the last `unstable_window` seconds; time before `exam_starts_at` does not count.
    """

    plan_id: str = ""
    examinee_id: str = ""
    status: ConnectionStatusCode | None = None
    socket_id: str | None = None
    server_id: str | None = None
    client_id: str | None = None
    connection_no: int = 0
    reason: str | None = None
    since: str | None = None
    opened_at: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    close_code: int | None = None
    connected_version: int = 0
    flags: tuple[Difference, ...] = ()
    outages: tuple[Outage, ...] = ()
    unstable: bool = False
    away_share: float | None = None
    unstable_share: float = 0.2
    unstable_window: int = 600
    exam_starts_at: str | None = None
    loss_version: int = 0
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: str | None = None
    exhausted: bool = False
    recoveries: int = 0
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    enrolled: bool = False
    removed: bool = False
    removed_by: str | None = None
    removed_by_name: str | None = None
    removed_why: str | None = None
    finished: FinishReason | None = None
    finished_at: str | None = None
    finished_by: str | None = None
    finished_by_name: str | None = None
    actions: tuple[str, ...] = ()
    version: int = 0

    @property
    def live(self) -> bool:
        """Whether the examinee has an open socket, finished or not."""
        return self.status is ConnectionStatusCode.CONNECTED

    @property
    def shown_status(self) -> ConnectionStatusCode | None:
        """The status as clients see it: FINISHED, wherever the socket is."""
        return ConnectionStatusCode.FINISHED if self.finished is not None else self.status

    def view(self) -> ConnectionView:
        if self.finished is not None:
            return ConnectionView(
                status="FINISHED",
                reason=self.finished.value,
                since=self.finished_at,
                finished_by=self.finished_by,
                finished_by_name=self.finished_by_name,
                flags=list(self.flags) or None,
                version=self.version,
            )
        return ConnectionView(
            status=self.status.value if self.status else "NEVER",
            socket_id=self.socket_id,
            server_id=self.server_id,
            reason=self.reason,
            since=self.since,
            close_code=None if self.live else self.close_code,
            flags=list(self.flags) or None,
            version=self.version,
        )

    def about(self) -> dict[str, Any]:
        """Return the fields that every event about the connection has, without its version."""
        return {
            "plan_id": self.plan_id,
            "examinee_id": self.examinee_id,
            "name": self.name,
            "labels": dict(self.labels) or None,
            "flags": list(self.flags) or None,
            "unstable": self.unstable or None,
        }

    def reconnect_view(self) -> ReconnectView:
        return ReconnectView(
            count=self.recoveries,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            next_attempt_at=self.next_attempt_at,
            exhausted=self.exhausted,
            unstable=self.unstable or None,
            away_share=self.away_share,
        )

    # -- unstable ------------------------------------------------------------------------------------

    @property
    def _lost(self) -> bool:
        absent = self.status is ConnectionStatusCode.DISCONNECTED
        return absent and not self.removed and self.finished is None

    def _lost_since(self) -> float:
        """Return since when the present outage counts."""
        assert self.since is not None
        since = parse_time(self.since)
        return since if self.exam_starts_at is None else max(since, parse_time(self.exam_starts_at))

    def with_outage_until(self, end: float) -> ConnectionState:
        """Return the state with the present outage, if there is one, among those that are over."""
        if not self._lost or (seconds := end - self._lost_since()) <= 0:
            return self
        outages = (*self.outages, Outage(end, seconds))
        if len(outages) > MOST_OUTAGES:
            first, second, *others = outages
            outages = (Outage(second.ended, first.seconds + second.seconds), *others)
        return self.changed(outages=outages)

    def assessed(self, now: float) -> ConnectionState:
        """Return the state with `unstable` as it is at `now`, without the outages that are too old to count."""
        recent = self.outages and tuple(outage for outage in self.outages if outage.ended > now - self.unstable_window)
        share = self.share_away(now)
        unstable = self.finished is None and share > self.unstable_share
        away_share = share if unstable else None
        if (recent, unstable, away_share) == (self.outages, self.unstable, self.away_share):
            return self  # as at almost every loss: a copy costs more than the rest of the rule
        return self.changed(outages=recent, unstable=unstable, away_share=away_share)

    def share_away(self, now: float) -> float:
        """Return for which share of the window until `now` the examinee was away, as far as it counts."""
        begin = now - self.unstable_window
        away = 0.0
        if self.outages:
            away = sum(max(0.0, min(outage.seconds, outage.ended - begin)) for outage in self.outages)
        if self._lost:
            away += max(0.0, now - max(begin, self._lost_since()))
        return round(min(1.0, away / self.unstable_window), 4)

    def stable_at(self) -> str:
        """Return when a connected examinee is stable again if they stay connected: a whole second, RFC 3339."""
        excess = sum(outage.seconds for outage in self.outages) - self.unstable_share * self.unstable_window
        moment = 0.0
        for outage in self.outages:
            # The oldest outages leave the window first, each from its beginning on.
            moment = outage.ended - outage.seconds + min(max(excess, 0.0), outage.seconds) + self.unstable_window
            excess -= outage.seconds
            if excess <= 0:
                break
        return format_time(-(-moment // 1))


def visible_part(state: ConnectionState) -> tuple[object, ...]:
    """Return the part of a connection that events tell: when it changes, clients must be told."""
    live_socket = state.socket_id if state.live and state.finished is None else None
    visible_status = (state.shown_status, live_socket, state.exhausted, state.removed, state.name)
    return (*visible_status, state.labels, state.flags, state.unstable)


def differences(state: ConnectionState, fact: ConnectionStatus) -> tuple[Difference, ...]:
    """Return in what a new connection is not like the examinee's last one. What is not known of both is alike."""
    info = fact.client_info
    pairs: tuple[tuple[Difference, str | None, str | None], ...] = (
        ("address", state.ip_address, info.ip_address if info else None),
        ("browser", state.user_agent, info.user_agent if info else None),
        ("device", state.client_id, fact.client_id),
    )
    return tuple(what for what, before, now in pairs if before and now and before != now)


def server_id_of(fact: ConnectionStatus) -> str:
    """Return the serverId of a fact, or else the one in its socketId (`{serverId}-{unique}`)."""
    return fact.server_id or fact.socket_id.rpartition("-")[0] or fact.socket_id
