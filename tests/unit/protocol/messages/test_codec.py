from __future__ import annotations

import itertools
import json
from typing import Any, ClassVar

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, NewerFormat, ProtocolError
from protocol.messages.base import FORMAT, Message
from protocol.messages.codec import (
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    Codec,
    Malformed,
    encode,
    encode_batches,
    join_batch,
    split_batches,
)
from protocol.messages.facts import STATUS_CODEC, ClientInfo, ConnectionStatus, MobileSyncStatus
from protocol.messages.frames import CLIENT_FRAMES, NotifyFrame, refusal_of
from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from tests.unit.support import facts

LOSS = {
    "planId": "P001",
    "examineeId": "E001",
    "socketId": "SOCK001-a",
    "status": "DISCONNECTED",
    "timestamp": "2024-01-01T09:15:00Z",
}


def payload_of(**changes: Any) -> str:
    return json.dumps({"type": "connection_status", "data": {**LOSS, **changes}})


def refused(payload: bytes | str) -> ProtocolError:
    """The error of a payload whose one element is no message; `decode_one` says the same."""
    (element,) = STATUS_CODEC.decode_batch(payload)
    assert isinstance(element, Malformed), element
    with pytest.raises(ProtocolError) as raised:
        STATUS_CODEC.decode_one(payload)
    assert (raised.value.code, raised.value.field) == (element.error.code, element.error.field)
    return element.error


# -- one clear error --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " ",
        "nope",
        "{",
        '{"type":"connection_status"',
        '{"type":"connection_status"} trailing',
        "{'type':1}",
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
        '{"type":"\\ud800"}',
        "\ud800",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 5000,
        '{"type":"a\x00"}',
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_invalid_json_is_refused_with_invalid_json(payload: bytes | str) -> None:
    error = refused(payload)
    assert (error.code, error.field) == (ErrorCode.INVALID_JSON, None)
    assert "not JSON" in error.detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_not_json(number: str) -> None:
    status = json.loads(encode(facts.server(ServerStatusCode.READY)))
    status["data"]["cpuUsage"] = "HERE"
    assert refused(json.dumps(status).replace('"HERE"', number)).code is ErrorCode.INVALID_JSON


def test_a_number_too_large_for_a_float_is_refused() -> None:
    """It would be written as null: a message that changes on its way."""
    status = json.loads(encode(facts.server(ServerStatusCode.READY)))
    status["data"]["cpuUsage"] = "HERE"
    error = refused(json.dumps(status).replace('"HERE"', "1e999"))
    assert (error.code, error.field) == (ErrorCode.INVALID_FIELD, "data.cpuUsage")


@pytest.mark.parametrize("payload", ["null", "1", '"text"', "true", "1.5"])
def test_a_message_that_is_not_an_object_is_refused(payload: str) -> None:
    assert refused(payload).code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("payload", ["{}", '{"data":{}}', '{"type":null}', '{"type":1}', '{"type":["x"]}'])
def test_a_message_without_a_type_is_refused_naming_the_type(payload: str) -> None:
    error = refused(payload)
    assert (error.code, error.field) == (ErrorCode.INVALID_MESSAGE, "type")


@pytest.mark.parametrize("kind", ["", "nope", "Connection_Status", "connection_status ", "connection_lost", "\x00"])
def test_an_unknown_type_is_refused_naming_it(kind: str) -> None:
    error = refused(json.dumps({"type": kind, "data": LOSS}))
    assert (error.code, error.field) == (ErrorCode.UNKNOWN_TYPE, "type")
    assert repr(kind) in error.detail


def test_a_long_type_is_truncated_in_the_error() -> None:
    assert len(str(refused(json.dumps({"type": "x" * 2**20})))) < 200
    error = refused(payload_of(clientInfo={"browserInfo": "x" * 2**20}))
    assert (error.code, error.field) == (ErrorCode.INVALID_FIELD, "data.clientInfo.browserInfo")
    assert len(str(error)) < 200


@pytest.mark.parametrize("data", [None, 1, "x", [], [LOSS]])
def test_data_that_is_no_object_is_refused(data: object) -> None:
    error = refused(json.dumps({"type": "connection_status", "data": data}))
    assert (error.code, error.field) == (ErrorCode.INVALID_MESSAGE, "data")


