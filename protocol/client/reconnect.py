"""How a client reconnects, as pure rules: after each failure, which URL to try and when, or why to give up.

The reconnect watch counts the same attempts (`protocol.broker.streams.reconnect_watch`). Attempt 1 begins with the
loss, attempt k+1 follows `backoffSeconds[k-1]` later, and one step after the last attempt the server refuses
(RECONNECT_LIMIT_EXCEEDED). Attempt 1 is made almost at once and on the same server, because most losses are one broken
TCP connection. It is spread over `jitter` × `backoffSeconds[0]` (1.5 s by default), so that a hall that lost its Wi-Fi
does not return in one instant. A connection that broke as soon as it was made, and a close code that asks for the
backoff, wait for the first step instead.

A server that is drained sends `migrate` (close code 4006) to one client after another. Each connects to another server
at once. That is no attempt: when it arrives within the first step, it does not count as a loss.

Example::

    state = after_welcome(url, endpoints, policy)
    state, step = next_step(state, Lost(code=1006, lasted=60.0), draw)  # draw: random in [-1, 1)
    # step is Wait(seconds, url, attempt, max_attempts) or GiveUp(reason)
"""

from __future__ import annotations

import email.utils
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from protocol.close_codes import CloseCode, may_reconnect
from protocol.messages.frames import CONNECT_PATH, ReconnectPolicy

STABLE_SECONDS = 1.0
"""After a shorter connection the client waits for the backoff: something may be wrong with it."""

SILENT_INTERVALS = 2.5
"""After so many heartbeat intervals without a byte from the server, the connection is dead (heartbeats are echoed)."""

MAX_POSTPONED = 100
"""A client that is told to come later (503, 429, 1013) so often in a row gives up."""

DEFAULT_POLICY = ReconnectPolicy(max_attempts=5, backoff_seconds=[5.0, 10.0, 20.0, 40.0, 60.0], jitter=0.3)
"""The policy until the first `welcome`: the defaults of the settings."""

MIGRATE_SPREAD_SECONDS = 0.2
"""Clients that receive `migrate` at the same moment spread over so many seconds."""

_NEXT_ENDPOINT = frozenset(
    {CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.SERVER_ISOLATED, CloseCode.NOT_READY}
)
_AFTER_BACKOFF = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVER_SUPERSEDED,
        CloseCode.KICKED,
        CloseCode.TOO_OFTEN,
    }
)
_LATER = frozenset({429, 503})


