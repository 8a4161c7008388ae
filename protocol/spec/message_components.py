"""The `components.messages` of the AsyncAPI document: each message with its schema, headers and examples."""

from __future__ import annotations

from typing import Any

from protocol.messages.base import Message, Wire
from protocol.spec.bare_payloads import BarePayload
from protocol.spec.channel_fields import HEADERS
from protocol.spec.channels import ChannelContent
from protocol.spec.examples import BARE_EXAMPLES, EXAMPLES
from protocol.spec.schemas import Components, Schema, array_of

Document = dict[str, Any]


class MessageComponents:
    """The messages of the document's `components`, each added once.

    Example::

        messages = MessageComponents(components)
        channel["messages"] = messages.add(content, headers, "lease")
    """

    def __init__(self, components: Components) -> None:
        self.messages: dict[str, Document] = {}
        self._components = components

    def add(self, content: ChannelContent, headers: dict[str, bool], channel_key: str) -> dict[str, Document]:
        """Add the messages of a channel; return references to them, for the channel's `messages`."""
        references: dict[str, Document] = {}
        payloads: list[Schema] = []
        for model in content.messages:
            payload = self._components.message(content.group, model, content.direction)
            payloads.append(payload)
            references[model.type] = self._put(
                f"{channel_key}.{model.type}",
                model.type,
                _summary_of(model),
                payload,
                headers,
                examples=_examples(model),
            )
        for bare in content.bare:
            references[bare.name] = self._put(
                f"{channel_key}.{bare.name}",
                bare.name,
                bare.summary,
                self._schema(bare),
                headers,
                examples=_bare_examples(bare),
                content_type=bare.content_type,
            )
        if content.arrays:
            example = [_payload(EXAMPLES[model]) for model in content.messages if model in EXAMPLES][:2]
            references["array"] = self._put(
                f"{channel_key}.array",
                "array",
                "An array of messages that were ready together, in order.",
                array_of(payloads),
                headers,
                examples=[{"name": "together", "payload": example}] if example else [],
            )
        return references

    def _schema(self, bare: BarePayload) -> Schema:
        if bare.model is not None:
            return self._components.of(bare.model, bare.direction)
        assert bare.schema is not None
        return self._components.name(f"bare.{bare.name}", bare.schema)

    def _put(
        self,
        key: str,
        name: str,
        summary: str,
        payload: Schema,
        headers: dict[str, bool],
        *,
        examples: list[Document],
        content_type: str = "application/json",
    ) -> Document:
        message: Document = {"name": name, "summary": summary, "contentType": content_type, "payload": payload}
        if headers:
            message["headers"] = {
                "type": "object",
                "properties": {header: HEADERS[header] for header in headers},
                **({"required": required} if (required := [name for name in headers if headers[name]]) else {}),
            }
        if examples:
            message["examples"] = examples
        self.messages[key] = message
        return {"$ref": f"#/components/messages/{key}"}


def _payload(message: Message) -> Document:
    return {"type": message.type, "data": message.data()}


def _examples(model: type[Message]) -> list[Document]:
    example = EXAMPLES.get(model)
    return [{"name": model.type, "payload": _payload(example)}] if example is not None else []


def _bare_examples(bare: BarePayload) -> list[Document]:
    if bare.model in BARE_EXAMPLES:
        example: object = BARE_EXAMPLES[bare.model].model_dump(mode="json", by_alias=True, exclude_unset=True)
    else:
        example = bare.example
    return [{"name": bare.name, "payload": example}] if example is not None else []


def _summary_of(model: type[Wire]) -> str:
    """Return the first paragraph of a model's docstring on one line."""
    return " ".join((model.__doc__ or model.__name__).strip().split("\n\n")[0].split())
