"""`examwire spec`: the specifications of the wire, for whoever writes a client or wants to read along."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from actors.runtime import VERSION
from cli.shared.output import print_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class SpecFormat(StrEnum):
    """JSON, which is YAML as well."""

    JSON = "json"


FormatOption = Annotated[SpecFormat, typer.Option("-o", "--output", help="JSON, which is YAML as well.")]


@app.callback()
def spec() -> None:
    """Print the AsyncAPI and OpenAPI documents.

    They are generated from the message models. See also docs/protocol.md.
    """


@app.command("asyncapi")
def print_asyncapi(output: FormatOption = SpecFormat.JSON) -> None:
    """Print the AsyncAPI 3.0 document of WebSocket and NATS.

    It describes channels, operations, messages and close codes.
    """
    from protocol.spec.asyncapi import asyncapi

    print_json(asyncapi(VERSION))


@app.command("openapi")
def print_openapi(output: FormatOption = SpecFormat.JSON) -> None:
    """Print the OpenAPI 3.1 document of the web server.

    It describes uploads, pictures, phone codes, timeline, report and health.
    """
    from protocol.spec.openapi import openapi

    print_json(openapi(VERSION))
