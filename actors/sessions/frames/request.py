"""The request with which a client opens its WebSocket (RFC 6455, 4.1), as far as anybody here looks at it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Headers:
    """The headers of a request, by their names in any case. A header may have several lines.

    headers = Headers([("Host", "127.0.0.1"), ("Accept", "*/*")])
    headers.get("host")  # "127.0.0.1", the first line; `None`: there is none
    """

    __slots__ = ("_lines",)

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        self._lines: dict[str, list[str]] = {}
        for name, value in lines:
            name = name.lower()
            if name in self._lines:
                self._lines[name].append(value)
            else:
                self._lines[name] = [value]

    def get(self, name: str) -> str | None:
        """Return the first line of a header."""
        lines = self._lines.get(name.lower())
        return lines[0] if lines is not None else None

    def get_all(self, name: str) -> list[str]:
        """Return all lines of a header."""
        return self._lines.get(name.lower(), [])

    def lines(self) -> list[tuple[str, str]]:
        """Return all lines: those of one header together, the names in lower case."""
        return [(name, value) for name, values in self._lines.items() for value in values]

    def repeated(self) -> list[str]:
        """Return the names of the headers with several lines."""
        return [name for name, values in self._lines.items() if len(values) > 1]


class HandshakeRequest(NamedTuple):
    """A request. `path` includes the query; `protocol` is `HTTP/1.1` or `HTTP/1.0`."""

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"
