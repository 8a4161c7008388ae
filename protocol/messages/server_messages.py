"""Messages of a socket server: its status, its lease, and its requests to the queue server.

docs/architecture.md, "A server's start, step by step".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from protocol.ids import Id, ServerId, SocketId
from protocol.messages.base import Message, Reason, Stored, Text, Wire
from protocol.messages.codec import Codec
from protocol.times import Timestamp


class ServerStatusCode(StrEnum):
    """A socket server's status. DRAINING: it refuses new clients and sends its present ones to other servers."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"


SUPERSEDED = "SUPERSEDED"


class ServerStatus(Message, Stored):
    """A socket server's report about itself; `incarnation` names the process.

    `cpuUsage` and `memoryUsage` are percent of the machine. `networkStatus` is GOOD, SLOW or BAD by the round trip to
    NATS. `reason`: why the start FAILED, or SUPERSEDED when another process of the same serverId made it stop.
    `url` is the address for clients.
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
    """The settings of a queue.

    `maxSize`: when more messages wait, the server drops its backlog and synchronises its clients from Redis again.
    `expireTime` (seconds): an unused queue is deleted after this time, and older messages are not delivered.
    `priority`: with `high`, messages to the server and to single examinees have their own consumer, so that many
    broadcasts do not delay them; with `normal` and `low` there is one consumer.
    """

    max_size: Annotated[int, Field(ge=1, lt=2**31)] = 10000
    expire_time: Annotated[int, Field(ge=1, le=7 * 86400)] = 3600
    priority: Literal["high", "normal", "low"] = "high"


class QueueCreate(Message):
    """Ask the queue server to create the queue `{serverId}_Q`, or to change its subjects.

    `proctorPlans` and `examineePlans` are the plans of the server's clients. A server with many of them asks for
    further lanes, `{serverId}_Q_1` and so on, each with some of the plans; one without plans is removed. The backlog is
    dropped for a new `incarnation`; `reset` names consumers of the lane whose backlog is dropped.
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
    """The queue server's reply: the consumers that make up the lane (one, or two with priority `high`)."""

    type: ClassVar[str] = "queue_created"
    server_id: ServerId
    queue_id: str
    stream: str
    consumers: list[str]


class Lease(Message):
    """A socket server's heartbeat: its load, and the sessions that were active since the last lease that named them.

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
