"""The pool of processes that decode pictures, and its queues.

Pictures are decoded in order of arrival; callers bring one picture of an examinee at a time, so examinees take turns.
Costly pictures have their own queue: of several processes one is always free for ordinary pictures. A process that
exceeds its time is killed, and a new one is started for the next picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, cast

from actors.runtime.config.sections import MobileSyncSettings
from actors.runtime.config.settings import PREFIX
from actors.web_server.metrics import DECODERS_ENDED, PICTURES_WAITING
from actors.web_server.pictures.decoder_process import DecodeResult, Job
from actors.web_server.pictures.limits import DamagedPicture, NotAPicture, PictureTooLarge, UnsupportedPicture
from protocol.errors import ExamwireError

log = logging.getLogger("examwire.web")

MOST_WAITING = 5000
COSTLY = 600_000_000
"""Pixels times scans, 0.3 to 1 s: a progressive JPEG of 50 million pixels, or a PNG of 30 million."""
WALL_FACTOR = 6
"""A picture may take this many times its processor time by the clock, because other programs use the processor too."""
TRIES = 2
LARGE_BLOCK = 1024 * 1024
"""Bytes; blocks of memory from this size on go back to the kernel as soon as they are free."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)

ReadPicture = Callable[[], Awaitable[bytes]]


class DecodersBusy(ExamwireError):
    """The picture could not be checked now; try again later."""


