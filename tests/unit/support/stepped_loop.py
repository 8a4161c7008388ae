"""An event loop that a test drives by hand: code runs until it touches the world (`pause`), and goes on when told to.

Each simulated process has a loop of its own, so that it can die at any step: its tasks are dropped as they are. Time
stands still, and jumps to the next timer when a test lets it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from types import CoroutineType
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Position = tuple[tuple[str, int], ...]
"""Where a task waits: the functions and lines from its coroutine inwards."""

current_job: ContextVar[object] = ContextVar("current_job")
"""What the running code works on; tasks inherit it from the code that starts them."""


class SteppedLoop(asyncio.AbstractEventLoop):
    """Just enough of an event loop for tasks, futures, locks and timers.

    Example::

        loop = SteppedLoop()
        task = loop.start(store.load(["key"]), job="load")
        while not task.done():
            loop.step("load")
    """

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[object, asyncio.TimerHandle]] = []
        self._pauses: list[tuple[object, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._now = 0.0
        self._dead = False

    # -- for tests ---------------------------------------------------------------------------------------

    def start(self, work: Coroutine[Any, Any, T], job: object) -> asyncio.Task[T]:
        """Run `work` up to its first access to the world."""
        token = current_job.set(job)
        try:
            task = self.create_task(work)
        finally:
            current_job.reset(token)
        self.run_ready()
        return task

    async def pause(self) -> None:
        """Wait until the test lets this access to the world happen."""
        future = self.create_future()
        entry = (current_job.get(), future)
        self._pauses.append(entry)
        try:
            await future
        finally:
            self._pauses.remove(entry)

    def step(self, job: object, which: int = 0) -> bool:
        """Let one access of a job happen, or else its next timer; False: it waits for something else."""
        pauses = [future for owner, future in self._pauses if owner is job and not future.done()]
        timers = [timer for owner, timer in self._timers if owner is job and not timer.cancelled()]
        if pauses:
            pauses[which % len(pauses)].set_result(None)
        elif timers:
            timer = min(timers, key=lambda timer: timer.when())
            self._now = max(self._now, timer.when())
            self._timers = [entry for entry in self._timers if entry[1] is not timer]
            self._ready.append(timer)
        else:
            return False
        self.run_ready()
        return True

    def accesses(self, job: object) -> int:
        """How many accesses to the world a job is about to make."""
        return sum(1 for owner, future in self._pauses if owner is job and not future.done())

    def awaits(self) -> list[Position]:
        """Return where each task waits, sorted: the functions and lines from its coroutine inwards."""
        return sorted(_position(task.get_coro()) for task in self._tasks)

    def run_ready(self) -> None:
        """Run everything that waits for nothing."""
        asyncio._set_running_loop(self)  # public to those who write event loops
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def die(self) -> None:
        """Drop everything: no task takes another step."""
        self._dead = True
        for task in list(self._tasks):
            coroutine = task.get_coro()
            assert coroutine is not None
            with suppress(RuntimeError):  # it waits for another task of this loop
                coroutine.close()
        self._ready.clear()
        self._timers.clear()

    # -- for asyncio -------------------------------------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._dead:
            self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers.append((current_job.get(), timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its turn comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._dead and "handle" in context:
            raise context["exception"]


def _position(coroutine: object) -> Position:
    lines = []
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        lines.append((coroutine.cr_code.co_qualname, coroutine.cr_frame.f_lineno))
        coroutine = coroutine.cr_await
    return tuple(lines)


async def pause() -> None:
    """Touch the world: a point at which the process may lose the processor, or its life."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    await loop.pause()
