"""What we need of nats-py beyond its public face: a version that lacks it must not come in unnoticed."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from actors.runtime.broker.nats_client import DEAD_SECONDS, PING_SECONDS, PRIVATE, NatsClient
from actors.runtime.broker.refusals import Refusals
from tests.support import nats_faults

ROOT = Path(__file__).parents[4]
EXAMPLES: dict[str, object] = {
    "nats.aio.client.Client": Client(),
    "nats.aio.transport.TcpTransport": TcpTransport(),  # type: ignore[no-untyped-call]
    "nats.aio.subscription.Subscription": Subscription(Client()),
}
OTHERS = (Msg(Client()), Client().jetstream())
ALLOWED = {
    "actors/runtime/broker/nats_client.py",
    "tests/support/nats_faults.py",
    "tests/unit/runtime/broker/test_nats_client.py",
}
NEVER_OURS = {"_api_request", "_client", *(name for names in PRIVATE.values() for name in names)}
"""Names that are looked for everywhere; others may be attributes of our own classes, which tests look at."""


@pytest.mark.parametrize("name", PRIVATE)
def test_nats_py_has_the_private_attributes_that_we_need(name: str) -> None:
    example = EXAMPLES[name]
    assert type(example).__qualname__ == name.rpartition(".")[2]
    assert [attribute for attribute in PRIVATE[name] if not hasattr(example, attribute)] == []


def test_nats_py_has_the_private_attributes_that_the_integration_tests_need() -> None:
    assert [attribute for attribute in nats_faults.PRIVATE if not hasattr(Client(), attribute)] == []


def test_the_list_of_private_attributes_has_those_that_are_used_and_no_others() -> None:
    used = set(uses((ROOT / "actors/runtime/broker/nats_client.py").read_text(), own=False))
    assert used == {attribute for attributes in PRIVATE.values() for attribute in attributes}
    used = set(uses((ROOT / "tests/support/nats_faults.py").read_text(), own=False))
    assert used == set(nats_faults.PRIVATE)


def test_nats_py_is_pinned_to_the_minor_version_that_was_tried() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [name for name in dependencies if name.startswith("nats-py")] == ["nats-py~=2.16.0"]


def test_overridden_methods_are_called_by_nats_py() -> None:
    source = inspect.getsource(Client) + inspect.getsource(importlib.import_module("nats.protocol.parser"))
    overridden = {name for name in vars(NatsClient) if hasattr(Client, name) and re.match("_[a-z]", name)}
    assert overridden >= {"_process_pong", "_read_loop", "_flusher", "_ping_interval", "_connect_to_server"}
    for name in overridden:
        assert name in PRIVATE["nats.aio.client.Client"]
        assert f".{name}(" in source


@pytest.mark.parametrize(
    "block",
    [
        b"Nats-Subject: status.plan.P001\r\nNats-Sequence: 17\r\n\r\n",
        b"One:1\r\nTwo : \t2 \r\n Three: a: b\r\nEmpty:\r\n",
        b"Two words: 1\r\nno colon\r\n\r\nK\xc3\xbcche: 1\r\nLast: \xc3\xa9 \xff\r\n",
    ],
)
def test_headers_are_read_as_nats_py_reads_them(block: bytes) -> None:
    assert NatsClient._parse_header_lines(block) == Client._parse_header_lines(block) != {}


@functools.cache
def private_attributes() -> frozenset[str]:
    """Private attributes of the objects that nats-py gives us, without those that our own classes have as well."""
    objects = (*EXAMPLES.values(), *OTHERS)
    names = {name for example in objects for name in dir(example) if re.match("_[a-z]", name)}
    ours = {
        name
        for folder in ("actors", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in ALLOWED
        for name in definitions(ast.parse(path.read_text()))
    }
    return frozenset(names - (ours - NEVER_OURS))


def uses(source: str, *, own: bool = True) -> Iterator[str]:
    """Private attributes of nats-py in Python source; with `own`, not those that a class in it defines itself.

    Attribute access, methods that override, and names in `getattr`, `setattr` and the like.
    """
    tree = ast.parse(source)
    private = private_attributes() - (set(definitions(tree)) if own else set())
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if name in private:
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.FunctionDef(name=name) if name in private:
                yield name
            case ast.Call(func=called, args=[_, ast.Constant(value=name), *_]) if name in private:
                function = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                if function in ("getattr", "setattr", "delattr", "hasattr"):
                    yield str(name)


def definitions(tree: ast.AST) -> Iterator[str]:
    """Names that a module defines for itself: `self._name = …`, `_name: …`, functions and methods."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name


def test_no_other_module_uses_private_attributes_of_nats_py() -> None:
    paths = [path for folder in ("actors", "cli", "protocol", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 200
    offences = {
        place: names
        for path in paths
        if (place := path.relative_to(ROOT).as_posix()) not in ALLOWED and (names := set(uses(path.read_text())))
    }
    assert offences == {}


def test_every_way_to_use_a_private_attribute_is_found() -> None:
    assert set(uses("bus.client._subs; self._pongs; x()._send_ping(1)")) == {"_subs", "_pongs", "_send_ping"}
    assert set(uses('getattr(client, "_sid"); patch.setattr(client, "_transport", None)')) == {"_sid", "_transport"}
    assert set(uses("class A:\n    def f(self):\n        self._status = 1\n        return self._status")) == set()


def test_a_dead_connection_is_known_within_five_seconds() -> None:
    """It dies right after an answer: the next ping notices, by looks that are as far apart as pings."""
    assert PING_SECONDS + DEAD_SECONDS + PING_SECONDS < 5


async def test_a_pong_for_a_cancelled_ping_does_not_answer_later_pings() -> None:
    client = NatsClient(Refusals("test", None, "_INBOX"))
    loop = asyncio.get_running_loop()
    given_up, waiting = loop.create_future(), loop.create_future()
    client._pongs = [given_up, waiting]
    given_up.cancel()
    await client._process_pong()
    assert not waiting.done()
    await client._process_pong()
    assert waiting.result() is True
    await client._process_pong()  # one that nobody has asked for
