"""Mask secrets in texts for people: log lines, tracebacks, last errors.

Tokens, `Authorization` headers and passwords are recognised by their form. The secrets that this process has read
(`hide`) are recognised literally.
"""

from __future__ import annotations

import re

MASK = "***"
SHORTEST_LITERAL = 8
"""Shorter secrets are recognised only by their form: masked literally, they would remove ordinary words."""

# A JWT, whole or cut off anywhere: its header is a JSON object, so it begins with `{"`. Or three long parts with dots.
_JWT = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
    r"|[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"
)
_BEARER = re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{16,}")
_HEADER = re.compile(
    r"(?i)(authorization['\":,\s]{1,6}(?:b['\"])?(?:(?:bearer|basic|digest|negotiate)\s+)?)[^\s'\",)\]]+"
)
_NAMES = r"(?:token|access_token|auth_token|password|passwd|pass|secret|nkey|seed|authorization)"
_MEMBER = re.compile(rf"(?i)(\\*[\"']{_NAMES}\\*[\"']\s*:\s*b?\\*[\"'])[^\"'\\]*")
_ASSIGNED = re.compile(rf"(?i)(\b{_NAMES}=b?[\"']?)[^\s&'\",;)]+")
# Up to the last `@` before the path: a password may hold one.
_URL = re.compile(r"(?<=://)([^\s/'\"<>]*)@")

_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Make `masked` remove this secret from every text, if it is long enough (`SHORTEST_LITERAL`)."""
    if len(secret) >= SHORTEST_LITERAL:
        _hidden.add(secret)


def masked(text: str) -> str:
    """Return the text with secrets replaced by `***`."""
    for secret in sorted(_hidden, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    text = _MEMBER.sub(rf"\1{MASK}", text)
    text = _JWT.sub(MASK, text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _HEADER.sub(rf"\1{MASK}", text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _URL.sub(_without_password, text)


def _without_password(match: re.Match[str]) -> str:
    """Mask the password of `user:password@`; without a colon it is a token (NATS), which is masked whole."""
    name, colon, _ = match[1].partition(":")
    return f"{name + ':' if colon else ''}{MASK}@"
