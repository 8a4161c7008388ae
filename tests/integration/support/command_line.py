"""`examwire ...` as a test calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from typer.testing import CliRunner, Result

from cli.main import app


class Invoke(Protocol):
    """Runs a command beside the test's own event loop. `answer` is typed in; `changed` are variables for this run."""

    def __call__(self, *arguments: str, answer: str | None = None, **changed: str) -> Coroutine[Any, Any, Result]: ...


def command_with(variables: Mapping[str, str]) -> Invoke:
    """Commands that have these variables."""

    async def run(*arguments: str, answer: str | None = None, **changed: str) -> Result:
        # One after the other: a CliRunner takes the whole process's stdout.
        return await asyncio.to_thread(
            CliRunner().invoke, app, arguments, env={**variables, **changed}, input=answer, catch_exceptions=False
        )

    return run
