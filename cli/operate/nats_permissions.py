"""`examwire nats`: generate parts of the configuration of nats-server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from protocol.broker.permissions import SYSTEM_USER, Permissions, password_variable, users
from protocol.errors import ConfigurationError

SERVER_IDS = ("SOCK001", "SOCK002")

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

HEAD = """\
# Who may do what: the users of examwire and their permissions. Made by
#   examwire nats permissions {arguments}
# from protocol/broker/permissions.py; a change here is lost, and a test compares.
#
# One user a role, and one for each socket server. Passwords come from the environment of nats-server, which does not
# start when one is missing. Give each at least one letter: a value that reads as a number is taken for one.
#
{variables}
#
# A role is told its own: EXAMWIRE_NATS__USER and EXAMWIRE_NATS__PASSWORD (or nats://USER:PASSWORD@HOST in nats_url).
# `{system}` belongs to the system account: `nats server ls`, `nats server report jetstream`. Not one of the roles.
"""


@app.callback()
def nats() -> None:
    """Generate parts of the configuration of nats-server."""


@app.command("permissions")
def permissions_conf(
    servers: Annotated[
        list[str] | None,
        typer.Option(
            "--server", metavar="SERVER_ID", help="A serverId that gets a user; repeatable. [default: SOCK001, SOCK002]"
        ),
    ] = None,
) -> None:
    """Print nats/permissions.conf: users and their permissions.

    Each role has a user, and each socket server has one.

    Example: examwire nats permissions --server SOCK001 > new.conf
    """
    typer.echo(configuration(servers or SERVER_IDS), nl=False)


def configuration(server_ids: Sequence[str]) -> str:
    """Return the file's text. Raises `InvalidField`, or `ConfigurationError` when two users would share a variable."""
    everyone = users(server_ids)
    names = [user.user for user in everyone] + [SYSTEM_USER]
    shared = [variable for variable, count in Counter(map(password_variable, names)).items() if count > 1]
    if shared:
        raise ConfigurationError(f"--server: several users would share the password variable {', '.join(shared)}")
    head = HEAD.format(
        arguments=" ".join(f"--server {server_id}" for server_id in server_ids),
        variables="\n".join(f"#   {password_variable(name)}" for name in names),
        system=SYSTEM_USER,
    )
    lines = [head, "accounts {", "  EXAMWIRE {", "    jetstream: enabled", "    users: ["]
    for user in everyone:
        lines += _user(user)
    lines += ["    ]", "  }", "  SYS {", "    users: ["]
    lines += [f'      {{ user: "{SYSTEM_USER}", password: ${password_variable(SYSTEM_USER)} }}', "    ]", "  }", "}"]
    return "\n".join([*lines, "system_account: SYS", ""])


def _user(user: Permissions) -> list[str]:
    lines = [
        "      {",
        f'        user: "{user.user}"',
        f"        password: ${password_variable(user.user)}",
        "        permissions {",
    ]
    for verb, allowed in (("publish", user.publish), ("subscribe", user.subscribe)):
        lines += [f"          {verb} {{ allow: ["]
        lines += [f'            "{subject}"' for subject in allowed]
        lines += ["          ] }"]
    return [*lines, "          allow_responses: true", "        }", "      }"]
