"""Who may do what at the broker, and that nats/ says the same."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cli.local.engines import nats_server_binary
from cli.operate.nats_permissions import SERVER_IDS, configuration
from protocol.broker import subjects
from protocol.broker.permissions import (
    SYSTEM_USER,
    BrokerRole,
    Permissions,
    inbox_prefix,
    password_variable,
    permissions,
    users,
)
from protocol.broker.streams import STREAMS
from protocol.errors import ConfigurationError, InvalidField
from tests.support.certificates import issue

NATS = Path(__file__).parents[4] / "nats"
EVERYONE = {user.user: user for user in users(SERVER_IDS)}
SOCK001, SOCK002 = EVERYONE["socket-server-SOCK001"], EVERYONE["socket-server-SOCK002"]


def allowed(patterns: tuple[str, ...], subject: str) -> bool:
    return any(subjects.matches(pattern, subject) for pattern in patterns)


def those_who_may_publish(subject: str) -> set[str]:
    return {name for name, user in EVERYONE.items() if allowed(user.publish, subject)}


def those_who_may_subscribe(subject: str) -> set[str]:
    return {name for name, user in EVERYONE.items() if allowed(user.subscribe, subject)}


def test_a_socket_server_publishes_only_its_own_status_and_lease() -> None:
    assert those_who_may_publish("status.server.SOCK001") == {SOCK001.user, "state-manager", "operator"}
    assert those_who_may_publish("lease.SOCK001") == {SOCK001.user}
    assert not allowed(SOCK001.publish, "status.server.SOCK002")


def test_only_the_queue_server_makes_streams_and_consumers() -> None:
    for stream in (*(stream.name for stream in STREAMS), "OBJ_captures"):
        assert those_who_may_publish(f"$JS.API.STREAM.CREATE.{stream}") == {"queue-server"}
        assert those_who_may_publish(f"$JS.API.STREAM.UPDATE.{stream}") == {"queue-server"}
    for subject in (
        "$JS.API.CONSUMER.CREATE.SOCKET.SOCK001_Q",
        "$JS.API.CONSUMER.CREATE.SOCKET.SOCK001_Q.socket.SOCK001",
        "$JS.API.CONSUMER.DURABLE.CREATE.SOCKET.SOCK001_Q",
        "$JS.API.CONSUMER.DELETE.SOCKET.SOCK001_Q",
    ):
        assert those_who_may_publish(subject) == {"queue-server"}
    # A consumer without a name would push what it reads to wherever it was told.
    assert those_who_may_publish("$JS.API.CONSUMER.CREATE.STATUS") == set()


@pytest.mark.parametrize("stream", [stream.name for stream in STREAMS])
def test_only_who_restores_may_delete_a_stream_and_only_who_purges_plans_may_delete_messages(stream: str) -> None:
    for verb in ("STREAM.DELETE", "STREAM.SNAPSHOT", "STREAM.RESTORE"):
        assert those_who_may_publish(f"$JS.API.{verb}.{stream}") == {"operator"}
    who_purges = {"operator", "queue-server"}
    may_purge = who_purges if stream in ("STATUS", "SOCKET", "RECONNECT", "RECORDS") else set()
    if stream == "RECORDS":
        may_purge = who_purges | {"state-manager"}  # what a purge has deleted has no checkpoints
    assert those_who_may_publish(f"$JS.API.STREAM.PURGE.{stream}") == may_purge
    may_delete = who_purges if stream in ("STATUS", "DEADLETTER", "PHONE") else set()
    if stream == "STATUS":
        may_delete |= {"state-manager"}  # facts that came before a gap of the log was mended are moved behind it
    assert those_who_may_publish(f"$JS.API.STREAM.MSG.DELETE.{stream}") == may_delete


def test_a_queue_is_read_by_its_server_alone() -> None:
    for consumer in ("SOCK001_Q", "SOCK001_Q_BROADCAST", "SOCK001_Q_31_BROADCAST"):
        assert those_who_may_publish(f"$JS.API.CONSUMER.MSG.NEXT.SOCKET.{consumer}") == {SOCK001.user}
        assert those_who_may_publish(f"$JS.ACK.SOCKET.{consumer}.1.2.3.4.5") == {SOCK001.user}
    assert those_who_may_publish("$JS.API.CONSUMER.MSG.NEXT.STATUS.state-manager") == {"state-manager"}


def test_only_the_roles_that_need_the_log_may_read_it() -> None:
    readers = {"state-manager", "operator", "web-server", "queue-server"}
    assert those_who_may_publish("$JS.API.DIRECT.GET.STATUS") == readers
    assert those_who_may_publish("$JS.API.STREAM.MSG.GET.STATUS") == readers
    for subject in ("status.plan.P001", "status.server.SOCK001", "socket.SOCK001", "lease.SOCK001"):
        assert those_who_may_subscribe(subject) == set()


def test_state_managers_publish_how_far_the_log_is_applied_and_socket_servers_subscribe() -> None:
    assert those_who_may_publish("applied.sm1") == {"state-manager"}
    assert {SOCK001.user, SOCK002.user} <= those_who_may_subscribe("applied.sm1")


def test_each_user_subscribes_to_its_own_inbox_only() -> None:
    for name in EVERYONE:
        assert those_who_may_subscribe(f"{inbox_prefix(name)}.abc") == {name}
    assert those_who_may_subscribe("_INBOX.abc") == set()


def test_only_operators_send_requests_to_actors_and_each_role_serves_its_own_addresses() -> None:
    assert those_who_may_publish("control.socket.SOCK001") == {"operator"}
    assert those_who_may_publish("inspect.socket-server-1") == {"operator"}
    assert those_who_may_publish("session.P001.E001") == {"operator"}
    assert those_who_may_subscribe("control.socket.SOCK001") == {SOCK001.user}
    assert those_who_may_subscribe("control.state-manager.sm1") == {"state-manager"}
    assert those_who_may_subscribe("queue.create") == {"queue-server"}
    assert those_who_may_publish("queue.create") == {SOCK001.user, SOCK002.user}


def test_the_monitor_only_reads() -> None:
    changing = re.compile("CREATE|UPDATE|DELETE|PURGE|MSG|RESTORE|PAUSE|RESET|STEPDOWN|MOVE|ACK|GET")
    assert not [subject for subject in EVERYONE["monitor"].publish if changing.search(subject)]
    assert all(subject.startswith(("$JS.API.", "$SRV.")) for subject in EVERYONE["monitor"].publish)


def test_no_pattern_is_wider_than_a_stream_or_a_kind_of_address() -> None:
    for user in EVERYONE.values():
        assert not {">", "*", "$JS.>", "$JS.API.>", "_INBOX.>", "status.>"} & {*user.publish, *user.subscribe}


def test_a_socket_server_has_a_user_for_its_id() -> None:
    assert SOCK001.user == "socket-server-SOCK001"
    with pytest.raises(InvalidField):
        permissions(BrokerRole.SOCKET_SERVER, "SOCK 1")
    with pytest.raises(InvalidField):
        permissions(BrokerRole.SOCKET_SERVER, "*")
    with pytest.raises(ConfigurationError, match="serverId"):
        permissions(BrokerRole.SOCKET_SERVER)


# -- nats/ --------------------------------------------------------------------------------------------------


def test_the_file_is_what_the_command_prints() -> None:
    assert (NATS / "permissions.conf").read_text() == configuration(SERVER_IDS), (
        "run `examwire nats permissions > nats/permissions.conf`"
    )


def test_the_file_contains_no_password() -> None:
    passwords = re.findall(r"password: *(\S+)", configuration(SERVER_IDS))
    assert sorted(passwords) == sorted(f"${password_variable(name)}" for name in (*EVERYONE, SYSTEM_USER))


def test_two_servers_never_share_a_password() -> None:
    with pytest.raises(ConfigurationError, match="NATS_PASSWORD_SOCKET_SERVER_A_B"):
        configuration(["a-b", "A_B"])


@pytest.mark.parametrize("name", ["single.conf", "secure.conf", "cluster.conf", "cluster-plain.conf"])
def test_the_broker_accepts_its_configuration(name: str, tmp_path: Path) -> None:
    certificates = issue(tmp_path)
    environment = {
        **os.environ,
        **{password_variable(user): "secret" for user in (*EVERYONE, SYSTEM_USER)},
        "NATS_NAME": "nats-1",
        "NATS_LISTEN": "0.0.0.0:4222",
        "NATS_HTTP": "127.0.0.1:8222",
        "NATS_STORE": str(tmp_path),
        "NATS_CLUSTER_LISTEN": "0.0.0.0:6222",
        "NATS_ROUTES": "[nats://nats-1:6222, nats://nats-2:6222, nats://nats-3:6222]",
        "NATS_TLS_CERT": str(certificates.certificate),
        "NATS_TLS_KEY": str(certificates.key),
        "NATS_TLS_CA": str(certificates.ca),
    }
    command = [str(nats_server_binary()), "-t", "-c", name]
    result = subprocess.run(command, cwd=NATS, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["server.conf", "single.conf"])
def test_the_broker_syncs_to_disk_before_it_acknowledges(name: str) -> None:
    assert re.search(r"^ *sync_interval: always$", (NATS / name).read_text(), re.MULTILINE)


def test_every_file_is_included_in_a_configuration() -> None:
    included = {name for path in NATS.glob("*.conf") for name in re.findall(r'include "(.+?)"', path.read_text())}
    configurations = {"single.conf", "secure.conf", "secure-plain.conf", "cluster.conf", "cluster-plain.conf"}
    assert {path.name for path in NATS.iterdir()} == included | configurations


def test_permissions_are_equal_for_equal_arguments() -> None:
    assert all(isinstance(user, Permissions) for user in users(["A"]))
    assert users(["A"]) == users(["A"])
