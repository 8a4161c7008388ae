"""Codes that pair a phone with an examinee: short enough to type, stored only as a keyed digest.

Eight of 31 characters are 40 bits. The web server's rate limits prevent guessing in the minutes that a code is valid.
A reader of the stream PHONE could find a code from its plain hash, so the digest is keyed with the token secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Literal

from protocol.ids import Id
from protocol.messages.base import Stored

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capitals without 0, O, 1, I and L, which look alike."""
LENGTH = 8
LONGEST_SECONDS = 900.0
"""A code is valid until the mobile sync stage ends, and at most this long."""


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
    """Return a typed code in capitals, without dashes and spaces; `None` when it cannot be a code."""
    code = "".join(typed.split()).replace("-", "").upper()
    return code if len(code) == LENGTH and all(character in ALPHABET for character in code) else None


def format_code(code: str) -> str:
    """Return a code as it is shown: `ABCD-EFGH` for `ABCDEFGH`."""
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def code_digest(code: str, secret: str) -> str:
    """Return the digest under which a code is stored: one subject token, equal on all servers of the same secret."""
    return hmac.new(secret.encode(), b"examwire phone code " + code.encode(), hashlib.sha256).hexdigest()
