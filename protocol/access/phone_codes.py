"""Codes that a phone joins an examinee with: short enough to type, kept only as a keyed digest.

Eight of 31 characters are 40 bits: not to be guessed at the web server's rate limits within the minutes that a code
lives, but soon found from a bare hash by whoever reads the stream. So the digest is keyed with the token secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from protocol.ids import Id
from protocol.messages.base import Wire

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""No 0 and O, no 1, I and L: what looks alike is mistyped."""
LENGTH = 8
LONGEST_SECONDS = 900.0
"""A code lives as long as the mobile sync stage, and at most so long."""


class PhoneCode(Wire):
    """Whom a code is for, and until when their stage lasted when it was made."""

    plan_id: Id
    examinee_id: Id
    deadline: str


def new_code(choose: Callable[[Sequence[str]], str]) -> str:
    """A code; `choose` takes one of a sequence at random (`secrets.choice`)."""
    return "".join(choose(ALPHABET) for _ in range(LENGTH))


def normalise_code(typed: str) -> str | None:
    """A code as it was typed, without dashes and spaces, in capitals; `None` when it cannot be one."""
    code = "".join(typed.split()).replace("-", "").upper()
    return code if len(code) == LENGTH and all(one in ALPHABET for one in code) else None


def format_code(code: str) -> str:
    """`ABCDEFGH` as people read it: `ABCD-EFGH`."""
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def code_digest(code: str, secret: str) -> str:
    """What is kept of a code; the same for every web server with the same token secret. One subject token."""
    return hmac.new(secret.encode(), b"examwire phone code " + code.encode(), hashlib.sha256).hexdigest()
