"""Shared parts of HTTP requests about an examinee: the token, the ids and the record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from starlette.requests import Request

from actors.runtime.config.tokens import TokenVerifier, bearer
from actors.runtime.store.state_store import StateStore
from actors.web_server.problems import RETRY_AFTER, Problem
from protocol.access.claims import Claims
from protocol.errors import ErrorCode, StateDamaged, StateUnavailable
from protocol.ids import ExamineeRef, check_id
from protocol.records import keys
from protocol.records.snapshot_rows import labels_of

log = logging.getLogger("examwire.web")
T = TypeVar("T")

REDIS_SECONDS = 2.0
EXAMINEES_A_READ = 1000


def claims_of(verifier: TokenVerifier, request: Request) -> Claims:
    """Return the claims of the token in the header. Raises `InvalidToken`."""
    return verifier.verify(bearer(request.headers.get("authorization")))


def ids_of(request: Request) -> ExamineeRef:
    """planId and examineeId of the address. Raises `InvalidField`."""
    return ExamineeRef(
        check_id("planId", request.path_params["plan_id"]),
        check_id("examineeId", request.path_params["examinee_id"]),
    )


async def recorded(plan_id: str, examinee_id: str, reading: Awaitable[T]) -> T:
    """Read fields of an examinee from Redis. Raises a 503 `Problem` when Redis cannot answer now."""
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            return await reading
    except (StateUnavailable, StateDamaged, TimeoutError) as error:
        log.warning("plan %s, examinee %s: the record cannot be read: %r", plan_id, examinee_id, error)
        detail = "what is recorded cannot be read now"
        raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=RETRY_AFTER) from None


async def within_limits(store: StateStore, claims: Claims, examinees: Sequence[str]) -> list[str]:
    """Return those of a plan's examinees whom a proctor may see: all, or those in the scope of the token.

    Raises a 503 `Problem` while Redis cannot say who that is.
    """
    scope = claims.limits
    if claims.role != "proctor" or scope is None:
        return list(examinees)
    within: list[str] = []
    for start in range(0, len(examinees), EXAMINEES_A_READ):
        names = examinees[start : start + EXAMINEES_A_READ]
        records = [keys.progress(claims.plan, name) for name in names]
        rows = await recorded(claims.plan, names[0], store.fields(records, ("labels",)))
        try:
            within += [name for name, (stored,) in zip(names, rows, strict=True) if scope.matches(labels_of(stored))]
        except ValueError as error:
            log.warning("plan %s: labels cannot be read: %s", claims.plan, error)
            detail = "what is recorded cannot be read now"
            raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=RETRY_AFTER) from None
    return within
