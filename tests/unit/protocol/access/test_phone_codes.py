"""Phone codes as people type them, and who may try how often."""

from __future__ import annotations

import ipaddress
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.requests import Request

from actors.runtime.http.rate_limit import MOST_KEYS, RateLimit, client_address
from protocol.access.phone_codes import ALPHABET, LENGTH, PhoneCode, code_digest, format_code, new_code, normalise_code

SECRET = "0123456789-abcdefghij-ABCDEFGHIJ"


def test_a_code_has_no_similar_letters_and_is_read_however_it_is_typed() -> None:
    assert not set("0O1IL") & set(ALPHABET)
    assert len(set(ALPHABET)) == 31
    chance = random.Random(4)
    codes = {new_code(lambda letters: chance.choice(letters)) for _ in range(200)}
    assert len(codes) == 200
    for code in codes:
        assert len(code) == LENGTH
        for typed in (code, format_code(code), format_code(code).lower(), f" {code[:4]} {code[4:]} ", code.lower()):
            assert normalise_code(typed) == code


def test_a_code_is_understood_however_the_keyboard_is_switched() -> None:
    table = json.loads((Path(__file__).parents[3] / "support" / "typed_codes.json").read_text())
    for typed, understood in table["typed"].items():
        assert normalise_code(typed) == (table["code"] if understood else None), typed


def test_every_key_of_a_hangul_keyboard_is_its_letter() -> None:
    keys = "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ"
    letters = dict(zip(keys, "QWERTYUIOPASDFGHJKLZXCVBNM", strict=True))
    for key, letter in letters.items():
        if letter in ALPHABET:
            assert normalise_code(key * LENGTH) == letter * LENGTH
    # Two syllables whose vowels and ends are two keys each: ㄱ ㅗㅏ ㄱㅅ, ㅁ ㅜㅓ ㅂㅅ.
    assert normalise_code("과ㄳㅁㅁㅁ") == "RHKRTAAA"
    assert normalise_code("뭢ㄱㄱㄱ") == "ANJQTRRR"


@pytest.mark.parametrize("typed", ["ABCDEFGH2", "ABCDEFG0", "ABCDEFGI", "ABCD/FGH"])
def test_other_text_normalises_to_none(typed: str) -> None:
    assert normalise_code(typed) is None


def test_the_digest_of_a_code_depends_on_the_secret() -> None:
    digest = code_digest("ABCDEFGH", SECRET)
    assert digest == code_digest("ABCDEFGH", SECRET)
    assert digest not in (code_digest("ABCDEFGJ", SECRET), code_digest("ABCDEFGH", SECRET + "x"))
    assert digest.isalnum()  # one subject token


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_limit_counts_the_last_minute() -> None:
    clock = Clock()
    limit = RateLimit(3, 60.0, clock)
    for _ in range(3):
        assert limit.wait("a") == 0
        limit.count("a")
        clock.now += 10
    assert limit.wait("a") == 30
    assert limit.wait("b") == 0
    limit.count("a")  # tried all the same: it does not prolong the wait
    clock.now += 29.5
    assert limit.wait("a") == 1
    clock.now += 0.5
    assert limit.wait("a") == 0


def test_the_number_of_counted_keys_is_limited() -> None:
    clock = Clock()
    limit = RateLimit(1, 60.0, clock)
    for number in range(MOST_KEYS + 10):
        limit.count(str(number))
    assert len(limit._times) <= MOST_KEYS
    assert limit.wait(str(MOST_KEYS + 9)) > 0


def asked(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", address.encode()) for address in forwarded]
    return Request({"type": "http", "headers": headers, "client": (peer, 1234), "method": "GET", "path": "/"})


PROXIES: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = [
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", (), "192.0.2.7"),
        ("192.0.2.7", ("203.0.113.9",), "192.0.2.7"),  # nobody whom we trust says so
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1, 203.0.113.9, 10.0.0.2",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1", "203.0.113.9"), "203.0.113.9"),
        ("10.0.0.1", ("10.0.0.3",), "10.0.0.3"),
        ("10.0.0.1", ("nonsense",), "unknown"),
        ("2001:db8:1:2:3:4:5:6", (), "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", (), "192.0.2.7"),
        ("::1", ("2001:db8::1",), "2001:db8::/64"),
    ],
)
def test_the_address_of_a_client_behind_trusted_proxies(peer: str, forwarded: tuple[str, ...], address: str) -> None:
    assert client_address(asked(peer, *forwarded), PROXIES) == address


def test_a_code_keeps_the_fields_of_a_newer_release_when_a_device_redeems_it() -> None:
    stored = {"planId": "P001", "examineeId": "E001", "deadline": "2026-12-01T09:00:00.000Z", "tries": 3}
    bound = PhoneCode.model_validate(stored).model_copy(update={"device_id": "M001"})
    assert bound.model_dump(by_alias=True, exclude_none=True) == stored | {"deviceId": "M001"}
