"""The specifications: complete, valid by the official schemas, and true of the code that they describe."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from openapi_spec_validator import validate as validate_openapi
from starlette.routing import Route
from typer.testing import CliRunner

from actors.runtime.actor.actor import Actor
from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.store.state_store import StateStore
from actors.sessions.examinee_session import ExamineeSession
from actors.sessions.proctor_session import ProctorSession
from actors.web_server import problems
from actors.web_server.api import phone_codes, plan
from actors.web_server.pages import Pages
from actors.web_server.server import WebServer
from cli.main import app
from protocol.broker import subjects
from protocol.broker.streams import STREAMS
from protocol.close_codes import CLOSE_RULES
from protocol.errors import ErrorCode
from protocol.messages.base import Message
from protocol.messages.codec import encode, encode_batches
from protocol.messages.facts import STATUS_CODEC
from protocol.messages.frames import CLIENT_FRAMES, SERVER_FRAMES, Heartbeat
from protocol.messages.operator_requests import ANSWERS, REQUESTS, Handled
from protocol.messages.progress import Applied
from protocol.messages.server_messages import Lease, QueueCreate, QueueCreated
from protocol.messages.session_messages import SOCKET_CODEC
from protocol.spec.asyncapi import asyncapi, frames_of
from protocol.spec.channel_fields import PARAMETERS
from protocol.spec.channels import nats_channels
from protocol.spec.examples import EXAMPLES
from protocol.spec.http_routes import ROUTES
from protocol.spec.openapi import openapi
from tests.support.specs import AsyncApi, OpenApi, SpecBroken, references, resolve

Document = dict[str, Any]

SPOKEN: dict[str, tuple[type[Message], ...]] = {
    "client": tuple(CLIENT_FRAMES.models.values()),
    "server": tuple(SERVER_FRAMES.models.values()),
    "status": tuple(STATUS_CODEC.models.values()),
    "socket": tuple(SOCKET_CODEC.models.values()),
    "control": (*REQUESTS.models.values(), *ANSWERS.models.values(), Handled),
    "queue": (QueueCreate, QueueCreated),
    "lease": (Lease,),
    "applied": (Applied,),
}


@pytest.fixture(scope="module")
def spoken() -> Document:
    return asyncapi("1.2.3")


@pytest.fixture(scope="module")
def served() -> Document:
    return openapi("1.2.3")


# -- AsyncAPI: valid -----------------------------------------------------------------------------------------


def official_schema() -> Path | None:
    """Where npm has put @asyncapi/specs, if it is installed for all."""
    roots = [*os.environ.get("NODE_PATH", "").split(":"), "/usr/lib/node_modules", "/usr/local/lib/node_modules"]
    paths = (Path(root) / "@asyncapi/specs/schemas/3.0.0.json" for root in roots if root)
    return next((path for path in paths if path.is_file()), None)


def test_it_is_valid_by_the_official_schema_of_asyncapi(spoken: Document) -> None:
    path = official_schema()
    if path is None:
        pytest.skip("no @asyncapi/specs of npm here: npm install -g @asyncapi/specs")
    validator = jsonschema.Draft7Validator(json.loads(path.read_text()))
    assert [error.message[:200] for error in validator.iter_errors(spoken)] == []
    broken = copy.deepcopy(spoken)
    broken["operations"]["examineeSend"]["action"] = "shout"
    assert list(validator.iter_errors(broken))


def test_every_reference_resolves_and_every_component_is_referenced(spoken: Document, served: Document) -> None:
    for document in (spoken, served):
        used = set(references(document))
        for reference in used:
            resolve(document, reference)
        for kind in ("schemas", "messages"):
            named = {f"#/components/{kind}/{name}" for name in document["components"].get(kind, {})}
            assert named - used == set()


def test_operations_refer_to_messages_of_their_channel(spoken: Document) -> None:
    for name, operation in spoken["operations"].items():
        assert operation["action"] in ("send", "receive")
        assert name.startswith(operation["tags"][0]["name"].partition("-")[0])
        channel = operation["channel"]["$ref"]
        for message in operation.get("messages", []):
            assert message["$ref"].startswith(f"{channel}/messages/"), name


def test_every_nats_channel_has_a_reader_or_is_a_record(spoken: Document) -> None:
    read = {
        operation["channel"]["$ref"].rpartition("/")[2]
        for operation in spoken["operations"].values()
        if operation["action"] == "receive"
    }
    written_channels = {
        operation["channel"]["$ref"].rpartition("/")[2]
        for operation in spoken["operations"].values()
        if operation["action"] == "send"
    }
    keys = {channel.key for channel in nats_channels()}
    # Looked up message by message (codes, pictures, letters, markers of replays, checkpoints), or fired by NATS itself.
    looked_up = {"phone", "capturesChunk", "capturesMeta", "deadletter", "statusReplay", "socketReplay", "statusTimer"}
    looked_up |= {
        "checkpoint",
        "recordsCheckpoint",
        "probe",
        "serverCheckpoint",
        "planCheckpoint",
        "examineeCheckpoint",
    }
    assert keys - read == looked_up
    assert keys - written_channels == {"maxDeliveries", "terminated"}  # by NATS


def test_every_parameter_is_explained_and_every_stream_has_a_channel() -> None:
    used = {name for channel in nats_channels() for name in re.findall(r"{(\w+)}", channel.address)}
    assert used == set(PARAMETERS)
    streams = {channel.stream.name for channel in nats_channels() if channel.stream is not None}
    assert streams >= {stream.name for stream in STREAMS}


# -- AsyncAPI: complete --------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", SPOKEN)
def test_every_message_of_every_codec_is_specified_with_its_type_and_an_example(spoken: Document, group: str) -> None:
    schemas = spoken["components"]["schemas"]
    by_payload = {json.dumps(message["payload"]): message for message in spoken["components"]["messages"].values()}
    for model in SPOKEN[group]:
        name = f"{group}.{model.type}"
        assert schemas[name]["properties"]["type"] == {"const": model.type}
        message = by_payload[json.dumps({"$ref": f"#/components/schemas/{name}"})]
        assert message["summary"], name
        assert [example["payload"]["type"] for example in message["examples"]] == [model.type], name


def test_every_example_belongs_to_a_specified_message() -> None:
    assert set(EXAMPLES) == {model for models in SPOKEN.values() for model in models}


def test_the_frames_of_a_role_are_those_that_its_session_handles() -> None:
    sessions: dict[str, type[Actor]] = {"examinee": ExamineeSession, "proctor": ProctorSession}
    for role, session in sessions.items():
        sent, received = frames_of(role)
        assert set(sent) <= set(session._handlers)
        other = frames_of("proctor" if role == "examinee" else "examinee")
        assert set(sent) | set(other[0]) == set(CLIENT_FRAMES.models.values())
        assert set(received) | set(other[1]) == set(SERVER_FRAMES.models.values())


def test_the_close_codes_are_those_of_the_table(spoken: Document) -> None:
    documented = {
        close_code["code"]: (close_code["name"], close_code["reconnect"], close_code["rule"])
        for close_code in spoken["channels"]["connect"]["x-close-codes"]
    }
    assert documented == {int(code): (rule.name, rule.reconnect, rule.rule) for code, rule in CLOSE_RULES.items()}


# -- AsyncAPI: true ------------------------------------------------------------------------------------------


def test_every_example_is_valid_and_has_only_specified_fields(spoken: Document) -> None:
    spec = AsyncApi(spoken)
    without = set()
    for key, channel in spoken["channels"].items():
        for name, reference in channel["messages"].items():
            message = resolve(spoken, reference["$ref"])
            for example in message.get("examples", []):
                spec._validators.check(message["payload"], example["payload"], f"{key}/{name}")
            if not message.get("examples"):
                without.add(f"{key}/{name}")
    assert without == {"capturesChunk/chunk"}  # bytes


@pytest.mark.parametrize("model", list(EXAMPLES), ids=lambda model: model.__name__)
def test_a_field_that_is_renamed_on_the_wire_is_noticed(spoken: Document, model: type[Message]) -> None:
    group = next(name for name, models in SPOKEN.items() if model in models)
    spec = AsyncApi(spoken)
    schema = {"$ref": f"#/components/schemas/{group}.{model.type}"}
    message_json = json.loads(encode(EXAMPLES[model]))
    spec._validators.check(schema, message_json, "as it is")
    for place, renamed in ((message_json, "typ"), (message_json["data"], "renamed")):
        for name in list(place):
            renamed_json = copy.deepcopy(message_json)
            target = renamed_json if place is message_json else renamed_json["data"]
            target[renamed] = target.pop(name)
            with pytest.raises(SpecBroken):
                spec._validators.check(schema, renamed_json, "renamed")


def test_what_a_client_may_leave_out_is_optional_and_what_a_server_always_writes_is_required(spoken: Document) -> None:
    schemas = spoken["components"]["schemas"]
    assert schemas["client.heartbeat"]["required"] == ["type"]
    assert schemas["server.heartbeat"]["required"] == ["type", "data"]
    assert schemas["Hello"]["required"] == ["clientId", "connectionNo"]
    assert "part" in schemas["PlanSnapshot"]["required"]
    assert "required" not in schemas["QueueConfig"]
    messages = {name: schema for name, schema in schemas.items() if name not in ("SessionsPage", "Inspection")}
    assert '{"type": "null"}' not in json.dumps(messages)


def test_arrays_hold_whole_messages_of_the_channel_only(spoken: Document) -> None:
    spec = AsyncApi(spoken)
    events = [
        example for model, example in EXAMPLES.items() if model.type in ("examinee_connected", "examinee_disconnected")
    ]
    (together,) = encode_batches(events)
    spec.frame("proctor", "receive", together.decode())
    spec.message("socketProctors", together, {"Nats-Msg-Id": "ev:1:ab"})
    for payload in (b"[]", together[:-1] + b"," + encode(Heartbeat()) + b"]"):
        with pytest.raises(SpecBroken):
            spec.message("socketProctors", payload, {})
    with pytest.raises(SpecBroken, match="headers"):
        spec.message("socketProctors", together, {"Nats-Invented": "1"})
    with pytest.raises(SpecBroken):
        spec.frame("examinee", "receive", together.decode())


def test_a_subject_finds_its_channel(spoken: Document) -> None:
    spec = AsyncApi(spoken)
    for subject, key in {
        subjects.status_plan("P001", subjects.WEB): "statusPlan",
        "status.timer.P001.E001.mobile_sync-17": "statusTimer",
        "status.replay.3-1700000000000": "statusReplay",
        "socket.SOCK001": "socketServer",
        "socket.plan.P001.proctors": "socketProctors",
        "socket.plan.P001.examinee.E001": "socketExaminee",
        "control.socket.SOCK001": "control",
        "inspect.socket-server-a1.process": "process",
        "$O.captures.M.UDAwMQ==": "capturesMeta",
    }.items():
        assert spec.channel_of(subject) == key
    assert spec.channel_of("elsewhere.P001") is None


# -- OpenAPI -------------------------------------------------------------------------------------------------


def test_it_is_valid_openapi(served: Document) -> None:
    validate_openapi(served)


def web_server(settings: Settings) -> WebServer:
    """One that is never started: only its routes are looked at."""
    return WebServer(settings, cast(Bus, None), cast(StateStore, None))


def test_the_routes_are_exactly_those_of_the_web_server(tmp_path: Path) -> None:
    def plain(path: str) -> str:
        named = re.sub(r"{(\w+?)(:path)?}", r"{\1}", path)
        return re.sub(r"_(\w)", lambda match: match[1].upper(), named.replace("sync_cap", "sync#cap")).replace("#", "_")

    routes = set()
    for route in web_server(load_settings(data_dir=tmp_path))._app.routes:
        assert isinstance(route, Route)
        if isinstance(getattr(route.endpoint, "__self__", None), Pages):
            continue
        routes |= {(method, plain(route.path)) for method in (route.methods or set()) - {"HEAD"}}
    assert routes == {(route.method, route.path) for route in ROUTES}


def test_the_problem_codes_are_exactly_those_of_the_web_server() -> None:
    own = {value for name, value in vars(problems).items() if name.isupper() and isinstance(value, str)}
    documented = {code for route in ROUTES for _, codes in route.problems for code in codes} | {"INTERNAL_ERROR"}
    assert documented - own - {str(code) for code in ErrorCode} == set()
    assert own - documented == set()


def test_numbers_in_descriptions_match_the_code(served: Document) -> None:
    timeline = served["paths"]["/v1/plans/{planId}/examinees/{examineeId}/timeline"]["get"]
    (limit,) = [parameter["schema"] for parameter in timeline["parameters"] if parameter["name"] == "limit"]
    assert (limit["default"], limit["maximum"]) == (plan.LIMIT, plan.LARGEST_LIMIT)
    description = served["paths"]["/v1/plans/{planId}/examinees/{examineeId}/phone-code"]["post"]["description"]
    assert f"{phone_codes.CODES_A_MINUTE} a minute" in description
    redeemed = served["paths"]["/v1/phone-codes/{code}"]["post"]["description"]
    assert f"{phone_codes.WRONG_AT_ONCE} at once and {phone_codes.WRONG_A_SECOND} a second" in redeemed
    assert f"up to {phone_codes.LONGEST_WAIT:g} s" in redeemed


def test_examples_of_answers_are_valid(served: Document) -> None:
    spec = OpenApi(served)
    checked = 0
    for operations in served["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for content in response["content"].values():
                    examples = [example["value"] for example in content.get("examples", {}).values()]
                    for example in [*examples, *([content["example"]] if "example" in content else [])]:
                        spec._validators.check(content["schema"], example, f"{operation['operationId']} {status}")
                        checked += 1
    assert checked > 50


# -- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "key"), [("asyncapi", "asyncapi"), ("openapi", "openapi")])
def test_the_command_prints_the_document_and_nothing_else(name: str, key: str) -> None:
    result = CliRunner().invoke(app, ["spec", name, "-o", "json"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)[key].startswith("3.")
