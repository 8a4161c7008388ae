"""Socket server start-up (document 9): what a server says of itself, and what it asks the queue server for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from protocol.ids import Id, ServerId, SocketId
from protocol.messages.base import Message, Reason, Text, Wire
from protocol.messages.codec import Codec
from protocol.times import Timestamp


class ServerStatusCode(StrEnum):
    """DRAINING: alive and serving those it has, letting in nobody, sending its clients to other servers."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"


SUPERSEDED = "SUPERSEDED"


class ServerStatus(Message):
    """A socket server about itself (document 9.3, 9.5); `incarnation` names the process.

    `cpuUsage` and `memoryUsage` are percent of the machine, `networkStatus` is GOOD, SLOW or BAD by the
    round trip to NATS. `reason` says why a start FAILED, or that one that STOPPED was SUPERSEDED by another process of
    the same serverId. `url` is the address for clients.
    """

    type: ClassVar[str] = "server_status"
    server_id: ServerId
    server_type: Literal["SOCKET"] = "SOCKET"
    status: ServerStatusCode
    incarnation: Id
    start_time: Timestamp
    timestamp: Timestamp
    queue_id: Text | None = None
    cpu_usage: float | None = None
    memory_usage: float | None = None
    network_status: Literal["GOOD", "SLOW", "BAD"] | None = None
    url: Annotated[str, Field(max_length=512)] | None = None
    reason: Reason | None = None


class QueueConfig(Wire):
    """What the fields of `queue_create.config` (document 9.4) mean here.

    `maxSize`: when more than this many messages wait, the server drops its backlog and resynchronises its
    clients from Redis, and says so. `expireTime` (seconds): the queue is removed when unused for so long, and a
    message older than that is not delivered. `priority`: `high` gives messages for the server itself and for
    single examinees a consumer of their own, so that no storm of broadcasts delays them; `normal` and `low`
    share one.
    """

    max_size: Annotated[int, Field(ge=1, lt=2**31)] = 10000
    expire_time: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    priority: Literal["high", "normal", "low"] = "high"


class QueueCreate(Message):
    """Ask the queue server for `{serverId}_Q` (document 9.4), or change what it receives.

    `proctorPlans` and `examineePlans` are the plans of the clients that the server holds (additions). A request of a
    new `incarnation` begins with an empty backlog; `reset` names the consumers of the queue whose backlog is dropped.
    """

    type: ClassVar[str] = "queue_create"
    server_id: ServerId
    queue_id: Text
    queue_type: Literal["socket_message"] = "socket_message"
    config: QueueConfig = QueueConfig()
    incarnation: Id | None = None
    proctor_plans: list[Id] = Field(default=[])
    examinee_plans: list[Id] = Field(default=[])
    reset: list[Text] = Field(default=[])


class QueueCreated(Message):
    """The queue server's answer: the consumers that make up the queue (one, or two with priority `high`)."""

    type: ClassVar[str] = "queue_created"
    server_id: ServerId
    queue_id: str
    stream: str
    consumers: list[str]


class Lease(Message):
    """A server's heartbeat: what it measures, and the sessions that were heard from since they were last told.

    `active` holds `[planId, examineeId, socketId, lastHeartbeat]`.
    """

    type: ClassVar[str] = "lease"
    server_id: ServerId
    incarnation: Id
    timestamp: Timestamp
    cpu_usage: float
    memory_usage: float
    network_status: Literal["GOOD", "SLOW", "BAD"]
    sessions: Annotated[int, Field(ge=0, lt=2**31)] = 0
    active: list[tuple[Id, Id, SocketId, Timestamp]] = Field(default=[])


LEASE_CODEC = Codec.of((Lease,))
