"""Redis keys are taken apart where they are made."""

from __future__ import annotations

import pytest

from protocol.ids import ExamineeRef, RecordRef
from protocol.records import keys
from protocol.records.keys import SocketEntry, parse_key


@pytest.mark.parametrize(
    ("key", "record"),
    [
        (keys.progress("P001", "E001"), ("connection", "P001", "E001", "")),
        (keys.mobile_sync("P001", "E001"), ("mobile_sync", "P001", "E001", "")),
        (keys.notices("P001", "E001"), ("notices", "P001", "E001", "")),
        (keys.socket("P001", "SOCK001-a"), ("socket", "P001", "", "")),
        (keys.plan_examinees("P001"), ("plan_examinees", "P001", "", "")),
        (keys.server_status("SOCK001"), ("server", "", "", "SOCK001")),
        (keys.server_sockets("SOCK001"), ("server_sockets", "", "", "SOCK001")),
        (keys.PLANS, ("index", "", "", "")),
        (keys.SERVERS, ("index", "", "", "")),
        (keys.STATE, ("other", "", "", "")),
        (keys.plan("P001"), ("plan", "P001", "", "")),
        (keys.plan_notices("P001"), ("plan_notices", "P001", "", "")),
        ("plan:P001:other", ("other", "", "", "")),
    ],
)
def test_a_key_says_what_it_holds(key: str, record: tuple[str, str, str, str]) -> None:
    assert parse_key(key) == (key, *record)


def test_a_record_names_its_examinee() -> None:
    assert RecordRef("k", "connection", "P001", "E001").examinee == ExamineeRef("P001", "E001")


@pytest.mark.parametrize(
    ("incarnation", "text"), [("i1", "P001 E001 i1"), (None, "P001 E001 ")], ids=["of a process", "of any process"]
)
def test_an_entry_of_a_servers_sockets_is_read_as_it_was_written(incarnation: str | None, text: str) -> None:
    entry = SocketEntry(ExamineeRef("P001", "E001"), incarnation)
    assert entry.encode() == text
    assert SocketEntry.decode(text) == entry


def test_an_entry_of_another_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="unpack"):
        SocketEntry.decode("P001")
