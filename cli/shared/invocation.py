"""The command line by which this program was started, for commands that people copy from its output."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.runtime.config.settings import Settings
from protocol.errors import ConfigurationError
from protocol.texts import has_lone_surrogate


def own_command() -> str:
    """Return how this program was started: `examwire` from the PATH, `.venv/bin/examwire`, or `python -m cli.main`."""
    script = sys.argv[0]
    if Path(script).suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m cli.main"
    on_path = shutil.which(Path(script).name)
    return Path(script).name if on_path is not None and Path(on_path) == Path(script) else shlex.quote(script)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise `ConfigurationError` for an argument that the encoding of this process cannot read, such as CP949 in UTF-8.

    It would be stored with other characters. Names of existing files may be any bytes.
    """
    for argument in arguments:
        if has_lone_surrogate(argument) and not Path(argument.rpartition("=")[2]).exists():
            encoding = sys.getfilesystemencoding()
            raise ConfigurationError(f"{argument!r} is not {encoding}: set the locale of this terminal (LC_ALL)")


def with_data_dir(settings: Settings) -> str:
    """Return the flag that names the data directory, with a space before it; "" when it is the default one."""
    if settings.data_dir == Settings.model_fields["data_dir"].default:
        return ""
    return f" --data-dir {shlex.quote(str(settings.data_dir))}"
