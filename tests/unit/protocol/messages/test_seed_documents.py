"""Every JSON message of the three documents, copied to the letter, is understood and comes back with all its fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.messages.base import Message
from protocol.messages.codec import Codec, Malformed, encode
from protocol.messages.facts import STATUS_CODEC, ConnectionStatus, MobileSyncStatus
from protocol.messages.proctor_events import MobileSyncCompleted
from protocol.messages.server_messages import QueueCreate, ServerStatus, ServerStatusCode
from protocol.messages.session_messages import SOCKET_CODEC
from protocol.records import keys, kinds
from protocol.rules.history import insert
from tests.unit.support import facts

LOSS = """
{
    "type": "connection_status",
    "data": {
        "planId": "P001",
        "examineeId": "E001",
        "socketId": "SOCK001",
        "status": "DISCONNECTED",
        "timestamp": "2024-01-01T09:15:00Z",
        "reason": "SOCKET_CLOSED"
    }
}
"""

RECOVERY = """
{
    "type": "connection_status",
    "data": {
        "planId": "P001",
        "examineeId": "E001",
        "socketId": "SOCK001",
        "status": "CONNECTED",
        "timestamp": "2024-01-01T09:17:00Z",
        "clientInfo": {
            "ipAddress": "192.168.1.100",
            "browserInfo": "Chrome 120.0"
        }
    }
}
"""

SYNC_STATUS = """
{
    "type": "mobile_sync_status",
    "data": {
        "planId": "P001",
        "examineeId": "E001",
        "deviceId": "M001",
        "status": "COMPLETED",
        "timestamp": "2024-01-01T09:00:00Z",
        "captureInfo": {
            "imageUrl": "/captures/E001/sync_cap.jpg",
            "deviceInfo": {
                "model": "iPhone 12",
                "osVersion": "iOS 15.0"
            }
        }
    }
}
"""

SYNC_COMPLETED = """
{
    "type": "mobile_sync_completed",
    "data": {
        "planId": "P001",
        "examineeId": "E001",
        "deviceId": "M001",
        "status": "COMPLETED",
        "timestamp": "2024-01-01T09:00:00Z"
    }
}
"""

CREATE_QUEUE = """
{
    "type": "queue_create",
    "data": {
        "serverId": "SOCK001",
        "queueId": "SOCK001_Q",
        "queueType": "socket_message",
        "config": {
            "maxSize": 10000,
            "expireTime": 3600,
            "priority": "high"
        }
    }
}
"""

QUEUE_CODEC = Codec.of((QueueCreate,))


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _contains(whole[key], part[key]) for key in part)
    return bool(whole == part)


@pytest.mark.parametrize(
    ("document", "codec", "model"),
    [
        (LOSS, STATUS_CODEC, ConnectionStatus),
        (RECOVERY, STATUS_CODEC, ConnectionStatus),
        (SYNC_STATUS, STATUS_CODEC, MobileSyncStatus),
        (SYNC_STATUS, SOCKET_CODEC, MobileSyncStatus),
        (CREATE_QUEUE, QUEUE_CODEC, QueueCreate),
    ],
)
def test_a_documented_message_keeps_all_its_fields(document: str, codec: Codec, model: type[Message]) -> None:
    (decoded,) = codec.decode_batch(document)
    assert type(decoded) is model
    assert _contains(json.loads(encode(decoded)), json.loads(document))
    assert codec.decode_one(encode(decoded)) == decoded


def test_the_completion_event_is_the_documented_one_with_a_version() -> None:
    """`version` is ours and is required of every event; all that the document shows is kept."""
    (refused,) = SOCKET_CODEC.decode_batch(SYNC_COMPLETED)
    assert isinstance(refused, Malformed)
    assert refused.error.field == "data.version"

    document = json.loads(SYNC_COMPLETED)
    event = {**document, "data": {**document["data"], "version": 7}}
    decoded = SOCKET_CODEC.decode_one(json.dumps(event))
    assert isinstance(decoded, MobileSyncCompleted)
    assert json.loads(encode(decoded)) == event


def test_the_documented_upload_leads_to_the_documented_record_and_event() -> None:
    upload = STATUS_CODEC.decode_one(SYNC_STATUS)
    assert isinstance(upload, MobileSyncStatus)
    kind = kinds.MOBILE_SYNC
    outcome = insert(kind.empty(), kind.rule, 7, upload, kind.visible_part)
    fields = kind.fields(outcome.state)
    assert {name: fields[name] for name in ("status", "deviceId", "timestamp", "imageUrl")} == {
        "status": "COMPLETED",
        "deviceId": "M001",
        "timestamp": "2024-01-01T09:00:00Z",
        "imageUrl": "/captures/E001/sync_cap.jpg",
    }
    assert json.loads(fields["deviceInfo"]) == {"model": "iPhone 12", "osVersion": "iOS 15.0"}
    assert keys.mobile_sync("P001", "E001") == "plan:P001:examinee:E001:mobile_sync"
    (event,) = outcome.events
    assert _contains(json.loads(encode(event)), json.loads(SYNC_COMPLETED))


def test_the_documented_loss_and_recovery_lead_to_the_documented_records() -> None:
    kind = kinds.CONNECTION
    recovery, loss = STATUS_CODEC.decode_one(RECOVERY), STATUS_CODEC.decode_one(LOSS)
    assert isinstance(recovery, ConnectionStatus)
    assert isinstance(loss, ConnectionStatus)
    first = insert(kind.empty(), kind.rule, 1, facts.connected("SOCK001"), kind.visible_part)
    lost = insert(first.history, kind.rule, 2, loss, kind.visible_part)
    fields = kind.fields(lost.state)
    assert (fields["connStatusCode"], fields["lastActiveTime"]) == ("DISCONNECTED", "2024-01-01T09:15:00Z")
    assert [event.type for event in lost.events] == ["examinee_disconnected"]

    back = insert(lost.history, kind.rule, 3, recovery, kind.visible_part)
    fields = kind.fields(back.state)
    assert (fields["connStatusCode"], fields["lastActiveTime"]) == ("CONNECTED", "2024-01-01T09:17:00Z")
    (event,) = back.events
    event_json = json.loads(encode(event))
    assert event_json["type"] == "examinee_connected"
    assert event_json["data"]["clientInfo"] == json.loads(RECOVERY)["data"]["clientInfo"]
    assert (event_json["data"]["recovered"], event_json["data"]["outageSeconds"]) == (True, 120.0)


def test_a_server_record_has_the_seven_documented_fields() -> None:
    ready = ServerStatus(
        server_id="SOCK001",
        status=ServerStatusCode.READY,
        incarnation="i1",
        start_time="2024-01-01T08:50:00Z",
        timestamp="2024-01-01T08:50:01Z",
        queue_id="SOCK001_Q",
        cpu_usage=0.0,
        memory_usage=0.0,
        network_status="GOOD",
    )
    kind = kinds.SERVER
    fields = kind.fields(insert(kind.empty(), kind.rule, 1, ready, kind.visible_part).state)
    documented = {
        "serverType": "SOCKET",
        "statusCode": "READY",
        "startTime": "2024-01-01T08:50:00Z",
        "queueId": "SOCK001_Q",
        "cpuUsage": "0.0",
        "memoryUsage": "0.0",
        "networkStatus": "GOOD",
    }
    assert {name: fields[name] for name in documented} == documented
