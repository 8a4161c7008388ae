"""The command line by which this program was started, for commands that people copy from its output."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from actors.runtime.config.settings import Settings


def own_command() -> str:
    """Return how this program was started: `examwire` from the PATH, `.venv/bin/examwire`, or `python -m cli.main`."""
    script = sys.argv[0]
    if Path(script).suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m cli.main"
    on_path = shutil.which(Path(script).name)
    return Path(script).name if on_path is not None and Path(on_path) == Path(script) else shlex.quote(script)


def with_data_dir(settings: Settings) -> str:
    """Return the flag that names the data directory, with a space before it; "" when it is the default one."""
    if settings.data_dir == Settings.model_fields["data_dir"].default:
        return ""
    return f" --data-dir {shlex.quote(str(settings.data_dir))}"