@pytest.mark.parametrize("field", sorted(LOSS))
def test_a_missing_field_is_named_in_wire_spelling(field: str) -> None:
    data = {name: value for name, value in LOSS.items() if name != field}
    error = refused(json.dumps({"type": "connection_status", "data": data}))
    assert (error.code, error.field) == (ErrorCode.INVALID_FIELD, f"data.{field}")


def test_a_message_without_data_lacks_its_first_field() -> None:
    assert refused('{"type":"connection_status"}').field == "data.planId"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("planId", 1),
        ("planId", None),
        ("planId", "a.b"),
        ("planId", "P\n"),
        ("planId", "a" * 65),
        ("planId", "시험"),
        ("planId", ["P001"]),
        ("examineeId", "*"),
        ("examineeId", "\x00"),
        ("socketId", "a" * 97),
        ("serverId", "plan"),
        ("status", "GONE"),
        ("status", "connected"),
        ("timestamp", 1704100500),
        ("timestamp", "yesterday"),
        ("timestamp", "2024-02-30T00:00:00Z"),
        ("reason", "x" * 300),
        ("reason", "lower case"),
        ("reason", "A\nB"),
        ("clientInfo", "Chrome"),
        ("connectionNo", -1),
        ("connectionNo", 2**53),
        ("connectionNo", 10**400),
        ("connectionNo", 1.5),
        ("connectionNo", "many"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    error = refused(payload_of(**{field: value}))
    assert (error.code, error.field) == (ErrorCode.INVALID_FIELD, f"data.{field}")


def test_the_last_of_repeated_keys_counts() -> None:
    decoded = STATUS_CODEC.decode_one(payload_of()[:-2] + ', "planId": "P002"}}')
    assert isinstance(decoded, ConnectionStatus)
    assert decoded.plan_id == "P002"
    assert refused('{"type":"connection_status","type":"nope"}').code is ErrorCode.UNKNOWN_TYPE


def test_facts_keep_the_fields_of_a_newer_release_and_others_ignore_them() -> None:
    newer = {"mood": {"level": 3}, "clientInfo": {"ipAddress": "::1", "screen": [1, 2]}}
    decoded = STATUS_CODEC.decode_one(payload_of(**newer))
    assert isinstance(decoded, ConnectionStatus)
    assert json.loads(encode(decoded))["data"] == {**LOSS, **newer, "connectionNo": 0}
    assert json.loads(encode(decoded.model_copy(update={"connection_no": 7})))["data"]["mood"] == {"level": 3}

    hello = {"clientId": "c-1", "connectionNo": 1, "mood": "calm", "clientInfo": {"browserInfo": "x", "screen": 1}}
    greeting = CLIENT_FRAMES.decode_one(json.dumps({"type": "hello", "data": hello}))
    assert json.loads(encode(greeting))["data"] == {
        "clientId": "c-1",
        "connectionNo": 1,
        "clientInfo": {"browserInfo": "x"},
    }


class _Asleep(Message):
    """A message of a release that knows format 2; one with `deep` needs format 3."""

    type: ClassVar[str] = "asleep"
    format: ClassVar[int] = 2
    deep: bool = False

    def required_format(self) -> int:
        return 3 if self.deep else self.format


def test_a_message_says_which_format_its_reader_must_know() -> None:
    assert encode(_Asleep()) == b'{"type":"asleep","format":2,"data":{"deep":false}}'
    assert json.loads(encode(_Asleep(deep=True)))["format"] == 3
    assert b"format" not in encode(facts.connected("S-1"))


@pytest.mark.parametrize("codec", [STATUS_CODEC, Codec.of((_Asleep,))], ids=["unknown type", "known type"])
def test_a_message_of_a_newer_format_is_left_to_newer_readers(codec: Codec) -> None:
    elements = codec.decode_batch(b'[%s,{"type":"nope"}]' % encode(_Asleep()))
    assert [isinstance(element, Malformed) and element.newer for element in elements] == [True, False]
    with pytest.raises(NewerFormat, match=f"'asleep' has format 2; this release knows formats up to {FORMAT}"):
        codec.decode_one(encode(_Asleep()))


@pytest.mark.parametrize("number", [0, -1, "2", 1.5, True, None])
def test_a_format_is_a_number_from_1_on(number: object) -> None:
    error = refused(json.dumps({"type": "connection_status", "format": number, "data": LOSS}))
    assert (error.code, error.field) == (ErrorCode.INVALID_FIELD, "format")


def test_an_unknown_type_of_a_known_format_is_refused() -> None:
    for element in ({"type": "nope"}, {"type": "nope", "format": FORMAT}):
        error = refused(json.dumps(element))
        assert (error.code, type(error)) == (ErrorCode.UNKNOWN_TYPE, ProtocolError)


def test_any_text_is_unchanged_after_encoding_and_decoding() -> None:
    odd = 'NUL \x00 quote " slash \\ line \n 시험 🎓 \u2028'
    message = facts.connected("S-1", info=ClientInfo(browser_info=odd))
    assert STATUS_CODEC.decode_one(encode(message)) == message


@given(st.binary(max_size=64) | st.text(st.characters(), max_size=64))
def test_the_decoder_handles_any_payload(payload: bytes | str) -> None:
    for element in STATUS_CODEC.decode_batch(payload):
        assert isinstance(element, Message | Malformed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(STATUS_CODEC.models)), st.dictionaries(st.sampled_from([*LOSS, "x"]), json_values))