class GiveUpReason(StrEnum):
    """Why a client does not connect again by itself."""

    CLOSE_CODE = "CLOSE_CODE"
    HTTP_STATUS = "HTTP_STATUS"
    ATTEMPTS_USED_UP = "ATTEMPTS_USED_UP"
    ALWAYS_BUSY = "ALWAYS_BUSY"


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended with `code` (`None`: without one), `lasted` seconds after its welcome (0: before it)."""

    code: int | None
    lasted: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake was answered with an HTTP `status`; `retry_after` in seconds."""

    status: int
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No TCP connection, no answer in time, or no valid answer."""


ConnectionFailure = Lost | Refused | Unreachable


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait `seconds`, then try `url`: attempt `attempt` of `max_attempts`."""

    seconds: float
    url: str
    attempt: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not connect again; the close `code` or HTTP `status` that ended it, if one did."""

    reason: GiveUpReason
    code: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class ReconnectState:
    """The state of a client that reconnects. `url`: the server of the last welcome (or the first one to try).

    `attempt`: attempts made since the last welcome. `position`: which URL of `ring` was tried last. `migrating`: the
    server of the last welcome is drained and comes last.
    """

    url: str
    endpoints: tuple[str, ...] = ()
    policy: ReconnectPolicy = field(default_factory=lambda: DEFAULT_POLICY)
    attempt: int = 0
    position: int = 0
    postponed: int = 0
    migrating: bool = False

    @property
    def ring(self) -> tuple[str, ...]:
        """The URLs that are tried in turn: the last server, then the endpoints in the order of the server."""
        others = tuple(endpoint for endpoint in self.endpoints if endpoint != self.url)
        return (*others, self.url) if self.migrating else (self.url, *others)


def after_welcome(url: str, endpoints: list[str], policy: ReconnectPolicy) -> ReconnectState:
    """Return the state after a `welcome` from the server at `url`: attempts are counted from 0, by its policy."""
    if not policy.backoff_seconds:  # a ladder without steps would be a loop without a pause
        policy = policy.model_copy(update={"backoff_seconds": DEFAULT_POLICY.backoff_seconds})
    return ReconnectState(url, tuple(dict.fromkeys(connect_url(endpoint) for endpoint in endpoints)), policy)


def after_migrate(state: ReconnectState, endpoints: Sequence[str]) -> ReconnectState:
    """Return the state after a `migrate`: `endpoints` are tried next, or the known ones if it names none."""
    named = tuple(dict.fromkeys(connect_url(endpoint) for endpoint in endpoints))
    return replace(state, endpoints=named or state.endpoints, migrating=True, position=-1)


def next_step(state: ReconnectState, happened: ConnectionFailure, draw: float) -> tuple[ReconnectState, Wait | GiveUp]:
    """Return the new state, and what to do next. `draw`: a random number in [-1, 1) for the jitter."""
    if isinstance(happened, Lost) and not may_reconnect(happened.code):
        return state, GiveUp(GiveUpReason.CLOSE_CODE, code=happened.code)
    if isinstance(happened, Lost) and (happened.code == CloseCode.MIGRATE or _is_leaving(state)):
        return _migrate(state, draw)
    if isinstance(happened, Lost) and happened.code == CloseCode.TRY_AGAIN_LATER:
        return _postpone(state, None, draw, code=happened.code)
    if isinstance(happened, Refused) and happened.status in _LATER:
        return _postpone(state, happened.retry_after, draw, status=happened.status)
    if isinstance(happened, Refused) and happened.status < 500:
        return state, GiveUp(GiveUpReason.HTTP_STATUS, status=happened.status)
    following = state.attempt + 1
    if following > state.policy.max_attempts and state.policy.shut_out is not False:
        return state, GiveUp(GiveUpReason.ATTEMPTS_USED_UP, code=getattr(happened, "code", None))
    attempt = min(following, state.policy.max_attempts)
    moved = replace(state, attempt=attempt, postponed=0, position=state.position + _tries_next_url(state, happened))
    return moved, _wait_for(moved, attempt, _delay(state, following, happened, draw))


def _is_leaving(state: ReconnectState) -> bool:
    """Return whether the client was told to migrate and has not tried another server yet."""
    return state.migrating and not state.attempt and not state.postponed


def _migrate(state: ReconnectState, draw: float) -> tuple[ReconnectState, Wait | GiveUp]:
    if state.postponed >= MAX_POSTPONED:
        return state, GiveUp(GiveUpReason.ALWAYS_BUSY, code=CloseCode.MIGRATE)
    # A client that several servers send on before any welcome makes no attempt either, but waits for the backoff.
    at_once = not state.attempt and not state.postponed
    away = state if state.migrating else after_migrate(state, ())
    moved = replace(away, postponed=state.postponed + 1, position=away.position + 1)
    policy = state.policy
    seconds = MIGRATE_SPREAD_SECONDS * (1 + draw) / 2 if at_once else _backoff(policy, 0, draw)
    return moved, _wait_for(moved, max(1, state.attempt), seconds)


def _postpone(
    state: ReconnectState, retry_after: float | None, draw: float, *, code: int | None = None, status: int | None = None
) -> tuple[ReconnectState, Wait | GiveUp]:
    # This is no attempt: a hall that comes back at once must not be shut out because of its size.
    if state.postponed >= MAX_POSTPONED:
        return state, GiveUp(GiveUpReason.ALWAYS_BUSY, code=code, status=status)
    policy = state.policy
    least = policy.backoff_seconds[0] if retry_after is None else retry_after
    # Spread over what follows Retry-After, never before it, and over a second at least: it often says "1".
    seconds = least + policy.jitter * max(least, 1.0) * (1 + draw) / 2
    moved = replace(state, postponed=state.postponed + 1, position=state.position + 1)
    return moved, _wait_for(moved, max(1, state.attempt), seconds)


def _wait_for(state: ReconnectState, attempt: int, seconds: float) -> Wait:
    return Wait(seconds, state.ring[state.position % len(state.ring)], attempt, state.policy.max_attempts)


def _tries_next_url(state: ReconnectState, happened: ConnectionFailure) -> bool:
    if isinstance(happened, Lost) and state.attempt == 0:
        return happened.code in _NEXT_ENDPOINT
    return True


def _delay(state: ReconnectState, attempt: int, happened: ConnectionFailure, draw: float) -> float:
    policy = state.policy
    lasted = isinstance(happened, Lost) and happened.lasted >= STABLE_SECONDS and happened.code not in _AFTER_BACKOFF
    if attempt == 1 and (lasted or state.migrating):
        return policy.jitter * policy.backoff_seconds[0] * (1 + draw) / 2
    return _backoff(policy, max(attempt - 2, 0), draw)


def _backoff(policy: ReconnectPolicy, number: int, draw: float) -> float:
    steps = policy.backoff_seconds
    return steps[min(number, len(steps) - 1)] * (1 + policy.jitter * draw)


def connect_url(url: str) -> str:
    """Return the URL to connect to for a socket server's address: `/v1/connect` is added where it has no path."""
    return url.rstrip("/") + CONNECT_PATH if urlsplit(url).path in ("", "/") else url


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """Return `Retry-After` (RFC 9110, 10.2.3: seconds or an HTTP date) in seconds from `now` (epoch); `None`: none."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None
