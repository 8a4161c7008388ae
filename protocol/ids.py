"""Identifiers of plans, examinees, servers and sockets.

Ids become subject tokens, Redis keys and file names, so every entrance checks them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, StringConstraints

from protocol.errors import InvalidField

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
# A socketId is `{serverId}-{unique}` and names one connection.
SOCKET_ID_PATTERN = r"^[A-Za-z0-9_-]{1,96}$"

_ID = re.compile(ID_PATTERN)
_RESERVED_SERVER_IDS = frozenset({"plan"})  # `socket.plan.>` and `socket.{serverId}` share a subject space


def _check_not_reserved(value: str) -> str:
    if value in _RESERVED_SERVER_IDS:
        raise ValueError(f"{value!r} is reserved and cannot name a server")
    return value


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ServerId = Annotated[str, StringConstraints(pattern=ID_PATTERN), AfterValidator(_check_not_reserved)]
SocketId = Annotated[str, StringConstraints(pattern=SOCKET_ID_PATTERN)]


class ExamineeRef(NamedTuple):
    """An examinee of a plan: what their records, messages and sessions are found by."""

    plan_id: str
    examinee_id: str


RecordRefKind = Literal[
    "connection",
    "mobile_sync",
    "notices",
    "plan",
    "plan_notices",
    "server",
    "socket",
    "server_sockets",
    "plan_examinees",
    "index",
    "other",
]


class RecordRef(NamedTuple):
    """A key of Redis, and what it holds (`protocol.records.keys.parse_key`).

    `kind`: one of an examinee's or a plan's records, a server's or socket's record, the index of a server or plan, the
    `index` of all plans or servers, or something `other`.
    """

    key: str
    kind: RecordRefKind
    plan_id: str = ""
    examinee_id: str = ""
    server_id: str = ""

    @property
    def examinee(self) -> ExamineeRef:
        """Whose record it is; for the kinds `connection`, `mobile_sync` and `notices`."""
        return ExamineeRef(self.plan_id, self.examinee_id)


def check_id(field: str, value: str) -> str:
    """Return `value` if it is an id (`[A-Za-z0-9_-]{1,64}`). Raises `InvalidField` that names `field`."""
    if not _ID.fullmatch(value):
        raise InvalidField(field, "must be 1 to 64 of A-Z a-z 0-9 _ -")
    return value


def check_server_id(value: str) -> str:
    """Return `value` if it is a serverId: an id other than `plan`. Raises `InvalidField`."""
    if check_id("serverId", value) in _RESERVED_SERVER_IDS:
        raise InvalidField("serverId", f"{value!r} is reserved and cannot name a server")
    return value
