"""Codes that pair a phone with an examinee: short enough to type, stored only as a keyed digest.

Eight of 31 characters are 40 bits. The web server's rate limits prevent guessing in the minutes that a code is valid.
A reader of the stream PHONE could find a code from its plain hash, so the digest is keyed with the token secret.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

from protocol.ids import Id
from protocol.messages.base import Stored

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capitals without 0, O, 1, I and L, which look alike."""
LENGTH = 8
LONGEST_SECONDS = 900.0
"""A code is valid until the mobile sync stage ends, and at most this long."""

_LEADS = "R R S E E F A Q Q T T D W W C Z X V G"
_VOWELS = "K O I O J P U P H HK HO HL Y N NJ NP NL B M ML L"
_TAILS = "R R RT S SW SG E F FR FA FQ FT FX FV FG A Q QT T T D W C Z X V G"
_KEYS_OF_JAMO = {
    chr(first + place): keys
    for first, row in ((0x1100, _LEADS), (0x1161, _VOWELS), (0x11A8, _TAILS))
    for place, keys in enumerate(row.split())
}
"""The keys of the usual Korean keyboard (KS X 5002) for each consonant and vowel, in the order of Unicode."""


class PhoneCode(Stored):
    """The examinee of a code, and the deadline of the mobile sync stage at the time the code was made.

    `expiresAt`: when the code ends. `deviceId`: the device that has redeemed it, the only one that may do so again;
    empty when that did not say which it is.
    """

    plan_id: Id
    examinee_id: Id
    deadline: str
    expires_at: str | None = None
    device_id: Id | Literal[""] | None = None


def new_code(choose: Callable[[Sequence[str]], str]) -> str:
    """Return a new code; `choose` picks an element at random (`secrets.choice`)."""
    return "".join(choose(ALPHABET) for _ in range(LENGTH))


def normalise_code(typed: str) -> str | None:
    """Return a typed code in capitals, without dashes and spaces; `None` when it cannot be a code.

    Also what other keyboards make of the same keys: full-width letters, and Korean ones, also as syllables.
    `actors/pages/static/mobile/code.js` reads codes the same way.
    """
    keys = "".join(map(_keys_of, unicodedata.normalize("NFKD", typed)))
    return keys if len(keys) == LENGTH and all(key in ALPHABET for key in keys) else None


def _keys_of(character: str) -> str:
    """Return the keys that type a character; nothing for dashes, spaces and what is not seen."""
    if character in _KEYS_OF_JAMO:
        return _KEYS_OF_JAMO[character]
    is_word = unicodedata.category(character)[0] in "LMN" and character != "ー"  # the dash of a Japanese keyboard
    return character.upper() if is_word else ""


def format_code(code: str) -> str:
    """Return a code as it is shown: `ABCD-EFGH` for `ABCDEFGH`."""
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def code_digest(code: str, secret: str) -> str:
    """Return the digest under which a code is stored: one subject token, equal on all servers of the same secret."""
    return hmac.new(secret.encode(), b"examwire phone code " + code.encode(), hashlib.sha256).hexdigest()
