"""`examwire ...` as a test calls it."""

from __future__ import annotations

import asyncio
import json
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


async def done(command: Invoke, *arguments: str) -> dict[str, Any]:
    """Run a command that succeeds; the value of its JSON."""
    result = await command(*arguments, "-o", "json")
    assert result.exit_code == 0, result.stderr
    value: dict[str, Any] = json.loads(result.stdout)
    return value


async def refused(command: Invoke, *arguments: str, code: int = 2) -> str:
    """Run a command that is refused with this exit code; what it says on stderr."""
    result = await command(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    return result.stderr