class _Ended(Exception):
    """The process ended instead of answering. `code`: its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(_how(code))
        self.code = code


@dataclass(slots=True, eq=False)
class _Waiting:
    """A picture to be checked. `costly`: it exceeds `COSTLY`, as a process has found."""

    read: ReadPicture
    done: asyncio.Future[bytes | None]
    costly: bool = False


class PictureDecoders:
    """Checks pictures in processes that are started when they are needed. `close` ends them.

    Example::

        decoders = PictureDecoders(settings.mobile_sync)
        jpeg = await decoders.check(read)  # None: the bytes of `read` are the JPEG to keep
    """

    def __init__(self, settings: MobileSyncSettings) -> None:
        self._settings = settings
        self._ordinary: deque[_Waiting] = deque()
        self._costly: deque[_Waiting] = deque()
        self._at_work: dict[asyncio.Task[None], _Waiting] = {}
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []

    @property
    def pids(self) -> list[int]:
        """The ids of the running processes."""
        return [worker.pid for worker in self._workers]

    async def check(self, read: ReadPicture) -> bytes | None:
        """Check a picture. Return the JPEG to keep instead, or `None`. `read` is awaited when its turn comes.

        Raises `NotAPicture`, `PictureTooLarge`, `DecodersBusy`, and the errors of `read`.
        """
        if len(self._ordinary) + len(self._costly) >= MOST_WAITING:
            raise DecodersBusy("too many pictures wait to be checked")
        waiting = _Waiting(read, asyncio.get_running_loop().create_future())
        self._ordinary.append(waiting)
        self._begin_next()
        return await waiting.done  # cancelled with its caller; `_next` skips cancelled pictures

    async def close(self) -> None:
        """End the processes, busy ones too."""
        for waiting in (*self._ordinary, *self._costly):
            waiting.done.cancel()
        tasks = list(self._at_work)
        for task in tasks:
            task.cancel()
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*tasks, *(worker.ended() for worker in self._workers), return_exceptions=True)
        self._workers.clear()
        self._idle.clear()

    # -- the queues ----------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        while len(self._at_work) < self._settings.decoders and (waiting := self._next()) is not None:
            task = asyncio.create_task(self._take_turn(waiting), name="picture")
            self._at_work[task] = waiting
            task.add_done_callback(self._turn_ended)
        PICTURES_WAITING.set(len(self._ordinary) + len(self._costly))

    def _next(self) -> _Waiting | None:
        for queue in (self._ordinary, self._costly):
            while queue and queue[0].done.done():
                queue.popleft()
        # Of several processes, costly pictures get at least one and never all; with a single process they come last.
        several = self._settings.decoders > 1
        at_work = sum(waiting.costly for waiting in self._at_work.values())
        if self._costly and several and not at_work:
            return self._costly.popleft()
        if self._ordinary:
            return self._ordinary.popleft()
        if self._costly and at_work < max(1, self._settings.decoders - 1):
            return self._costly.popleft()
        return None

    async def _take_turn(self, waiting: _Waiting) -> None:
        try:
            answer, jpeg = await self._answer(waiting, await waiting.read())
        except asyncio.CancelledError:
            waiting.done.cancel()
            raise
        except Exception as error:  # raised in `check`
            if not waiting.done.done():
                waiting.done.set_exception(error)
            return
        if answer["outcome"] == "COSTLY":
            waiting.costly = True
            self._costly.append(waiting)
        elif not waiting.done.done():
            _settle(waiting.done, answer, jpeg)

    def _turn_ended(self, task: asyncio.Task[None]) -> None:
        del self._at_work[task]
        if not task.cancelled():
            self._begin_next()

    # -- asking a process ----------------------------------------------------------------------------

    async def _answer(self, waiting: _Waiting, content: bytes) -> tuple[DecodeResult, bytes]:
        settings = self._settings
        seconds = settings.decode_seconds
        job: Job = {
            "size": len(content),
            "seconds": seconds,
            "pixels": settings.max_pixels,
            "scans": settings.max_scans,
            "jpeg_bytes": settings.max_bytes,
            "cost": None if waiting.costly else COSTLY,
        }
        for attempt in range(1, TRIES + 1):
            worker = await self._worker(fresh=attempt > 1)
            try:
                async with asyncio.timeout(WALL_FACTOR * seconds):
                    return await worker.ask(job, content)
            except TimeoutError:
                DECODERS_ENDED.labels("too_slow").inc()
                log.warning("a picture was not decoded within %d s; its process is killed", WALL_FACTOR * seconds)
                raise DecodersBusy("checking the picture took too long") from None
            except _Ended as end:
                if end.code == -signal.SIGXCPU:
                    DECODERS_ENDED.labels("too_costly").inc()
                    log.warning("a picture took more than %d s of processor time to decode", seconds)
                    raise PictureTooLarge(f"it takes more than {seconds} s to decode") from None
                DECODERS_ENDED.labels("crashed").inc()
                log.warning("the process that decoded a picture ended with %s", end)
                if attempt == TRIES and -end.code in _CRASHES:
                    raise DamagedPicture("the decoder fails at it") from None
            finally:
                await self._give_back(worker)
        raise DecodersBusy("the picture could not be checked")

    async def _worker(self, *, fresh: bool) -> _Worker:
        while self._idle and not fresh:
            worker = self._idle.pop()
            if worker.running:
                return worker
            self._workers.discard(worker)
        worker = await _Worker.start(self._settings.decode_memory_bytes)
        self._workers.add(worker)
        return worker

    async def _give_back(self, worker: _Worker) -> None:
        """Return a process to the pool; end it when it still owes an answer."""
        if worker.ready:
            self._idle.append(worker)
            return
        worker.kill()
        self._workers.discard(worker)
        await worker.ended()


class _Worker:
    """One process (`actors.web_server.pictures.decoder_process`), which handles one job at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked = False

    @classmethod
    async def start(cls, memory: int) -> Self:
        """Start a process. Raises `DecodersBusy` when that is not possible now."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-P",
                    "-W",
                    "ignore",
                    "-m",
                    "actors.web_server.pictures.decoder_process",
                    str(memory),
                ),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C must reach only the role, which finishes the running pictures
            )
        except OSError as error:
            raise DecodersBusy(f"no process to decode pictures can be started: {error}") from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def ready(self) -> bool:
        """Whether it is running and owes no answer."""
        return self.running and not self._asked

    async def ask(self, job: Job, content: bytes) -> tuple[DecodeResult, bytes]:
        """Send a job and return the answer. Raises `_Ended` when the process ends instead."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._asked = True
        try:
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.write(content)
            await stdin.drain()
            answer = cast(DecodeResult, json.loads(await stdout.readuntil(b"\n")))
            jpeg = await stdout.readexactly(answer["size"])
        except (OSError, asyncio.IncompleteReadError):
            raise _Ended(await self._process.wait()) from None
        self._asked = False
        return answer, jpeg

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        await self._process.wait()


def _environment() -> dict[str, str]:
    """Return our environment without the settings, which hold secrets; glibc returns large blocks to the kernel."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**inherited, "MALLOC_MMAP_THRESHOLD_": str(LARGE_BLOCK)}


def _settle(done: asyncio.Future[bytes | None], answer: DecodeResult, jpeg: bytes) -> None:
    match answer["outcome"]:
        case "NOT_A_PICTURE":
            done.set_exception(NotAPicture(answer["detail"]))
        case "UNSUPPORTED":
            done.set_exception(UnsupportedPicture(answer["detail"]))
        case "DAMAGED":
            done.set_exception(DamagedPicture(answer["detail"]))
        case "TOO_LARGE":
            done.set_exception(PictureTooLarge(answer["detail"]))
        case "CONVERTED":
            done.set_result(jpeg)
        case _:
            done.set_result(None)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
