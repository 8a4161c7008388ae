"""Handle the upload of a phone's picture (docs/architecture.md, "An upload, step by step").

The steps are token, ids, removal, deadline, bytes, quota, picture, file, announcement; each has its own refusal.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import pydantic
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.sections import MobileSyncSettings
from actors.runtime.http.rate_limit import RateLimit
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry import spans
from actors.web_server.api.mobile_stage import MobileStage, MobileStages
from actors.web_server.pictures.decoders import DecodersBusy, PictureDecoders
from actors.web_server.pictures.incoming import Incoming, StoreFailed
from actors.web_server.pictures.limits import NotAPicture, PictureTooLarge
from actors.web_server.pictures.store import FILE_NAME, PictureStore
from actors.web_server.pictures.verdicts import PictureVerdicts
from actors.web_server.problems import TOO_MANY_REQUESTS, UPLOAD_STALLED, Problem, problem_of
from actors.web_server.requests import ids_of
from protocol.access.claims import Claims
from protocol.broker import subjects
from protocol.broker.streams import STATUS
from protocol.errors import BrokerUnavailable, ErrorCode, InvalidField
from protocol.ids import ExamineeRef, check_id
from protocol.messages.facts import (
    STATUS_CODEC,
    CaptureInfo,
    DeviceInfo,
    MobileSyncCode,
    MobileSyncReason,
    MobileSyncStatus,
)
from protocol.texts import clean_line
from protocol.times import format_time

log = logging.getLogger("examwire.web")

BEST_EFFORT_SECONDS = 1.0
WRITE_BYTES = 256 * 1024
UPLOADS_AT_ONCE = 8
"""Concurrent uploads of one examinee: a phone without a network uploads again before its first upload has timed out."""
UPLOADS_AT_ONCE_WAIT = 5
BUSY_RETRY_AFTER = {"Retry-After": "10"}
UPLOADS_A_MINUTE = 120
"""Uploads of one examinee per minute, including retries; a new picture also counts as one of `pictures_per_minute`."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The examinee and the device of an upload.

    Example::

        upload = Upload("P001", "E001", "phone-1", DeviceInfo(model="Pixel 9"))
    """

    plan_id: str
    examinee_id: str
    device_id: str
    device_info: DeviceInfo

    @property
    def examinee(self) -> ExamineeRef:
        """The examinee of the picture."""
        return ExamineeRef(self.plan_id, self.examinee_id)

    def about(self) -> dict[str, str]:
        """Return the fields for log lines."""
        return {"plan": self.plan_id, "examinee": self.examinee_id}

    def message_id(self, stage: MobileStage, what: str, capture_id: str) -> str:
        """Return the id of the message: equal for a retry, so that it has one effect, and different for a new try.

        The `deadline` identifies the stage: it stays through WAITING, FAILED, TIMED_OUT and COMPLETED, and changes when
        the stage is entered again, or opened again because a proctor has rejected the picture.
        """
        owner = (self.plan_id, self.examinee_id, self.device_id)
        parts = (*owner, what, capture_id, stage.record.get("deadline", ""))
        return "mobile-sync-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


class MobileUploads:
    """Handles uploads. An upload ends with 408 after `stall_seconds` without `stall_bytes`, or after `upload_seconds`.

    Example::

        uploads = MobileUploads(settings.mobile_sync, bus, store, pictures, stages)
        response = await uploads.take(claims, request)
    """

    stall_seconds: ClassVar[float] = 20.0
    stall_bytes: ClassVar[int] = 16 * 1024
    upload_seconds: ClassVar[float] = 300.0

    def __init__(
        self,
        settings: MobileSyncSettings,
        bus: Bus,
        store: StateStore,
        pictures: PictureStore,
        stages: MobileStages,
    ) -> None:
        self.settings = settings
        self.bus = bus
        self.store = store
        self._stages = stages
        self.pictures = pictures
        self.decoders = PictureDecoders(settings)
        self._verdicts = PictureVerdicts()
        self._at_once: Counter[ExamineeRef] = Counter()
        self._uploads = RateLimit(UPLOADS_A_MINUTE, 60.0)
        self._new_pictures = RateLimit(settings.pictures_per_minute, 60.0)
        self._turns: WeakValueDictionary[ExamineeRef, asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        """End the processes that decode pictures."""
        await self.decoders.close()

    async def take(self, claims: Claims, request: Request) -> Response:
        """Handle an upload. Return 201 and the stored record once it is durably announced.

        Raises `InvalidField`, `Problem`, `PictureTooLarge`, `NotAPicture`, `StoreFailed`, `BrokerUnavailable`, and
        Starlette's `ClientDisconnect`.
        """
        plan_id, examinee_id = ids_of(request)
        if not claims.may_upload_for(plan_id, examinee_id):
            raise Problem(403, ErrorCode.FORBIDDEN, "the token does not allow uploads for this examinee")
        upload = Upload(plan_id, examinee_id, *_device(request))
        if self._at_once[upload.examinee] >= UPLOADS_AT_ONCE:
            raise _too_many("uploads of this examinee are under way", UPLOADS_AT_ONCE_WAIT)
        if seconds := self._uploads.wait(upload.examinee):
            raise _too_many("uploads came for this examinee", seconds)
        self._uploads.count(upload.examinee)
        self._at_once[upload.examinee] += 1
        try:
            stored = await self._process(upload, request)
        finally:
            self._at_once[upload.examinee] -= 1
            if not self._at_once[upload.examinee]:
                del self._at_once[upload.examinee]
        location = f"/v1/plans/{plan_id}/captures/{examinee_id}/{FILE_NAME}"
        return JSONResponse(_record(stored), 201, {"Location": location, "Cache-Control": "no-store"})

    async def _process(self, upload: Upload, request: Request) -> MobileSyncStatus:
        """Receive, check, store and announce a picture. Return the message in the log."""
        # While Redis is unavailable, phones are still accepted: the log decides later.
        stage = await self._stages.as_known(upload.plan_id, upload.examinee_id) or MobileStage()
        stage.refuse_removed()
        # TIMED_OUT is published by the broker's timer; our estimate of its clock may be some milliseconds behind.
        if stage.status == MobileSyncCode.TIMED_OUT or stage.over(self.bus.clock.now()):
            raise _late(stage)
        incoming: Incoming | None = None
        try:
            self._check_size(int(request.headers.get("content-length", "0")))
            incoming = await self.pictures.begin(upload.plan_id, upload.examinee_id)
            await self._receive(request, incoming)
            return await self._accept(upload, stage, incoming, self.bus.clock.now())
        except (NotAPicture, PictureTooLarge) as error:
            log.info("upload refused: %s", error, extra=upload.about())
            await self._announce_failure(upload, stage, problem_of(error).code, incoming)
            raise
        except StoreFailed as error:
            log.error("capture not stored: %s", error, extra=upload.about())
            await self._announce_failure(upload, stage, MobileSyncReason.IMAGE_STORE_FAILED, incoming)
            raise
        finally:
            if incoming is not None:
                incoming.discard()

    async def _receive(self, request: Request, incoming: Incoming) -> None:
        """Write the body to the temporary file. Its size is checked here, because Content-Length may be missing."""
        body = request.stream()
        received = 0
        pending = bytearray()
        started = time.monotonic()
        recently, began = 0, started
        while True:
            ends = min(began + self.stall_seconds, started + self.upload_seconds)
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    chunk = await anext(body, None)
            except TimeoutError:
                raise Problem(408, UPLOAD_STALLED, "the upload stopped; send it again") from None
            if chunk is not None:
                received += len(chunk)
                recently += len(chunk)
                if recently >= self.stall_bytes:
                    recently, began = 0, time.monotonic()
                self._check_size(received)
                pending += chunk
            if pending and (chunk is None or len(pending) >= WRITE_BYTES):
                await self.pictures.in_thread(incoming.write, bytes(pending))
                pending.clear()
            if chunk is None:
                return

    def _check_size(self, size: int) -> None:
        if size > self.settings.max_bytes:
            raise PictureTooLarge(f"more than {self.settings.max_bytes} bytes")

    async def _accept(
        self, upload: Upload, stage: MobileStage, incoming: Incoming, received_at: float
    ) -> MobileSyncStatus:
        """Check, store and announce the received picture. Return the message in the log."""
        # One picture of an examinee at a time, so that examinees take turns, and the picture stored last is announced
        # last. Among several web servers the log decides which one counts (`actors.web_server.pictures.store`).
        async with self._turns.setdefault(upload.examinee, asyncio.Lock()):
            stage.refuse_unasked(incoming.capture_id)
            await self._check(upload, incoming)
            stage = await self._stages.as_known(upload.plan_id, upload.examinee_id) or stage
            stage.refuse_removed()
            stage.refuse_unasked(incoming.capture_id)
            if stage.over(received_at):  # by its arrival, not by the time that decoding took
                raise _late(stage)
            await self.pictures.commit(incoming)
            return await self._announce(upload, stage, incoming.capture_id, received_at)

    async def _check(self, upload: Upload, incoming: Incoming) -> None:
        """Decode the picture, unless its result is known, and convert it into the JPEG to keep.

        Raises `NotAPicture`, `PictureTooLarge`, `StoreFailed`, and a `Problem` (429, 503).
        """
        picture = incoming.capture_id
        if self._verdicts.sound(picture):
            return
        if self._verdicts.converted(picture) and (stored := await self._read_stored(upload, picture)) is not None:
            await self.pictures.in_thread(incoming.replace, stored)
            return
        if seconds := self._new_pictures.wait(upload.examinee):
            raise _too_many("new pictures came for this examinee", seconds)
        self._new_pictures.count(upload.examinee)
        try:
            jpeg = await self.decoders.check(lambda: self.pictures.in_thread(incoming.content))
        except (NotAPicture, PictureTooLarge) as error:
            self._verdicts.refused(picture, error)
            raise
        except DecodersBusy as error:
            detail = f"{error}; send it again"
            raise Problem(503, ErrorCode.UNAVAILABLE, detail, headers=BUSY_RETRY_AFTER) from None
        self._verdicts.accepted(picture, converted=jpeg is not None)
        if jpeg is not None:
            await self.pictures.in_thread(incoming.replace, jpeg)

    async def _read_stored(self, upload: Upload, capture_id: str) -> bytes | None:
        """Read a picture of the examinee that was stored before; `None` when it cannot be read."""
        try:
            return await self.pictures.read(upload.plan_id, upload.examinee_id, capture_id)
        except (StoreFailed, BrokerUnavailable):
            return None

    async def _announce(
        self, upload: Upload, stage: MobileStage, capture_id: str, received_at: float
    ) -> MobileSyncStatus:
        """Publish COMPLETED and return it; for a retry return the first message. Raises `BrokerUnavailable`."""
        image_url = f"/captures/{upload.examinee_id}/{FILE_NAME}"
        status = MobileSyncStatus(
            plan_id=upload.plan_id,
            examinee_id=upload.examinee_id,
            device_id=upload.device_id,
            status=MobileSyncCode.COMPLETED,
            timestamp=format_time(self.bus.clock.now()),
            capture_info=CaptureInfo(
                image_url=image_url, device_info=upload.device_info, received_at=format_time(received_at)
            ),
            capture_id=capture_id,
        )
        message_id = upload.message_id(stage, status.status, capture_id)
        status.traceparent = spans.current_upload()
        span = spans.start_publish(status)
        outgoing = Outgoing.of(
            subjects.status_plan(upload.plan_id, subjects.WEB),
            status,
            message_id=message_id,
            headers=spans.header_of(status),
        )
        try:
            ack = await self.bus.publish(outgoing)
        finally:
            if span is not None:
                span.end()
        if ack.duplicate and (first := await self.bus.message_at(STATUS.name, ack.sequence)) is not None:
            message = STATUS_CODEC.decode_one(first.payload)
            assert isinstance(message, MobileSyncStatus)
            return message
        return status

    async def _announce_failure(
        self, upload: Upload, stage: MobileStage, reason: str, incoming: Incoming | None
    ) -> None:
        """Try to publish FAILED for at most `BEST_EFFORT_SECONDS`; the phone's answer must not wait longer for it."""
        status = MobileSyncStatus(
            plan_id=upload.plan_id,
            examinee_id=upload.examinee_id,
            device_id=upload.device_id,
            status=MobileSyncCode.FAILED,
            timestamp=format_time(self.bus.clock.now()),
            reason=reason,
        )
        status.traceparent = spans.current_upload()
        message_id = upload.message_id(stage, reason, incoming.capture_id if incoming is not None else "")
        outgoing = Outgoing.of(subjects.status_plan(upload.plan_id, subjects.WEB), status, message_id=message_id)
        try:
            await self.bus.publish(outgoing, BEST_EFFORT_SECONDS)
        except BrokerUnavailable as error:
            log.warning("%s not announced: %s", reason, error, extra={**upload.about(), "reason": reason})


