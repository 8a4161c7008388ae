"""The specifications as validators: what the documents say, and nothing that they do not say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote

import jsonschema
import jsonschema.exceptions
import jsonschema.protocols

Document = dict[str, Any]


class SpecBroken(AssertionError):
    """Something went over the wire that the specification does not have."""


def closed(schema: Any) -> Any:
    """The same schema, taking no field that it does not name (unless it says `additionalProperties` itself)."""
    if isinstance(schema, list):
        return [closed(element) for element in schema]
    if not isinstance(schema, dict):
        return schema
    schemas = {
        name: value if name in ("example", "examples", "default") else closed(value) for name, value in schema.items()
    }
    if schemas.get("type") == "object" and "properties" in schemas and "additionalProperties" not in schemas:
        schemas["additionalProperties"] = False
    return schemas


def resolve(document: Document, reference: str) -> Any:
    """What a `$ref` within the document points to. Raises `KeyError`."""
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


class _Validators:
    """Validators of the schemas inside one document, made once each."""

    def __init__(self, document: Document, kind: type[jsonschema.protocols.Validator]) -> None:
        self.document = document
        self._schemas = closed(document["components"]["schemas"])
        self._kind = kind
        self._made: dict[str, jsonschema.protocols.Validator] = {}

    def check(self, schema: Any, value: Any, what: str) -> None:
        """Raises `SpecBroken` saying which field is wrong."""
        key = json.dumps(schema, sort_keys=True)
        validator = self._made.get(key)
        if validator is None:
            document = {**closed(schema), "components": {"schemas": self._schemas}}
            validator = self._made[key] = self._kind(document)
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if error is not None:
            raise SpecBroken(f"{what}: {'.'.join(map(str, error.absolute_path)) or '(whole)'}: {error.message[:400]}")


class AsyncApi:
    """The AsyncAPI document over what is said. `seen`: the messages that were checked, as `{channel}/{message}`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: set[str] = set()
        self._validators = _Validators(document, jsonschema.Draft7Validator)
        self._addresses = [
            (re.compile(_pattern(channel["address"])), key)
            for key, channel in document["channels"].items()
            if channel["address"] and key not in ("connect", "tail")
        ]

    def channel_of(self, subject: str) -> str | None:
        """The key of the channel that a NATS subject belongs to."""
        fits = [(pattern.pattern.count("["), key) for pattern, key in self._addresses if pattern.fullmatch(subject)]
        return min(fits)[1] if fits else None

    def frame(self, role: str, action: str, text: str) -> None:
        """A WebSocket frame that a client of a role sends or receives."""
        operation = self.document["operations"][f"{role}{action.capitalize()}"]
        names = [message["$ref"].rpartition("/")[2] for message in operation["messages"]]
        self._one_of("connect", names, json.loads(text), {})

    def message(self, channel: str, payload: bytes, headers: dict[str, str]) -> None:
        """A NATS message on a channel."""
        messages = self.document["channels"][channel]["messages"]
        names = list(messages)
        bodies = {name: self._message(channel, name) for name in names}
        by_type = {
            "text/plain": [name for name in names if bodies[name]["contentType"] == "text/plain"],
            "application/json": [name for name in names if bodies[name]["contentType"] == "application/json"],
        }
        if not payload:
            self._one_of(channel, by_type["text/plain"], "", headers)
        elif any(body["contentType"] == "application/octet-stream" for body in bodies.values()):
            self.seen.add(f"{channel}/chunk")
        else:
            self._one_of(channel, by_type["application/json"], json.loads(payload), headers)

    def _one_of(self, channel: str, names: list[str], value: Any, headers: dict[str, str]) -> None:
        name = self._name_of(channel, names, value)
        message = self._message(channel, name)
        what = f"{channel}/{name}"
        self._validators.check(message["payload"], value, what)
        if channel != "connect":
            self._validators.check(
                message.get("headers", {"type": "object", "properties": {}}), headers, f"{what} headers"
            )
        self.seen.add(what)
        if name.endswith("array"):
            prefix = name.removesuffix("array")
            for element in value:
                self.seen.add(f"{channel}/{prefix}{element['type']}")

    def _name_of(self, channel: str, names: list[str], value: Any) -> str:
        if isinstance(value, list):
            matching = [name for name in names if name.endswith("array")]
        elif isinstance(value, dict) and isinstance(value.get("type"), str) and set(value) <= {"type", "data"}:
            matching = [name for name in names if name.rpartition(".")[2] == value["type"]]
        else:
            matching = [name for name in names if self._fits(channel, name, value)]
        if len(matching) != 1:
            raise SpecBroken(f"{channel}: {json.dumps(value)[:300]} is none of {names}")
        return matching[0]

    def _fits(self, channel: str, name: str, value: Any) -> bool:
        try:
            self._validators.check(self._message(channel, name)["payload"], value, name)
        except SpecBroken:
            return False
        return True

    def _message(self, channel: str, name: str) -> Document:
        message: Document = resolve(self.document, self.document["channels"][channel]["messages"][name]["$ref"])
        return message


def _pattern(address: str) -> str:
    escaped = re.escape(address).replace(r"\{", "{").replace(r"\}", "}")
    return re.sub(r"{(\w+)}", lambda name: ".+" if name[1] == "address" else "[^.]+", escaped)


class OpenApi:
    """The OpenAPI document over HTTP exchanges. `seen`: `{method} {path} {status}` that were checked."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: set[str] = set()
        self._validators = _Validators(document, jsonschema.Draft202012Validator)
        self._paths = [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path) for path in document["paths"]]

    def exchange(self, method: str, path: str, query: str, status: int, headers: dict[str, str], body: bytes) -> None:
        """One request and what it was answered. Addresses and methods that the document does not have: 404 and 405."""
        what = f"{method} {path} {status}"
        operations = next((path_item for pattern, path_item in self._paths if pattern.fullmatch(path)), None)
        operation = self.document["paths"].get(operations, {}).get(method.lower().replace("head", "get"))
        if operation is None:
            expected = 404 if operations is None else 405
            if status != expected or headers.get("content-type") != "application/problem+json":
                raise SpecBroken(f"{what}: the document has no such operation, so {expected} and a problem document")
            self._validators.check({"$ref": "#/components/schemas/ProblemDocument"}, json.loads(body), what)
            self.seen.add(f"{method} - {status}")
            return
        if status < 400:
            path_item = {
                parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"
            }
            if unknown := set(parse_qs(query, keep_blank_values=True)) - path_item:
                raise SpecBroken(f"{what}: took the parameters {sorted(unknown)}")
        response = operation["responses"].get(str(status))
        if response is None:
            raise SpecBroken(f"{what}: only {sorted(operation['responses'])} are answered")
        media_type = headers["content-type"].partition(";")[0].strip()
        content = response["content"].get(media_type)
        if content is None:
            raise SpecBroken(f"{what}: {media_type}, where {sorted(response['content'])} is promised")
        for name in response.get("headers", {}):
            if name.lower() not in headers:
                raise SpecBroken(f"{what}: no header {name}")
        if method != "HEAD" and "schema" in content:
            value = json.loads(body) if media_type.endswith("json") else body.decode()
            self._validators.check(content["schema"], value, f"{what} {unquote(query)}")
        self.seen.add(f"{method} {operations} {status}")
