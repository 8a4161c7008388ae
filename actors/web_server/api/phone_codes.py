"""A phone joins an examinee: the examinee's page shows a code (and as a QR code), the phone gives it for a token.

The codes are in the stream PHONE, so any web server knows those of all; what is kept is a keyed digest. A code lives
until the mobile sync stage ends, and may be used more than once: phones open links in one browser and then another.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import secrets
from typing import Any
from urllib.parse import urlsplit

import pydantic
import segno
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.broker.stream_state import StoredMessage
from actors.runtime.config.local_addresses import LOOPBACK_NAMES, in_url, is_wildcard, lan_addresses
from actors.runtime.config.settings import Settings, signs_elsewhere, token_secret
from actors.runtime.config.tokens import TokenVerifier, issue_token
from actors.runtime.http.client_addresses import is_trusted, networks_of
from actors.runtime.http.rate_limit import RateLimit, client_address
from actors.web_server.api.guess_budget import GuessBudget, TooManyGuesses
from actors.web_server.api.mobile_stage import MobileStage, MobileStages
from actors.web_server.metrics import CODES
from actors.web_server.problems import (
    EXPIRED,
    NO_SECRET,
    NOT_WAITING,
    RETRY_AFTER,
    TOO_MANY_REQUESTS,
    Problem,
    problem_of,
)
from actors.web_server.requests import claims_of, ids_of
from protocol.access.phone_codes import (
    LENGTH,
    LONGEST_SECONDS,
    PhoneCode,
    code_digest,
    format_code,
    new_code,
    normalise_code,
)
from protocol.broker import subjects
from protocol.broker.streams import PHONE, is_marker
from protocol.errors import BrokerUnavailable, ErrorCode
from protocol.messages.facts import MobileSyncCode
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.web")

CODES_A_MINUTE = 10
WRONG_A_SECOND, WRONG_AT_ONCE = 50, 1000
"""Of all phones together, on one web server. docs/decisions.md says what a guesser comes to with them."""
LONGEST_WAIT = 10.0
"""Seconds for a turn when these are used up; the phone's page waits 15 s for an answer."""
WRONG_SECONDS = 0.5
"""How long the answer to a wrong code takes."""
TOKEN_LASTS_ON = 3600.0
"""Seconds after the deadline: a proctor may extend the stage by so much, and the phone should not have to ask anew."""

_OPEN = (MobileSyncCode.WAITING, MobileSyncCode.FAILED)


