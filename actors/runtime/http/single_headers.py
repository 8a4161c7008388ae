"""Headers that a request has once (RFC 9110, 5.3): two of them mean two things to two readers."""

from __future__ import annotations

from collections.abc import Iterable

SINGLE = frozenset(
    {
        *("host", "origin", "referer", "user-agent", "authorization", "content-length", "content-type", "range"),
        *("sec-websocket-key", "sec-websocket-version", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"),
        *("if-modified-since", "if-unmodified-since", "if-range", "max-forwards", "from", "date"),
    }
)
"""Lists (`Connection`, `Sec-WebSocket-Protocol`, `X-Forwarded-For`, ...) may come in several lines."""


def repeated(names: Iterable[str]) -> str | None:
    """The first header that comes twice and may not."""
    seen = set()
    for name in names:
        name = name.lower()
        if name in SINGLE:
            if name in seen:
                return name
            seen.add(name)
    return None
