"""`examwire token`: print a signed token."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from actors.runtime.config.settings import Settings
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, print_json, say
from cli.shared.times import parse_duration
from protocol.messages.frames import Role
from protocol.times import format_time


@takes_settings("data_dir")
def token(
    settings: Settings,
    role: Annotated[Role, typer.Argument(help="The role that the token grants.", metavar="ROLE", show_default=False)],
    plan_id: Annotated[str, typer.Argument(help="The plan.", metavar="PLAN_ID", show_default=False)],
    subject: Annotated[
        str | None,
        typer.Argument(
            help="The examineeId, required for the roles examinee and mobile. For other roles a name. [default: ROLE]",
            metavar="SUBJECT",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[str, typer.Option("--expires", help="How long the token is valid.", metavar="DURATION")] = "12h",
    output: OutputOption = Format.TABLE,
) -> None:
    """Print a signed token.

    Example: examwire token examinee P001 E0042 --expires 4h

    It is signed with the configured secret, or with that of the data directory (created if missing).
    """
    from actors.runtime.config.tokens import issue_token
    from cli.shared.signing import require_tokens_accepted

    seconds = parse_duration(expires)
    if subject is None:
        if role in ("examinee", "mobile"):
            raise typer.BadParameter(f"a token of role {role} needs SUBJECT, the examineeId")
        subject = role
    require_tokens_accepted(settings)
    issued = issue_token(settings, role, plan_id, subject, seconds=seconds)
    if output is Format.JSON:
        expires_at = format_time(int(time.time()) + int(seconds))
        print_json({"token": issued, "role": role, "planId": plan_id, "subject": subject, "expiresAt": expires_at})
    else:
        say(issued)
