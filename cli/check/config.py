"""`examwire config show` and `check`: the settings in effect, their origin, and their problems."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from actors.runtime.config.masking import masked
from actors.runtime.config.settings import Settings, settings_file, variable_of
from cli.shared.findings import State, show_findings, worst
from cli.shared.options import FLAGS, flag_of, flatten, takes_settings
from cli.shared.output import Column, ExitCode, Format, OutputOption, show, table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config() -> None:
    """Show and check the settings in effect."""


@app.command("show")
@takes_settings(*FLAGS)
def show_config(
    settings: Settings,
    given: dict[str, Any],
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show every setting with its value; secrets are masked.

    Example: examwire config show --origin

    The first of these counts: a flag, a variable, the TOML file, the default.
    """
    tree = {name: _masked(value) for name, value in settings.model_dump(mode="json").items()}
    values = flatten(tree)
    if not origin:
        show(
            tree,
            lambda: table(
                ["setting", Column("value", wrap=True)], ((name, _shown(value)) for name, value in values.items())
            ),
            output,
        )
        return
    origins = _origins(given)
    rows = {name: {"value": value, "origin": origins.get(name, "default")} for name, value in values.items()}
    cells = [(name, _shown(row["value"]), row["origin"]) for name, row in rows.items()]
    show(rows, lambda: table(["setting", Column("value", wrap=True), Column("from", wrap=True)], cells), output)


@app.command("check")
@takes_settings(*FLAGS)
def check_config(given: dict[str, Any], output: OutputOption = Format.TABLE) -> None:
    """Check flags, variables and the settings file.

    Finds unknown names, invalid values and contradictions. Creates nothing and connects to nothing. Exit code 2: a
    role would not start or not work, 5: warnings only.
    """
    from cli.check.config_check import check_settings

    findings = check_settings(given)
    show_findings(findings, output)
    if (state := worst(findings)) is not State.OK:
        raise typer.Exit(ExitCode.USAGE if state is State.FAILED else ExitCode.DEGRADED)


def _origins(given: Mapping[str, Any]) -> dict[str, str]:
    path = settings_file()
    origins = dict.fromkeys(flatten(TomlConfigSettingsSource(Settings, path)()), f"file {path}")
    variables = {name.upper() for name in os.environ}
    for name in flatten(EnvSettingsSource(Settings)()):
        variable = variable_of(name)
        # A variable may hold a whole section as JSON.
        origins[name] = f"variable {variable if variable in variables else variable_of(name.partition('.')[0])}"
    origins.update({name: f"flag {flag_of(name)}" for name in given})
    return origins


def _masked(value: Any) -> Any:
    """Mask the password in a URL. pydantic masks declared secrets, but not the engines' URLs."""
    return masked(value) if isinstance(value, str) and "://" in value else value


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
