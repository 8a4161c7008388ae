"""Pair a phone with an examinee: the examinee's page shows a code (also as a QR code), the phone trades it for a token.

The stream PHONE holds a keyed digest of each code, so every web server knows all codes. A code is valid until the
mobile sync stage ends or the picture is there. The first device that redeems it may do so again, and no other one.
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
    OTHER_DEVICE,
    RETRY_AFTER,
    TOO_MANY_REQUESTS,
    USED_UP,
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
from protocol.errors import BrokerUnavailable, ErrorCode, WrongLastSequence
from protocol.ids import check_id
from protocol.messages.facts import MobileSyncCode
from protocol.times import format_time, parse_time

log = logging.getLogger("examwire.web")

CODES_A_MINUTE = 10
WRONG_A_SECOND, WRONG_AT_ONCE = 50, 1000
"""Wrong codes of all phones together, on one web server. docs/decisions.md says how far an attacker gets with them."""
LONGEST_WAIT = 10.0
"""Seconds that a code waits when these are used up; the phone's page waits 15 s for an answer."""
WRONG_SECONDS = 0.5
"""Seconds by which the answer to a wrong code is delayed."""
TOKEN_LASTS_ON = 3600.0
"""Seconds after the deadline: a proctor may extend the stage by that, and the phone needs no new token then."""

_OPEN = (MobileSyncCode.WAITING, MobileSyncCode.FAILED)


