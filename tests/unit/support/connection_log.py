"""Scenarios of an examinee's connection, and the effects that they have."""

from __future__ import annotations

from protocol.close_codes import CloseCode
from protocol.messages.facts import ConnectionFact
from protocol.records.kinds import CONNECTION
from protocol.rules.connection_state import ConnectionState
from protocol.rules.effects import CloseSocket, SendSessionState
from tests.unit.support.facts import EXAMINEE, PLAN, attempt, connected, disconnected, exhausted
from tests.unit.support.scenario import Scenario

A, B, C = "SOCK001-a", "SOCK002-b", "SOCK001-c"


class Log(Scenario[ConnectionState, ConnectionFact]):
    """Facts about one connection in order."""

    def __init__(self, *facts: ConnectionFact) -> None:
        super().__init__(CONNECTION, facts)

    @property
    def seen(self) -> tuple[str, str | None, int]:
        """Status, reason and attempt, as a proctor sees them."""
        row = self.view.examinees[EXAMINEE]
        return row.status, row.reason, row.attempt


def shut_out() -> Log:
    """Somebody whose three attempts are used up."""
    return Log(connected(A), disconnected(A, 10), attempt(2, 1), attempt(2, 2), attempt(2, 3), exhausted(2, 60))


def refusal(socket: str, code: CloseCode, version: int) -> CloseSocket:
    return CloseSocket(socket.partition("-")[0], socket, code, version)


def told_state(socket: str, version: int) -> SendSessionState:
    return SendSessionState(PLAN, EXAMINEE, socket.partition("-")[0], socket, version)
