"""How records look in Redis: the documents' fields for everybody, and what the state manager needs to go on.

`rev` counts the writes of a record (compare and set), `version` is the version that last changed it, `history` is
the JSON of its `History`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import pydantic_core

from protocol import connection, mobile_sync, servers
from protocol.codec import STATUS_CODEC
from protocol.connection import Connection
from protocol.errors import ProtocolError
from protocol.history import History, Rule
from protocol.messages import ConnectionFact, Message, MobileSyncFact, ServerStatus
from protocol.mobile_sync import MobileSync
from protocol.servers import Server

S = TypeVar("S")
F = TypeVar("F", bound=Message)


@dataclass(frozen=True)
class RecordKind(Generic[S, F]):
    """One kind of record: its state, its rule, and its fields in Redis."""

    state: type[S]
    rule: Rule[S, F]
    told: Callable[[S], Any]
    fields: Callable[[S], dict[str, str]]

    def empty(self) -> History[S, F]:
        return History(self.state())

    def write(self, history: History[S, F], state: S, rev: int) -> dict[str, str]:
        """All fields of the record in Redis."""
        return {**self.fields(state), "rev": str(rev), "history": dump_history(history)}

    def read(self, stored: str | bytes | None) -> History[S, F]:
        """The history in a record's `history` field. Raises `ValueError` when it is not one."""
        return self.empty() if stored is None else load_history(self.state, stored)


def dump_history(history: History[Any, Any]) -> str:
    """A history as JSON: the base without its defaults, the facts as messages."""
    return pydantic_core.to_json(
        {
            "base": _lean(history.base),
            "floor": history.floor,
            **({"late": history.late} if history.late else {}),
            **({"newestTold": history.newest_told} if history.newest_told else {}),
            **({"owed": True} if history.owed else {}),
            "facts": [
                [version, fact.type, fact.model_dump(by_alias=True, exclude_defaults=True)]
                for version, fact in history.facts
            ],
        }
    ).decode()


def load_history(state: type[S], stored: str | bytes) -> History[S, Any]:
    """The inverse of `dump_history`. Raises `ValueError`."""
    try:
        parsed = pydantic_core.from_json(stored)
        base = state(**{name: _revive(state, name, value) for name, value in parsed["base"].items()})
        facts = tuple(
            (int(version), STATUS_CODEC.from_element({"type": kind, "data": data}))
            for version, kind, data in parsed["facts"]
        )
        late = tuple(int(version) for version in parsed.get("late", ()))
        newest_told = int(parsed.get("newestTold", 0))
        return History(base, int(parsed["floor"]), facts, late, newest_told, bool(parsed.get("owed", False)))
    except (AttributeError, KeyError, OverflowError, TypeError, ProtocolError) as error:
        raise ValueError(f"not a history: {error!r}") from error


def _lean(state: Any) -> dict[str, Any]:
    return {f.name: value for f in fields(state) if (value := getattr(state, f.name)) != f.default}


@cache
def _enums(state: type) -> Mapping[str, type[StrEnum]]:
    found = {}
    for name, hint in get_type_hints(state).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for option in options:
            if option is not NoneType and isinstance(option, type) and issubclass(option, StrEnum):
                found[name] = option
    return found


def _revive(state: type, name: str, value: Any) -> Any:
    enum = _enums(state).get(name)
    return enum(value) if enum is not None and value is not None else value


def _texts(**values: Any) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _connection_fields(state: Connection) -> dict[str, str]:
    return _texts(
        connStatusCode=state.status.value if state.status else "",
        lastActiveTime=state.since,
        examineeId=state.examinee_id,
        socketId=state.socket_id,
        liveSocketId=state.socket_id if state.live else None,
        serverId=state.server_id,
        reason=state.reason,
        since=state.since,
        reconnectAttempt=state.attempt,
        maxAttempts=state.max_attempts,
        nextAttemptAt=state.next_attempt_at,
        recoveries=state.recoveries,
        exhausted=int(state.exhausted),
        lossVersion=state.loss_version,
        version=state.version,
    )


def _mobile_sync_fields(state: MobileSync) -> dict[str, str]:
    info = {"model": state.model, "osVersion": state.os_version}
    return _texts(
        status=state.status.value if state.status else "",
        deviceId=state.device_id,
        timestamp=state.timestamp,
        imageUrl=state.image_url,
        deviceInfo=json.dumps({key: value for key, value in info.items() if value is not None}, ensure_ascii=False),
        reason=state.reason,
        deadline=state.deadline,
        captureId=state.capture_id,
        version=state.version,
    )


def _server_fields(state: Server) -> dict[str, str]:
    return _texts(
        serverType=state.server_type,
        statusCode=state.status.value if state.status else "",
        startTime=state.start_time,
        queueId=state.queue_id,
        cpuUsage=state.cpu_usage,
        memoryUsage=state.memory_usage,
        networkStatus=state.network_status,
        incarnation=state.incarnation,
        url=state.url,
        reason=state.reason,
        version=state.version,
    )


CONNECTION: RecordKind[Connection, ConnectionFact] = RecordKind(
    Connection, connection.apply, connection.told, _connection_fields
)
MOBILE_SYNC: RecordKind[MobileSync, MobileSyncFact] = RecordKind(
    MobileSync, mobile_sync.apply, mobile_sync.told, _mobile_sync_fields
)
SERVER: RecordKind[Server, ServerStatus] = RecordKind(Server, servers.apply, servers.told, _server_fields)
