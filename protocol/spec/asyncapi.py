"""AsyncAPI 3.0 of the WebSocket (`examwire.v1`) and of NATS.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. The name of an operation begins with the role that
performs it: `proctorSend` is what a proctor sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from protocol.broker.streams import StreamSpec
from protocol.close_codes import CLOSE_RULES
from protocol.messages.base import Message, Wire
from protocol.messages.codec import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES
from protocol.messages.frames import (
    CLIENT_FRAMES,
    CONNECT_PATH,
    HELLO_BYTES,
    HELLO_FRAMES,
    HELLO_SECONDS,
    MAX_FRAME_BYTES,
    REQUEST_BYTES,
    SERVER_FRAMES,
    SUBPROTOCOL,
    TOKEN_SUBPROTOCOL,
    ActivityFrame,
    AskForHelp,
    CancelHelp,
    CloseHelp,
    ConfirmNotice,
    EnterMobileSync,
    ExtendExamFrame,
    ExtendMobileSyncFrame,
    Hello,
    NotifyFrame,
    NotifyPlanFrame,
    PlanSnapshot,
    ReadmitFrame,
    RemoveFrame,
    ResumeFrame,
    ReviewCaptureFrame,
    TakeHelp,
)
from protocol.messages.proctor_events import EVENTS
from protocol.messages.session_messages import ProctorActivity, SessionState
from protocol.spec.channel_fields import PARAMETERS
from protocol.spec.channel_roles import publishers, readers
from protocol.spec.channels import TO_EXAMINEES, ChannelContent, NatsChannel, nats_channels
from protocol.spec.message_components import Document, MessageComponents
from protocol.spec.schemas import Components, Direction, Schema

_FROM_EXAMINEES: frozenset[type[Message]] = frozenset({EnterMobileSync, ConfirmNotice, AskForHelp, CancelHelp})
_FROM_PROCTORS: frozenset[type[Message]] = frozenset(
    {
        ReadmitFrame,
        RemoveFrame,
        ExtendMobileSyncFrame,
        ReviewCaptureFrame,
        NotifyFrame,
        ResumeFrame,
        ExtendExamFrame,
        NotifyPlanFrame,
        TakeHelp,
        CloseHelp,
        ActivityFrame,
    }
)

DESCRIPTION = f"""\
The connection fabric of a live online exam: examinees and proctors over WebSocket, the actors behind it over NATS.

