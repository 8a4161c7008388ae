"""Close codes of the WebSocket, each with the rule a client follows.

4000-4499: connect again, with backoff, trying `endpoints` in turn. 4500-4999: do not connect again by yourself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class CloseCode(IntEnum):
    """The close codes that examwire sends; 1000 to 1015 are those of RFC 6455, section 7.4."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    PING_TIMEOUT = 4000
    SLOW_CLIENT = 4001
    SERVER_ISOLATED = 4002
    SERVER_SUPERSEDED = 4003
    NOT_READY = 4004
    HELLO_TIMEOUT = 4005
    MIGRATE = 4006
    KICKED = 4007
    TOO_OFTEN = 4009
    TOKEN_NOT_YET_VALID = 4010
    INVALID_HELLO = 4501
    INVALID_TOKEN = 4502
    REPLACED = 4503
    RECONNECT_LIMIT_EXCEEDED = 4504
    TOO_MANY_ERRORS = 4505
    FORBIDDEN = 4506
    REMOVED = 4508
    EXAM_OVER = 4509


@dataclass(frozen=True, slots=True)
class CloseRule:
    """The rule of one close code. `reconnect`: the client connects again by itself; `rule`: what to do, for people."""

    code: CloseCode
    reconnect: bool
    rule: str

    @property
    def name(self) -> str:
        """The name of the code (`PING_TIMEOUT`), which stays the same between releases."""
        return self.code.name


CLOSE_RULES: dict[int, CloseRule] = {
    rule.code: rule
    for rule in (
        CloseRule(CloseCode.NORMAL, False, "The client asked for it. Nothing to do."),
        CloseRule(CloseCode.GOING_AWAY, True, "Connect to the next endpoint after the backoff."),
        CloseRule(CloseCode.UNSUPPORTED_DATA, False, "Send text frames; mend the client."),
        CloseRule(CloseCode.POLICY_VIOLATION, False, "Too much was sent before hello (16 KiB, 16 frames); mend it."),
        CloseRule(CloseCode.TOO_LARGE, False, "A frame was over 64 KiB; mend the client."),
        CloseRule(CloseCode.INTERNAL_ERROR, True, "Connect again after the backoff."),
        CloseRule(CloseCode.SERVICE_RESTART, True, "Connect to the next endpoint."),
        CloseRule(
            CloseCode.TRY_AGAIN_LATER,
            True,
            "Not now; connect to the next endpoint after the backoff. This is no attempt.",
        ),
        CloseRule(CloseCode.PING_TIMEOUT, True, "Nothing was heard from you; connect again."),
        CloseRule(CloseCode.SLOW_CLIENT, True, "You read too slowly; connect again for a snapshot."),
        CloseRule(CloseCode.SERVER_ISOLATED, True, "Connect to the next endpoint at once."),
        CloseRule(CloseCode.SERVER_SUPERSEDED, True, "Connect again after the backoff."),
        CloseRule(CloseCode.NOT_READY, True, "The server cannot serve this plan now; next endpoint."),
        CloseRule(CloseCode.HELLO_TIMEOUT, True, "No hello came within 5 s; connect again."),
        CloseRule(CloseCode.MIGRATE, True, "The server is drained; connect to the next endpoint at once."),
        CloseRule(CloseCode.KICKED, True, "An operator ended this connection; connect after the backoff."),
        CloseRule(CloseCode.TOO_OFTEN, True, "You have connected too often lately; connect after the backoff."),
        CloseRule(CloseCode.TOKEN_NOT_YET_VALID, True, "The token is valid later; connect after the backoff."),
        CloseRule(CloseCode.INVALID_HELLO, False, "The first frame was no valid hello."),
        CloseRule(CloseCode.INVALID_TOKEN, False, "Fetch a new token, then connect."),
        CloseRule(CloseCode.REPLACED, False, "A newer connection of this examinee took over."),
        CloseRule(
            CloseCode.RECONNECT_LIMIT_EXCEEDED,
            False,
            "All attempts are used up; a proctor must readmit the examinee.",
        ),
        CloseRule(CloseCode.TOO_MANY_ERRORS, False, "Too many invalid frames; mend the client."),
        CloseRule(CloseCode.FORBIDDEN, False, "The token's role has no place on this socket."),
        CloseRule(CloseCode.REMOVED, False, "A proctor has removed the examinee; a proctor must readmit."),
        CloseRule(CloseCode.EXAM_OVER, False, "The exam is over; nothing to do."),
    )
}


def may_reconnect(code: int | None) -> bool:
    """Return whether a client connects again by itself after `code` (`None`: broken without a close code).

    Unknown codes follow their range: all but 4500 to 4999 may connect again.
    """
    if code is None:
        return True
    known = CLOSE_RULES.get(code)
    if known is not None:
        return known.reconnect
    return not 4500 <= code <= 4999
