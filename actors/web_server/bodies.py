"""Bodies of HTTP answers: gzip by Accept-Encoding, and 304 by ETag (RFC 9110).

Starlette's middleware is not used: it compresses at each request what is compressed here once at the start, gives the
same strong ETag to both encodings, and sends gzip to a client that refuses it with `gzip;q=0`.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

GZIP_FROM = 512
"""Bytes; a smaller body fits into one packet."""


@dataclass(frozen=True, slots=True)
class Body:
    """Content that does not change. `packed`: the same in gzip, where that is smaller. `tag`: its ETag."""

    content: bytes
    packed: bytes | None
    tag: str

    @classmethod
    def of(cls, content: bytes, *, text: bool) -> Body:
        packed = _gzip(content) if text and len(content) >= GZIP_FROM else None
        if packed is not None and len(packed) >= len(content):
            packed = None
        return cls(content, packed, hashlib.sha256(content).hexdigest()[:32])

    def answer(self, request: Request, media_type: str, headers: Mapping[str, str]) -> Response:
        """Answer 200, or 304 when the client has the content. `headers` get ETag, Vary and Content-Encoding."""
        packed = self.packed is not None and takes_gzip(request)
        # Two representations, so two strong tags (RFC 9110, 8.8.3.3).
        tag = f'"{self.tag}-gzip"' if packed else f'"{self.tag}"'
        answer_headers = {**headers, "ETag": tag}
        if self.packed is not None:
            answer_headers["Vary"] = "Accept-Encoding"
        if _has(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=answer_headers)
        if packed:
            answer_headers["Content-Encoding"] = "gzip"
        return Response(self.packed if packed else self.content, headers=answer_headers, media_type=media_type)


async def fresh_answer(request: Request, content: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """Answer with content that must not be cached, in gzip when the client accepts it."""
    answer_headers = {
        **headers,
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if len(content) >= GZIP_FROM and takes_gzip(request):
        content = await asyncio.to_thread(_gzip, content)
        answer_headers["Content-Encoding"] = "gzip"
    return Response(content, headers=answer_headers, media_type=media_type)


def takes_gzip(request: Request) -> bool:
    """Return whether Accept-Encoding allows gzip: by name or by `*`, with a weight above 0."""
    weights: dict[str, float] = {}
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        try:
            weights[coding.strip().lower()] = float(weight.partition("=")[2]) if weight.strip() else 1.0
        except ValueError:
            weights[coding.strip().lower()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _has(if_none_match: str | None, tag: str) -> bool:
    if if_none_match is None:
        return False
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in known or tag in known


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
