"""Projection of one plan's log: each examinee's facts folded into a record."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any

from actors.runtime.broker.stream_state import StoredMessage
from actors.status_log.status_log import Extent, SetAside, StatusLog, facts_of
from protocol.log.version import floor_version, version_of
from protocol.messages.base import Message
from protocol.messages.codec import Malformed
from protocol.records import keys
from protocol.records.kinds import RecordKind
from protocol.records.placement import ENDED_SOCKET_SECONDS, VersionedMessage, index_updates, record_of, socket_writes
from protocol.records.writes import SocketWrite
from protocol.rules.history import History, Rule
from protocol.times import parse_time

log = logging.getLogger("examwire.log_of_record")

BREATH = 256  # facts that are folded at a stretch: a state manager has other things to do beside


@dataclass(slots=True)
class Line:
    """A record by the log. `base`: the fold of what is acknowledged; `facts`: those after it; `head`: the fold of all.

    `first` and `newest` are the versions of its first and last fact, `newest_told` of the last event. `untold`: some
    of its facts are dead letters, so proctors were told something else.
    """

    kind: RecordKind[Any, Any]
    about: Message | None = None
    base: Any = field(init=False)
    head: Any = field(init=False)
    facts: list[tuple[int, Message]] = field(default_factory=list)
    first: int = 0
    newest: int = 0
    newest_told: int = 0
    untold: bool = False

    def __post_init__(self) -> None:
        self.base = self.head = self.kind.state()

    def history(self, floor: int) -> History[Any, Any]:
        """The record's history, anew."""
        facts = tuple(self.facts)
        head = self.head if facts else None
        return History(self.base, floor, facts, newest_event=self.newest_told, first_version=self.first, head=head)

    def state_of(self, found: History[Any, Any]) -> Any:
        """What a record should amount to that holds what is acknowledged, and of the rest what `found` holds."""
        held = {version for version, _ in found.facts}
        state = self.base
        for version, fact in self.facts:
            if version <= found.floor or version in held:
                state = self.kind.rule(state, version, fact).state
        return state


class Projection:
    """What Redis should hold, by the log up to where it was replayed; everything up to `floor` is acknowledged."""

    def __init__(self, plan_id: str | None = None, aside: SetAside | None = None) -> None:
        self.plan_id = plan_id
        self._aside = aside or SetAside()
        self.lines: dict[str, Line] = {}
        self.sockets: dict[str, SocketWrite] = {}
        self.members: dict[str, dict[str, int]] = {}
        self.entries: dict[str, dict[str, tuple[int, str]]] = {}
        self.extent = Extent(1, 0, 0, 0)
        self.messages = self.facts = self.malformed = self.unprocessable = 0
        self._open: dict[str, Line] = {}

    @property
    def floor(self) -> int:
        """The greatest version that is acknowledged; nothing so old can come any more."""
        return floor_version(self.extent.acknowledged)

    @property
    def end(self) -> int:
        """The greatest version that was replayed."""
        return floor_version(self.extent.last)

    @property
    def beginning(self) -> int:
        """The smallest version that the log still holds."""
        return version_of(self.extent.first)

    async def follow(self, status: StatusLog) -> None:
        """Replay the log up to its end, from where this was before."""
        extent = await status.extent()
        first = max(self.extent.last + 1, extent.first)
        self.extent = replace(extent, last=max(extent.last, self.extent.last))
        self._settle()
        done = self.facts
        async for stored in status.read(first, extent.last, self.plan_id):
            self._add(stored)
            if self.facts - done >= BREATH:
                done = self.facts
                await asyncio.sleep(0)
        horizon = status.now() - ENDED_SOCKET_SECONDS + 3600
        for key in [key for key, one in self.sockets.items() if one.keep_seconds and _heard(one) < horizon]:
            del self.sockets[key]  # expired in Redis, or about to

    def _settle(self) -> None:
        floor = self.floor
        for key, line in list(self._open.items()):
            settled = sum(1 for version, _ in line.facts if version <= floor)
            for version, fact in line.facts[:settled]:
                line.base = line.kind.rule(line.base, version, fact).state
            del line.facts[:settled]
            if not line.facts:
                line.base = line.head
                del self._open[key]

    def _add(self, stored: StoredMessage) -> None:
        self.messages += 1
        items: list[VersionedMessage] = []
        for item in facts_of(stored):
            if isinstance(item, Malformed):
                self.malformed += 1
                continue
            items.append(item)
            self._fold(item.version, item.message)
        for socket in socket_writes(items):
            self.sockets[socket.key] = socket
        for item in items:
            self._index(item)

    def _fold(self, version: int, message: Message) -> None:
        self.facts += 1
        key, kind = record_of(message)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(kind, message, first=version)
        line.untold = line.untold or version in self._aside
        try:
            rule: Rule[Any, Any] = kind.rule
            outcome = rule(line.head, version, message)
        except Exception:  # the state managers could not process it either; it went to the dead letters
            self.unprocessable += 1
            log.exception("version %d about %s cannot be processed", version, key)
            return
        line.head, line.newest = outcome.state, version
        for event in outcome.events:
            line.newest_told = max(line.newest_told, event.version or 0)
        if version <= self.floor:
            line.base = outcome.state
        else:
            line.facts.append((version, message))
            self._open[key] = line

    def _index(self, item: VersionedMessage) -> None:
        index = index_updates([item])
        for key, values in index.members.items():
            if key in (keys.PLANS, keys.SERVERS) and self.plan_id is not None and self.plan_id not in values:
                continue
            known = self.members.setdefault(key, {})
            for value in values:
                known.setdefault(value, item.version)
        for key, entries in index.entries.items():
            held = self.entries.setdefault(key, {})
            for name, (version, entry) in entries.items():
                held.pop(name, None)
                if entry is not None:
                    held[name] = version, entry


def _heard(socket: SocketWrite) -> float:
    return parse_time(socket.fields["lastHeartbeat"])
