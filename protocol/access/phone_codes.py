"""Codes with which a phone joins an examinee: short enough to type, stored only as a keyed digest.

Eight of 31 characters are 40 bits. The web server's rate limits make guessing hopeless in the minutes that a code
lives, but a reader of the stream could find it from a plain hash. So the digest is keyed with the token secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from protocol.ids import Id
from protocol.messages.base import Wire

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Without 0, O, 1, I and L, which look alike."""
LENGTH = 8
LONGEST_SECONDS = 900.0
"""A code lives as long as the mobile sync stage, and at most so long."""


class PhoneCode(Wire):
    """Whom a code is for, and until when their stage lasted when it was made."""

    plan_id: Id
    examinee_id: Id
    deadline: str


def new_code(choose: Callable[[Sequence[str]], str]) -> str:
    """Return a new code; `choose` picks an element at random (`secrets.choice`)."""
    return "".join(choose(ALPHABET) for _ in range(LENGTH))


def normalise_code(typed: str) -> str | None:
    """Return a typed code without dashes and spaces, in capitals; `None`: it cannot be a code."""
    code = "".join(typed.split()).replace("-", "").upper()
    return code if len(code) == LENGTH and all(character in ALPHABET for character in code) else None


def format_code(code: str) -> str:
    """Return `ABCDEFGH` as people read it: `ABCD-EFGH`."""
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def code_digest(code: str, secret: str) -> str:
    """Return the stored digest of a code: one subject token, the same for all web servers with the same secret."""
    return hmac.new(secret.encode(), b"examwire phone code " + code.encode(), hashlib.sha256).hexdigest()