A payload is one message `{{"type": …, "data": {{…}}}}` or an array of at most {MAX_BATCH_MESSAGES} messages and
{MAX_BATCH_BYTES // 1024} KiB. Absent values are left out, never written as `null`; `null` is read as absent. Readers
ignore fields and types that they do not know, because newer versions may add some. Times are RFC 3339 in UTC.
docs/protocol.md is the guide for authors of clients.
"""


def frames_of(role: str) -> tuple[tuple[type[Message], ...], tuple[type[Message], ...]]:
    """Return the frames that a client of a role (`examinee` or `proctor`) sends, and those that it receives."""
    not_sent = _FROM_PROCTORS if role == "examinee" else _FROM_EXAMINEES
    sent = tuple(frame for frame in CLIENT_FRAMES.models.values() if frame not in not_sent)
    return sent, tuple(frame for frame in SERVER_FRAMES.models.values() if _is_for(role, frame))


def _is_for(role: str, frame: type[Message]) -> bool:
    if role == "proctor":
        return frame is not SessionState
    return frame.type in TO_EXAMINEES or (frame not in EVENTS and frame not in (PlanSnapshot, ProctorActivity))


def asyncapi(version: str) -> Document:
    """Return the AsyncAPI document as JSON-ready values. `version` is that of examwire."""
    channels = nats_channels()
    components = _components(channels)
    messages = MessageComponents(components)
    document: Document = {
        "asyncapi": "3.0.0",
        "id": "urn:examwire",
        "info": {
            "title": "examwire",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {"connect": _websocket(messages)},
        "operations": {},
        "components": {},
        "x-jetstream": {
            channel.stream.name: _stream(channel.stream) for channel in channels if channel.stream is not None
        },
    }
    for channel in channels:
        _add_channel(document, messages, channel)
    _add_client_operations(document)
    document["components"] = {
        "messages": messages.messages,
        "schemas": components.schemas,
        "securitySchemes": _security_schemes(),
    }
    return document


def _components(channels: Iterable[NatsChannel]) -> Components:
    models: dict[Direction, list[type[Wire]]] = {
        "read": [*CLIENT_FRAMES.models.values()],
        "written": [*SERVER_FRAMES.models.values()],
    }
    for channel in channels:
        for content in (channel.content, channel.reply):
            if content is None:
                continue
            models[content.direction] += content.messages
            for bare in content.bare:
                if bare.model is not None:
                    models[bare.direction].append(bare.model)
    components = Components()
    components.add(read=models["read"], written=models["written"])
    return components


# -- servers --------------------------------------------------------------------------------------------------


def _servers() -> Document:
    return {
        "socketServer": {
            "host": "{host}",
            "protocol": "wss",
            "protocolVersion": "13",
            "description": "A socket server; `ws` when it has no certificate. `GET /v1/endpoints` of the web server "
            "and each `welcome` list the READY ones.",
            "variables": {"host": {"default": "sock1.exam.example", "examples": ["127.0.0.1:8001"]}},
            "security": [{"$ref": "#/components/securitySchemes/token"}],
            "bindings": {"ws": {}},
        },
        "nats": {
            "host": "{host}",
            "protocol": "nats",
            "description": "NATS 2.14 or newer with JetStream, for the roles of examwire and for operators, never for "
            "browsers. `examwire nats permissions` writes a user with permissions for each role.",
            "variables": {"host": {"default": "127.0.0.1:4222"}},
            "security": [
                {"$ref": "#/components/securitySchemes/natsUser"},
                {"$ref": "#/components/securitySchemes/natsCertificate"},
            ],
            "bindings": {"nats": {}},
        },
    }


def _security_schemes() -> Document:
    return {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "In `hello.data.token`; a program may send it as `Authorization: Bearer` of the handshake "
            "instead. Never in the URL. Claims: sub, role (examinee or proctor), plan, aud (examwire), exp; "
            "a proctor's may have scope, the labels of those whom it is limited to.",
        },
        "natsUser": {"type": "userPassword", "description": "The role's user; see nats/permissions.conf."},
        "natsCertificate": {"type": "X509", "description": "A client certificate, when the broker asks for one."},
    }


# -- the WebSocket --------------------------------------------------------------------------------------------


def _websocket(components: MessageComponents) -> Document:
    client = tuple(frame for frame in CLIENT_FRAMES.models.values() if frame is not Hello)
    server = tuple(SERVER_FRAMES.models.values())
    messages = {
        **_named("client", components.add(ChannelContent("client", (Hello,), "read"), {}, "client")),
        **_named("client", components.add(ChannelContent("client", client, "read", arrays=True), {}, "client")),
        **_named("server", components.add(ChannelContent("server", server, arrays=False), {}, "server")),
        **_named("server", components.add(_arrays_of_events(), {}, "server")),
    }
    return {
        "address": CONNECT_PATH,
        "title": f"WebSocket {SUBPROTOCOL}",
        "summary": "Text frames between a client (an examinee or a proctor) and a socket server.",
        "description": f"The client sends `hello` within {HELLO_SECONDS:g} s, alone in its frame; the server answers "
        "with `welcome`, or with an `error` and a close code. Then an examinee gets `session_state`; a proctor gets "
        "`view_status`, `plan_snapshot` and the events. The handshake is answered with 403 when the Origin is not "
        "allowed, and with 503 and `Retry-After` when the server cannot accept a client now (a browser's connection "
        "is accepted and closed with 1013). Send the token in the handshake: a busy server accepts clients with a "
        "valid token first.",
        "servers": [{"$ref": "#/servers/socketServer"}],
        "messages": messages,
        "bindings": {"ws": {"method": "GET", "headers": _handshake(), "bindingVersion": "0.1.0"}},
        "x-close-codes": [
            {"code": int(rule.code), "name": rule.name, "reconnect": rule.reconnect, "rule": rule.rule}
            for rule in CLOSE_RULES.values()
        ],
        "x-limits": {
            "maxRequestBytes": REQUEST_BYTES,
            "helloSeconds": HELLO_SECONDS,
            "maxBytesUpToHello": HELLO_BYTES,
            "maxFramesUpToHello": HELLO_FRAMES,
            "maxClientFrameBytes": MAX_FRAME_BYTES,
            "maxMessagesInArray": MAX_BATCH_MESSAGES,
        },
    }


def _arrays_of_events() -> ChannelContent:
    events = tuple(frame for frame in SERVER_FRAMES.models.values() if frame in EVENTS)
    return ChannelContent("server", events, arrays=True)


def _named(prefix: str, messages: dict[str, Document]) -> dict[str, Document]:
    return {f"{prefix}.{name}": reference for name, reference in messages.items()}


def _handshake() -> Schema:
    return {
        "type": "object",
        "properties": {
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "pattern": rf"^{re.escape(SUBPROTOCOL)}(, *{re.escape(TOKEN_SUBPROTOCOL)}[A-Za-z0-9._~-]+)?$",
                "description": f"`{SUBPROTOCOL}`; a browser adds `{TOKEN_SUBPROTOCOL}` followed by its token.",
            },
            "Authorization": {
                "type": "string",
                "description": "`Bearer` and the token, from a program; then `hello` needs no token.",
            },
            "Origin": {
                "type": "string",
                "description": "Sent by browsers: that of the web server's pages, or one of `socket.origins`.",
            },
        },
        "required": ["Sec-WebSocket-Protocol"],
    }


def _add_client_operations(document: Document) -> None:
    for role in ("examinee", "proctor"):
        sent, received = frames_of(role)
        arrays = ["server.array"] if role == "proctor" else []
        for action, names in (
            ("send", [*(f"client.{frame.type}" for frame in sent), "client.array"]),
            ("receive", [*(f"server.{frame.type}" for frame in received), *arrays]),
        ):
            document["operations"][f"{role}{action.capitalize()}"] = {
                "action": action,
                "channel": {"$ref": "#/channels/connect"},
                "summary": f"The frames that {'an' if role == 'examinee' else 'a'} {role} {action}s.",
                "messages": [{"$ref": f"#/channels/connect/messages/{name}"} for name in names],
                "tags": [{"name": role}],
            }


# -- NATS -----------------------------------------------------------------------------------------------------


def _add_channel(document: Document, messages: MessageComponents, channel: NatsChannel) -> None:
    names = [part.split("}")[0] for part in channel.address.split("{")[1:]]
    entry: Document = {
        "address": channel.address,
        "summary": channel.summary,
        "servers": [{"$ref": "#/servers/nats"}],
        "messages": messages.add(channel.content, channel.headers, channel.key),
    }
    if names:
        entry["parameters"] = {name: {"description": PARAMETERS[name]} for name in names}
    if channel.stream is not None:
        entry["x-stream"] = channel.stream.name
    document["channels"][channel.key] = entry
    reply: Document = {}
    if channel.reply is not None:
        key = f"{channel.key}Reply"
        document["channels"][key] = {
            "address": None,
            "summary": f"Replies to requests on {channel.address}, on the request's reply subject.",
            "servers": [{"$ref": "#/servers/nats"}],
            "messages": messages.add(channel.reply, {}, key),
        }
        address = {"location": "$message.header#/reply", "description": "The reply subject of the NATS request."}
        reply = {"reply": {"address": address, "channel": {"$ref": f"#/channels/{key}"}}}
    for role in publishers(channel):
        _operation(document, channel, "send", role.value, reply)
    for role, consumers in readers(channel).items():
        more = {**reply, "x-consumers": consumers} if consumers else reply
        _operation(document, channel, "receive", role.value, more)


def _operation(document: Document, channel: NatsChannel, action: str, role: str, more: Document) -> None:
    first, *rest = role.split("-")
    name = first + "".join(word.capitalize() for word in rest)
    document["operations"][f"{name}{action.capitalize()}{channel.key[0].upper()}{channel.key[1:]}"] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.key}"},
        "summary": channel.summary,
        "tags": [{"name": role}],
        **more,
    }


def _stream(stream: StreamSpec) -> Document:
    described: Document = {
        "description": stream.description,
        "subjects": list(stream.subjects),
        "duplicateWindowSeconds": stream.duplicate_window,
    }
    if stream.max_age > 0:
        described["maxAgeSeconds"] = stream.max_age
    if stream.max_msgs_per_subject > 0:
        described["maxMessagesPerSubject"] = stream.max_msgs_per_subject
    features = {
        "messageTtl": stream.allow_msg_ttl,
        "schedules": stream.allow_msg_schedules,
        "atomicBatches": stream.allow_atomic,
        "rollup": stream.allow_rollup,
    }
    return described | {"allows": [name for name, enabled in features.items() if enabled]}
