"""Context that all parts of one socket server share: its settings, its connections, its outbox, its name."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime.broker.clock import BrokerClock
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.store.state_store import StateStore
from actors.sessions.outbox import Outbox
from actors.sessions.plan_states import PlanStates
from protocol.broker import subjects
from protocol.messages.session_messages import ProctorActivity


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The things that every part of a socket server needs. `incarnation` names this process among its predecessors.

    context = ServerContext(settings, bus, store, outbox, "SOCK001", incarnation, PlanStates(store), relay.tell)
    context.outbox.add(fact)
    format_time(context.clock.now())
    """

    settings: Settings
    bus: Bus
    store: StateStore
    outbox: Outbox
    server_id: str
    incarnation: str
    plans: PlanStates
    tell_activity: Callable[[ProctorActivity], None]
    """Tells the other proctors of a plan what one of them is doing; waits for nothing."""

    @property
    def address(self) -> str:
        """The subject of the server: `socket.{serverId}`."""
        return subjects.socket_server(self.server_id)

    @property
    def clock(self) -> BrokerClock:
        """The broker's clock: every time that this server tells is taken from it."""
        return self.bus.clock

    def new_socket_id(self) -> str:
        """Make a socketId that no other connection has: `{serverId}-{incarnation}{random}`."""
        return f"{self.server_id}-{self.incarnation}{secrets.token_hex(5)}"
