"""Ending tasks for sure: a task may swallow a cancellation, so one is not enough and no wait is without a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 2.0
"""So long a task may clean up undisturbed before it is cancelled once more."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], seconds: float, again: float = AGAIN_SECONDS) -> bool:
    """Cancel tasks and wait until they have ended, for `seconds` at most; False when one has not.

    A library that swallows the cancellation (as `wait_for` of Python 3.11 does in the moment of success) leaves its
    task running: it is cancelled again. What tasks raise is nobody's concern here.
    """
    pending = {task for task in tasks if not task.done()}
    deadline = time.monotonic() + seconds
    while pending and time.monotonic() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=min(again, max(0.0, deadline - time.monotonic())))
    return not pending
