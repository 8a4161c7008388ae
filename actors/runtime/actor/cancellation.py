"""Cancel tasks, repeatedly and with a deadline: a task may swallow a cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

REPEAT_SECONDS = 2.0
"""Seconds that a task may clean up before it is cancelled again."""


async def cancel_tasks(tasks: Iterable[asyncio.Task[Any]], seconds: float, repeat: float = REPEAT_SECONDS) -> bool:
    """Cancel tasks and wait until they have ended, for `seconds` at most. Return False if one has not ended.

    A library that swallows a cancellation leaves its task running (`wait_for` of Python 3.11 does, when it succeeds at
    the same moment), so every `repeat` seconds the task is cancelled again. Errors of the tasks are not raised.

        if not await cancel_tasks([reading, writing], 10.0):
            log.error("still running")
    """
    pending = {task for task in tasks if not task.done()}
    deadline = time.monotonic() + seconds
    while pending and time.monotonic() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=min(repeat, max(0.0, deadline - time.monotonic())))
    return not pending
