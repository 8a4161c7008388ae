"""What earlier releases have to read: it changes with a new format only, or by what they may ignore."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from protocol.messages.base import FORMAT
from protocol.messages.facts import STATUS_MESSAGES
from tests.unit.protocol.records.stored_formats import RELEASED, Description, breaks, describe

WHAT_TO_DO = """
The release before this one reads the same log and the same records, during an upgrade and after a roll back.
It does not understand:
  {}
Raise FORMAT in protocol/messages/base.py (once between two releases), and let what is new say that it needs it:
a type by `format: ClassVar[int] = FORMAT`, a value or a state by `required_format`. Or add an optional field instead.
CONTRIBUTING.md, "Change what is stored", says how.
"""


@pytest.fixture(scope="module")
def released() -> Description:
    described: Description = json.loads(RELEASED.read_text())
    return described


def test_what_an_older_release_would_not_understand_has_a_new_format(released: Description) -> None:
    found = sorted(set(breaks(released, describe())))
    assert FORMAT in (released["format"], released["format"] + 1), "once between two releases is enough"
    assert not found or released["format"] < FORMAT, WHAT_TO_DO.format("\n  ".join(found))


def test_a_new_type_of_fact_says_that_it_needs_the_new_format(released: Description) -> None:
    formats = {model.type: model.format for model in STATUS_MESSAGES if model.type not in released["facts"]}
    assert set(formats.values()) <= {FORMAT}, WHAT_TO_DO.format(f"the formats of {formats}")


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("facts.asleep", {"required": [], "fields": {}, "format": 2}, "the fact asleep is new"),
        ("facts.enrol", None, "enrol (facts) is gone"),
        ("facts.enrol.fields.mood", '{"type": "string"}', None),
        ("facts.enrol.fields.name", '{"type": "string"}', "the fact enrol: name was"),
        ("facts.enrol.required", ["planId", "name"], "the fact enrol: name is required now"),
        ("parts.ClientInfo.fields.ipAddress", None, "ClientInfo: ipAddress was"),
        (
            "parts.FinishReason.values",
            ["HANDED_IN", "DECIDED", "PLAN_ENDED", "LEFT"],
            "FinishReason has a new value LEFT",
        ),
        ("states.ConnectionState.mood", "str | None = None", None),
        ("states.ConnectionState.mood", "str = (required)", "ConnectionState.mood is new and required"),
        ("states.ConnectionState.unstable_window", "int = 900", "ConnectionState.unstable_window was 'int = 600'"),
        ("states.Outage.seconds", None, "Outage.seconds was"),
        ("values.PlanStatusCode", ["SCHEDULED", "OPEN"], "PlanStatusCode has no value CLOSED any more"),
    ],
)
def test_what_an_older_release_may_ignore_is_told_apart_from_what_it_must_know(
    path: str, value: Any, found: str | None
) -> None:
    present = describe()
    changed = copy.deepcopy(present)
    *way, name = path.split(".")
    place = changed
    for step in way:
        place = place[step]
    if value is None:
        del place[name]
    else:
        place[name] = value
    told = list(breaks(present, changed))
    assert told[:1] == [] if found is None else told[0].startswith(found), told
