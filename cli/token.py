"""`examwire token`: print a signed token."""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated

import pydantic
import typer

from actors.runtime.config.settings import Settings
from cli.shared.options import takes_settings
from cli.shared.output import Format, OutputOption, print_json, say
from cli.shared.times import parse_duration
from protocol.errors import ConfigurationError
from protocol.messages.base import NAME_PATTERN
from protocol.messages.frames import Role
from protocol.times import format_time


@takes_settings("redis_url", "data_dir", running=True)
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
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="LABEL=VALUES",
            help="Limit a proctor to examinees with these labels, such as room=A,B. Repeatable: all must match.",
        ),
    ] = None,
    expires: Annotated[str, typer.Option("--expires", help="How long the token is valid.", metavar="DURATION")] = "12h",
    name: Annotated[
        str | None,
        typer.Option("--name", help="The person's name, as others see it, in any script.", metavar="NAME"),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print a signed token.

    Example: examwire token proctor P001 kim --name "김하늘" --expires 4h

    It is signed with the configured secret, or with that of the data directory (created if missing). With --scope a
    proctor sees only these examinees, and can act only on them: examwire token proctor P001 kim --scope room=A,B
    """
    from actors.runtime.config.tokens import issue_token
    from cli.shared.signing import require_tokens_accepted

    seconds = parse_duration(expires)
    if subject is None:
        if role in ("examinee", "mobile"):
            raise typer.BadParameter(f"a token of role {role} needs SUBJECT, the examineeId")
        subject = role
    claim = read_scope(scope or ())
    if claim and role != "proctor":
        raise typer.BadParameter("--scope limits proctors only")
    if name is not None and re.fullmatch(NAME_PATTERN, name) is None:
        raise typer.BadParameter("must be 1 to 100 characters on one line", param_hint="--name")
    require_tokens_accepted(settings)
    issued = issue_token(settings, role, plan_id, subject, seconds=seconds, scope=claim or None, name=name)
    if claim:
        _warn_of_unknown(settings, plan_id, claim)
    if output is Format.JSON:
        expires_at = format_time(int(time.time()) + int(seconds))
        value = {"token": issued, "role": role, "planId": plan_id, "subject": subject, "expiresAt": expires_at}
        print_json({**value, "scope": claim or None})
    else:
        say(issued)


def read_scope(options: Sequence[str]) -> dict[str, list[str]]:
    """Return the claim `scope` of `LABEL=VALUE,VALUE` options. Raises `ConfigurationError`."""
    from protocol.access.claims import ScopeClaim

    claim: dict[str, list[str]] = {}
    for option in options:
        label, equals, values = option.partition("=")
        named = [unicodedata.normalize("NFC", value.strip()) for value in values.split(",") if value.strip()]
        if not equals or not named:
            raise ConfigurationError(f"--scope: {option!r} is not LABEL=VALUE or LABEL=VALUE,VALUE")
        claim.setdefault(unicodedata.normalize("NFC", label.strip()), []).extend(named)
    if claim:
        try:
            pydantic.TypeAdapter(ScopeClaim).validate_python(claim)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ConfigurationError(f"--scope: {first['loc'][0] if first['loc'] else ''}: {first['msg']}") from None
    return claim


def _warn_of_unknown(settings: Settings, plan_id: str, claim: Mapping[str, Sequence[str]]) -> None:
    """Say on stderr what no examinee of the plan has, as far as Redis can be asked: the token is valid all the same."""
    from cli.shared.plan_labels import label_values
    from protocol.errors import StateDamaged, StateUnavailable

    try:
        known = asyncio.run(label_values(settings, plan_id))
    except (StateUnavailable, StateDamaged) as error:
        say(f"examwire: whether plan {plan_id} has these labels is not known: {error}", err=True)
        return
    for label, values in claim.items():
        if label not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has no labels"
            say(f"examwire: no examinee of plan {plan_id} has the label {label} ({has}): nobody is seen", err=True)
        elif unknown := [value for value in values if value not in known[label]]:
            say(f"examwire: nobody in plan {plan_id} has {label} {', '.join(unknown)}", err=True)