class PhoneCodes:
    """Makes codes for examinees, and gives phones tokens for them."""

    def __init__(self, settings: Settings, bus: Bus, stages: MobileStages, verifier: TokenVerifier) -> None:
        self._settings = settings
        self._bus = bus
        self._stages = stages
        self._verifier = verifier
        # With an issuer's public key only there is nothing that a phone's token could be signed with.
        self._secret = None if signs_elsewhere(settings) and settings.secret is None else token_secret(settings)
        self._proxies = networks_of(settings.web.trusted_proxies)
        self._made = RateLimit(CODES_A_MINUTE, 60.0)
        self._guesses = GuessBudget(WRONG_A_SECOND, WRONG_AT_ONCE, LONGEST_WAIT)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/plans/{plan_id:path}/examinees/{examinee_id:path}/phone-code", self.make_code, methods=["POST"]),
            Route("/v1/phone-codes/{code:path}", self.redeem_code, methods=["POST"]),
        ]

    # -- the examinee's page -------------------------------------------------------------------------

    async def make_code(self, request: Request) -> Response:
        """`POST /v1/plans/{planId}/examinees/{examineeId}/phone-code`, by the examinee: 201 and a code."""
        claims = claims_of(self._verifier, request)
        examinee = plan_id, examinee_id = ids_of(request)
        if not claims.may_pair_phone(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token does not allow to pair a phone with this examinee")
        secret = self._signing_secret()
        _refuse_for(self._made.wait(examinee), "too many codes were made for this examinee")
        now = self._bus.clock.now()
        stage = await self._stages.read(plan_id, examinee_id)
        stage.refuse_removed()
        deadline = self._open_until(stage, now)
        self._made.count(examinee)
        code = new_code(secrets.choice)
        lives = max(1, math.floor(min(deadline - now, LONGEST_SECONDS)))
        record = PhoneCode(plan_id=plan_id, examinee_id=examinee_id, deadline=format_time(deadline))
        payload = record.model_dump_json(by_alias=True).encode()
        subject = subjects.phone_code(code_digest(code, secret))
        try:
            await self._bus.publish(Outgoing(subject, payload, headers={"Nats-TTL": f"{lives}s"}))
        except BrokerUnavailable as error:
            log.warning("plan %s, examinee %s: no phone code: %s", plan_id, examinee_id, error)
            raise _unavailable("the code could not be stored") from None
        url = f"{self._origin(request)}/phone#code={code}"
        told = {
            "code": format_code(code),
            "url": url,
            "expiresAt": format_time(now + lives),
            "secondsLeft": lives,
            "qrSvg": qr_svg(url),
        }
        return JSONResponse(told, 201, {"Cache-Control": "no-store"})

    def _open_until(self, stage: MobileStage, now: float) -> float:
        """The stage's deadline. Raises 409 when no phone is being waited for."""
        if stage.status == MobileSyncCode.COMPLETED:
            raise Problem(409, NOT_WAITING, "the picture is there already")
        if stage.status not in (*_OPEN, MobileSyncCode.TIMED_OUT):
            raise Problem(409, NOT_WAITING, "enter the mobile sync stage first: nobody waits for a phone")
        deadline = stage.deadline
        if stage.status == MobileSyncCode.TIMED_OUT or deadline is None or deadline - now < 1:
            raise Problem(409, ErrorCode.DEADLINE_PASSED, "the mobile sync has ended; enter it again")
        return deadline

    def _origin(self, request: Request) -> str:
        """Where a phone reaches these pages: as it is set, else where this request came to."""
        web = self._settings.web
        if web.public_url is not None:
            return web.public_url.rstrip("/")
        scheme = request.url.scheme
        if request.client is not None and is_trusted(request.client.host, self._proxies):
            forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        try:
            parts = urlsplit(f"//{request.headers.get('host', '')}")
            host, port = parts.hostname or "localhost", parts.port
        except ValueError:
            host, port = "localhost", None
        if host in LOOPBACK_NAMES and is_wildcard(web.host) and (lan := lan_addresses()):
            host = lan[0]  # the page was opened on this very machine; the phone is another one
        return f"{scheme}://{in_url(host)}" + (f":{port}" if port is not None else "")

    # -- the phone's page ----------------------------------------------------------------------------

    async def redeem_code(self, request: Request) -> Response:
        """`POST /v1/phone-codes/{code}`: 200 and a token of role mobile.

        403: the examinee was removed, 404: no such code, 410: it is over, 429: too many wrong ones are tried.
        Only wrong codes are delayed and counted: a whole hall of phones may have one address.
        """
        outcome = "FOUND"
        try:
            return await self._redeemed(request)
        except Exception as error:
            outcome = problem_of(error).code
            raise
        finally:
            CODES.labels(outcome).inc()

    async def _redeemed(self, request: Request) -> Response:
        secret = self._signing_secret()
        stored = await self._looked_up(request, secret)
        if stored is None:
            await asyncio.sleep(WRONG_SECONDS)
            detail = f"there is no such code; it has {LENGTH} letters and digits, and lives for some minutes"
            raise Problem(404, ErrorCode.NOT_FOUND, detail, field="code")
        over = Problem(410, EXPIRED, "this code is over; take the new one that the examinee's page shows")
        if is_marker(stored.headers):
            raise over
        try:
            record = PhoneCode.model_validate_json(stored.payload)
            deadline = parse_time(record.deadline)
        except (pydantic.ValidationError, ValueError) as error:
            log.error("message %d of %s is no phone code: %s", stored.sequence, PHONE.name, error)
            raise over from None
        # It may have been extended meanwhile, or entered anew; while nobody knows, it is as it was.
        stage = await self._stages.as_known(record.plan_id, record.examinee_id) or MobileStage()
        stage.refuse_removed()
        deadline = stage.deadline or deadline
        now = self._bus.clock.now()
        left = deadline - now
        if left <= 0:
            raise over
        owner = (record.plan_id, record.examinee_id)
        token = issue_token(self._settings, "mobile", *owner, seconds=left + TOKEN_LASTS_ON, issued_at=now)
        told = {
            "token": token,
            "planId": record.plan_id,
            "examineeId": record.examinee_id,
            "deadline": format_time(deadline),
            "secondsLeft": round(left, 3),
        }
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def _looked_up(self, request: Request, secret: str) -> StoredMessage | None:
        """What is kept of the code. Raises a `Problem`: 503, or 429 when its turn would not come soon."""
        code = normalise_code(request.path_params["code"])
        if code is None:
            return None  # nothing was guessed by it
        address = client_address(request, self._proxies)
        try:
            await self._guesses.turn(address)
        except TooManyGuesses as error:
            _refuse_for(error.seconds, "too many wrong codes are tried")
        try:
            stored = await self._bus.last_message(PHONE.name, subjects.phone_code(code_digest(code, secret)))
        except BaseException as error:
            self._guesses.give_back()
            if not isinstance(error, BrokerUnavailable):
                raise
            log.warning("a phone code cannot be looked up: %s", error)
            raise _unavailable("the code cannot be looked up") from None
        if stored is None:
            self._guesses.wrong(address)
        else:
            self._guesses.give_back()
        return stored

    # -- both ----------------------------------------------------------------------------------------

    def _signing_secret(self) -> str:
        if self._secret is None:
            detail = (
                "phones cannot join by a code here: tokens come from an issuer, and no secret is configured to sign "
                "those of phones; upload the picture with the examinee's own token instead"
            )
            raise Problem(501, NO_SECRET, detail)
        return self._secret


def qr_svg(url: str) -> str:
    """The QR code of an address as an SVG image, black on white with its quiet zone; no styles, for CSP's sake."""
    target = io.BytesIO()
    options: dict[str, Any] = {"xmldecl": False, "svgclass": None, "lineclass": None, "omitsize": True, "nl": False}
    segno.make(url, error="m", micro=False).save(target, kind="svg", dark="#000", light="#fff", border=4, **options)
    return target.getvalue().decode()


def _refuse_for(seconds: int, why: str) -> None:
    if seconds:
        detail = f"{why}; wait {seconds} s"
        raise Problem(429, TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(seconds)})


def _unavailable(what: str) -> Problem:
    return Problem(503, ErrorCode.UNAVAILABLE, f"{what} now", headers=RETRY_AFTER)