class PhoneCodes:
    """Makes codes for examinees, and issues tokens to phones for them.

    Example::

        codes = PhoneCodes(settings, bus, stages, verifier)
        routes = codes.routes()
    """

    def __init__(self, settings: Settings, bus: Bus, stages: MobileStages, verifier: TokenVerifier) -> None:
        self._settings = settings
        self._bus = bus
        self._stages = stages
        self._verifier = verifier
        # With only an issuer's public key, tokens of phones cannot be signed.
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
        record = PhoneCode(
            plan_id=plan_id,
            examinee_id=examinee_id,
            deadline=format_time(deadline),
            expires_at=format_time(now + lives),
        )
        try:
            await self._bus.publish(_stored_code(subjects.phone_code(code_digest(code, secret)), record, lives))
        except BrokerUnavailable as error:
            log.warning("plan %s, examinee %s: no phone code: %s", plan_id, examinee_id, error)
            raise _unavailable("the code could not be stored") from None
        url = f"{self._origin(request)}/phone#code={code}"
        answer = {
            "code": format_code(code),
            "url": url,
            "expiresAt": format_time(now + lives),
            "secondsLeft": lives,
            "qrSvg": qr_svg(url),
        }
        return JSONResponse(answer, 201, {"Cache-Control": "no-store"})

    def _open_until(self, stage: MobileStage, now: float) -> float:
        """Return the stage's deadline. Raises a 409 `Problem` when the stage does not wait for a phone."""
        if stage.status == MobileSyncCode.COMPLETED:
            raise Problem(409, NOT_WAITING, "the picture is already stored")
        if stage.status not in (*_OPEN, MobileSyncCode.TIMED_OUT):
            raise Problem(409, NOT_WAITING, "enter the mobile sync stage first")
        deadline = stage.deadline
        if stage.status == MobileSyncCode.TIMED_OUT or deadline is None or deadline - now < 1:
            raise Problem(409, ErrorCode.DEADLINE_PASSED, "the mobile sync has ended; enter it again")
        return deadline

    def _origin(self, request: Request) -> str:
        """Return the URL at which a phone reaches these pages: as configured, or that of this request."""
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
            host = lan[0]  # the page was opened on this machine, which the phone reaches by its LAN address
        return f"{scheme}://{in_url(host)}" + (f":{port}" if port is not None else "")

    # -- the phone's page ----------------------------------------------------------------------------

    async def redeem_code(self, request: Request) -> Response:
        """`POST /v1/phone-codes/{code}?deviceId`: 200 and a token of role mobile, for this device.

        403: the examinee was removed, 404: no such code, 409: another device has redeemed it, 410: the code has
        expired, or the picture is there; 429: too many wrong codes.
        Only wrong codes are delayed and counted: a whole hall of phones may have one address.
        """
        outcome = "FOUND"
        try:
            return await self._redeem(request)
        except Exception as error:
            outcome = problem_of(error).code
            raise
        finally:
            CODES.labels(outcome).inc()

    async def _redeem(self, request: Request) -> Response:
        secret = self._signing_secret()
        device_id = request.query_params.get("deviceId", "")
        if device_id:
            check_id("deviceId", device_id)
        stored = await self._look_up(request, secret)
        if stored is None:
            await asyncio.sleep(WRONG_SECONDS)
            detail = f"there is no such code; it has {LENGTH} letters and digits, and lives for some minutes"
            raise Problem(404, ErrorCode.NOT_FOUND, detail, field="code")
        over = Problem(410, EXPIRED, "this code has expired; use the new one on the examinee's page")
        if is_marker(stored.headers):
            raise over
        try:
            record = PhoneCode.model_validate_json(stored.payload)
            deadline = parse_time(record.deadline)
        except (pydantic.ValidationError, ValueError) as error:
            log.error("message %d of %s is not a phone code: %s", stored.sequence, PHONE.name, error)
            raise over from None
        # The stage may have been extended or entered anew; while Redis is unavailable, the code's deadline applies.
        stage = await self._stages.as_known(record.plan_id, record.examinee_id) or MobileStage()
        stage.refuse_removed()
        if stage.has_picture:
            raise Problem(410, USED_UP, "this code is used up: the picture is there")
        deadline = stage.deadline or deadline
        now = self._bus.clock.now()
        seconds_left = deadline - now
        if seconds_left <= 0:
            raise over
        await self._bind(stored, record, device_id)
        owner = (record.plan_id, record.examinee_id)
        token = issue_token(self._settings, "mobile", *owner, seconds=seconds_left + TOKEN_LASTS_ON, issued_at=now)
        answer = {
            "token": token,
            "planId": record.plan_id,
            "examineeId": record.examinee_id,
            "deadline": format_time(deadline),
            "secondsLeft": round(seconds_left, 3),
            **stage.asked(),
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def _bind(self, stored: StoredMessage, record: PhoneCode, device_id: str) -> None:
        """Bind a code to the device that redeems it. Raises a `Problem`: 409 when it is another's, 503."""
        if record.device_id is None:
            try:
                expires_at = parse_time(record.expires_at or record.deadline)
            except ValueError:
                expires_at = parse_time(record.deadline)
            lives = max(1, math.ceil(expires_at - self._bus.clock.now()))
            bound = record.model_copy(update={"device_id": device_id})
            try:
                await self._bus.publish(_stored_code(stored.subject, bound, lives, after=stored.sequence))
                return
            except WrongLastSequence:  # another device, or another try of this one, was quicker
                newest = await self._newest(stored.subject)
                if newest is None or is_marker(newest.headers):
                    raise Problem(410, EXPIRED, "this code has expired; use the new one") from None
                record = PhoneCode.model_validate_json(newest.payload)
            except BrokerUnavailable as error:
                log.warning("a phone code cannot be bound to its device: %s", error)
                raise _unavailable("the code cannot be redeemed") from None
        if record.device_id != device_id:
            detail = "another device has redeemed this code; use a new one of the examinee's page"
            raise Problem(409, OTHER_DEVICE, detail)

    async def _newest(self, subject: str) -> StoredMessage | None:
        try:
            return await self._bus.last_message(PHONE.name, subject)
        except BrokerUnavailable as error:
            log.warning("a phone code cannot be looked up: %s", error)
            raise _unavailable("the code cannot be looked up") from None

    async def _look_up(self, request: Request, secret: str) -> StoredMessage | None:
        """Look a code up in PHONE. Raises a `Problem`: 503, or 429 when too many wrong codes are tried."""
        code = normalise_code(request.path_params["code"])
        if code is None:
            return None  # not a possible code, so it is not a guess
        address = client_address(request, self._proxies)
        try:
            await self._guesses.turn(address)
        except TooManyGuesses as error:
            _refuse_for(error.seconds, "too many wrong codes are tried")
        try:
            stored = await self._newest(subjects.phone_code(code_digest(code, secret)))
        except BaseException:
            self._guesses.give_back()
            raise
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


def _stored_code(subject: str, record: PhoneCode, lives: int, *, after: int | None = None) -> Outgoing:
    """Return the message that keeps a code for `lives` seconds; with `after` only as successor of that sequence."""
    headers = {"Nats-TTL": f"{lives}s"}
    if after is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
    return Outgoing(subject, record.model_dump_json(by_alias=True, exclude_none=True).encode(), headers=headers)


def qr_svg(url: str) -> str:
    """Return the QR code of a URL as an SVG image, black on white with a quiet zone, without styles (for the CSP)."""
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