def _device(request: Request) -> tuple[str, DeviceInfo]:
    query = request.query_params
    if "deviceId" not in query:
        raise InvalidField("deviceId", "is missing from the query")
    device_id = check_id("deviceId", query["deviceId"])
    try:
        fields = {name: clean_line(value) for name, value in query.items()}
        return device_id, DeviceInfo.model_validate(fields, extra="ignore")
    except pydantic.ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        raise InvalidField(str(detail["loc"][0]), detail["msg"]) from None


def _too_many(what: str, seconds: int) -> Problem:
    detail = f"too many {what}; wait {seconds} s"
    return Problem(429, TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(seconds)})


def _late(stage: MobileStage) -> Problem:
    ended = stage.record.get("deadline") or "its deadline"
    detail = f"the mobile sync ended at {ended}; have the examinee enter it again"
    return Problem(409, ErrorCode.DEADLINE_PASSED, detail)


def _record(stored: MobileSyncStatus) -> dict[str, Any]:
    """Return the record of a stored picture (protocol.md, mobile sync), with the `captureId`."""
    assert stored.capture_info is not None
    return {
        "status": stored.status.value,
        "deviceId": stored.device_id,
        "timestamp": stored.timestamp,
        **stored.capture_info.model_dump(by_alias=True, exclude_none=True, exclude={"received_at"}),
        "captureId": stored.capture_id,
    }