def test_the_models_handle_any_data(kind: str, data: dict[str, Any]) -> None:
    payload = pydantic_core.to_json({"type": kind, "data": data})
    (element,) = STATUS_CODEC.decode_batch(payload)
    if isinstance(element, Malformed):
        assert element.error.field or element.error.code is ErrorCode.INVALID_JSON
    else:
        assert encode(STATUS_CODEC.decode_one(encode(element))) == encode(element)


# -- arrays -----------------------------------------------------------------------------------------------


def test_a_malformed_element_does_not_affect_its_neighbours() -> None:
    valid = payload_of()
    payload = f'[{valid},7,{valid},{{"type":"nope"}},[{valid}],{payload_of(planId="a b")},{valid}]'
    elements = STATUS_CODEC.decode_batch(payload)
    assert [isinstance(element, ConnectionStatus) for element in elements] == [True, False, True] + [False] * 3 + [True]
    malformed = [element for element in elements if isinstance(element, Malformed)]
    assert [element.index for element in malformed] == [1, 3, 4, 5]
    assert [element.error.field for element in malformed] == [None, "type", None, "data.planId"]
    assert json.loads(malformed[0].raw) == 7
    assert json.loads(malformed[1].raw) == {"type": "nope"}


def test_an_empty_array_holds_no_message() -> None:
    assert STATUS_CODEC.decode_batch("[]") == []


def test_an_array_may_have_256_messages_and_no_more() -> None:
    many = [payload_of()] * 256
    assert len(STATUS_CODEC.decode_batch(f"[{','.join(many)}]")) == 256
    (malformed,) = STATUS_CODEC.decode_batch(f"[{','.join([*many, payload_of()])}]")
    assert isinstance(malformed, Malformed)
    assert malformed.error.code is ErrorCode.TOO_LARGE
    assert "257" in malformed.error.detail


def test_decode_one_refuses_an_array() -> None:
    with pytest.raises(ProtocolError) as error:
        STATUS_CODEC.decode_one(f"[{payload_of()}]")
    assert error.value.code is ErrorCode.INVALID_MESSAGE


def test_a_single_message_is_encoded_without_an_array() -> None:
    (payload,) = encode_batches([facts.connected("S-1")])
    assert payload == encode(facts.connected("S-1"))
    assert payload.startswith(b'{"type":"connection_status","data":{')
    assert b"null" not in payload


@given(st.lists(st.integers(1, 100_000) | st.integers(1, 300), max_size=600))
def test_batches_keep_the_order_and_the_limits_and_are_as_few_as_possible(sizes: list[int]) -> None:
    cuts = split_batches(sizes)
    assert [size for cut in cuts for size in sizes[cut]] == sizes
    for cut in cuts:
        batch = sizes[cut]
        assert batch
        payload = join_batch([b"x" * size for size in batch])
        assert len(batch) <= MAX_BATCH_MESSAGES
        assert len(payload) <= MAX_BATCH_BYTES or len(batch) == 1
    for cut, following in itertools.pairwise(cuts):
        larger_batch = [*sizes[cut], sizes[following][0]]
        assert len(larger_batch) > MAX_BATCH_MESSAGES or sum(larger_batch) + len(larger_batch) + 1 > MAX_BATCH_BYTES


