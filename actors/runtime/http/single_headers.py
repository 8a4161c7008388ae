"""Find repeated headers that a request may have only once (RFC 9110, 5.3): servers disagree about which one counts."""

from __future__ import annotations

from collections.abc import Iterable

SINGLE = frozenset(
    {
        *("host", "origin", "referer", "user-agent", "authorization", "content-length", "content-type", "range"),
        *("sec-websocket-key", "sec-websocket-version", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest"),
        *("if-modified-since", "if-unmodified-since", "if-range", "max-forwards", "from", "date"),
    }
)
"""Lists (`Connection`, `Sec-WebSocket-Protocol`, `X-Forwarded-For`, ...) may have several lines."""


def repeated(names: Iterable[str]) -> str | None:
    """Return the first header that is repeated and must not be; `None`: there is no such header."""
    earlier = set()
    for name in names:
        name = name.lower()
        if name in SINGLE:
            if name in earlier:
                return name
            earlier.add(name)
    return None
