"""Bodies of HTTP answers: compressed for who takes it, and not sent again to who has it (RFC 9110)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

GZIP_FROM = 512
"""Bytes; smaller bodies fit a packet anyway."""


@dataclass(frozen=True, slots=True)
class Body:
    """Content that stays as it is, ready to be sent. `packed`: gzipped, where that makes it smaller."""

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
        """200, or 304 when the client has it. `headers` beside ETag, Vary and Content-Encoding."""
        packed = self.packed is not None and takes_gzip(request)
        # Two representations, so two strong tags (RFC 9110, 8.8.3.3).
        tag = f'"{self.tag}-gzip"' if packed else f'"{self.tag}"'
        told = {**headers, "ETag": tag}
        if self.packed is not None:
            told["Vary"] = "Accept-Encoding"
        if _has(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=told)
        if packed:
            told["Content-Encoding"] = "gzip"
        return Response(self.packed if packed else self.content, headers=told, media_type=media_type)


async def fresh_answer(request: Request, content: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """An answer that nobody may keep, compressed for who takes it."""
    told = {**headers, "Cache-Control": "no-store", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if len(content) >= GZIP_FROM and takes_gzip(request):
        content = await asyncio.to_thread(_gzip, content)
        told["Content-Encoding"] = "gzip"
    return Response(content, headers=told, media_type=media_type)


def takes_gzip(request: Request) -> bool:
    """Whether Accept-Encoding allows gzip: by name or `*`, and not with a weight of nought."""
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
    known = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in known or tag in known


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