@pytest.mark.parametrize(("second", "payloads"), [(100, 1), (101, 2)])
def test_a_payload_may_have_256_kib_to_the_byte(second: int, payloads: int) -> None:
    sizes = [MAX_BATCH_BYTES - 100 - len("[,]"), second]
    cuts = split_batches(sizes)
    assert len(cuts) == payloads
    assert max(len(join_batch([b"x" * size for size in sizes[cut]])) for cut in cuts) <= MAX_BATCH_BYTES


def test_many_messages_are_encoded_in_few_payloads() -> None:
    hall = [facts.connected(f"SOCK001-{seat}", seat) for seat in range(600)]
    payloads = encode_batches(hall)
    assert len(payloads) == 3
    assert [message for payload in payloads for message in STATUS_CODEC.decode_batch(payload)] == hall
    assert encode_batches([]) == []


# -- round trips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        facts.connected("S-1", client="c", number=7, incarnation="i", info=ClientInfo(ip_address="::1")),
        facts.disconnected("S-1"),
        facts.attempt(2, 1),
        facts.exhausted(2),
        facts.readmit(),
        facts.restate(),
        facts.wait(),
        facts.uploaded(),
        facts.upload_failed(),
        facts.timed_out(1),
        facts.server(ServerStatusCode.FAILED, reason="QUEUE_CREATE_FAILED"),
    ],
    ids=lambda message: message.type,
)
def test_every_fact_is_unchanged_after_encoding_and_decoding(message: Message) -> None:
    assert STATUS_CODEC.decode_one(encode(message)) == message
    wire = json.loads(encode(message))
    assert sorted(wire) == ["data", "type"]
    assert wire["data"] == message.data()


def test_the_log_knows_every_fact_by_one_type() -> None:
    assert {MobileSyncStatus.type, ServerStatus.type, ConnectionStatus.type} < set(STATUS_CODEC.models)
    assert all(model.type == kind for kind, model in STATUS_CODEC.models.items())


@pytest.mark.parametrize(
    ("element", "code", "field"),
    [
        (
            '{"type":"notify","data":{"examineeId":"E1","requestId":"r1","text":"\\ud800"}}',
            "INVALID_FIELD",
            "data.text",
        ),
        ('{"type":"notify","data":{"more":[1,{"deep":"\\udfff"}],"text":"x"}}', "INVALID_FIELD", "data.more.1.deep"),
        ('{"type":"notify","data":{"\\ud800":1}}', "INVALID_FIELD", "data"),
        ('{"type":"\\udead","data":{}}', "INVALID_JSON", None),
        ('"\\ud800"', "INVALID_JSON", None),
        ('["\\ud800"]', "INVALID_JSON", None),
    ],
)
def test_a_lone_surrogate_makes_only_its_own_message_malformed(element: str, code: str, field: str | None) -> None:
    valid = '{"type":"notify","data":{"examineeId":"E1","requestId":"r2","text":"\\ud83d\\ude00 \\u0041"}}'
    first, malformed, last = CLIENT_FRAMES.decode_batch(f"[{valid},{element},{valid}]")
    for frame in (first, last):
        assert isinstance(frame, NotifyFrame)
        assert frame.text == "\U0001f600 A"
    assert isinstance(malformed, Malformed)
    assert (malformed.index, malformed.error.code, malformed.error.field) == (1, code, field)
    malformed.raw.decode()
    refusal = encode(refusal_of(malformed))
    assert (b'"requestId":"r1"' in refusal) is ("r1" in element)
    (single,) = CLIENT_FRAMES.decode_batch(element)
    assert isinstance(single, Malformed)
    assert single.error.code in (code, "INVALID_JSON")


@pytest.mark.parametrize("payload", ['{"a":"\\ud800"', '[NaN,"\\ud800"]', "[" * 100_000 + '"\\ud800"'])
def test_a_lone_surrogate_does_not_make_other_invalid_json_valid(payload: str) -> None:
    assert refused(payload).code == ErrorCode.INVALID_JSON
