"""How a role presents itself to NATS, and what it makes of being refused."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.runtime.broker.refusals import Refusals
from actors.runtime.config.nats_login import login
from actors.runtime.config.sections import NatsSettings
from actors.runtime.config.settings import load_settings
from protocol.errors import ConfigurationError, NotPermitted
from tests.support.certificates import issue


def settings(**values: Any) -> NatsSettings:
    return NatsSettings.model_validate(values)


def test_a_broker_without_users_is_asked_as_nobody() -> None:
    how = login("nats://127.0.0.1:4222", settings())
    assert (how.urls, how.user, how.inbox_prefix, how.options) == (("nats://127.0.0.1:4222",), None, "_INBOX", {})


def test_the_user_of_the_url_is_the_user_of_every_server_of_the_cluster() -> None:
    how = login("nats://web-server:p%40ss@a:4222, nats://b:4333,nats://c", settings())
    assert how.urls == ("nats://a:4222", "nats://b:4333", "nats://c:4222")
    assert how.options == {"user": "web-server", "password": "p@ss"}
    assert how.inbox_prefix == "_INBOX_web-server"


def test_a_setting_overrides_the_url() -> None:
    how = login("nats://a:b@host", settings(user="operator", password="secret"))
    assert how.options == {"user": "operator", "password": "secret"}
    assert how.inbox_prefix == "_INBOX_operator"
    assert login("nats://host", settings(inbox_prefix="_INBOX_x")).inbox_prefix == "_INBOX_x"


def test_a_token_in_the_url_is_not_taken_for_a_user() -> None:
    how = login("nats://s3cret@host", settings())
    assert (how.user, how.options, how.urls) == (None, {"token": "s3cret"}, ("nats://host:4222",))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host", "nats://HOST:PORT"),
        ("host:4222", "nats://HOST:PORT"),
        ("nats://host:port", "nats_url"),
        ("nats://a:b@x,nats://c:d@y", "the same user"),
    ],
)
def test_an_invalid_url_is_a_configuration_error_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        login(url, settings())
    assert ":b@" not in str(raised.value)


def test_certificates_and_tls_go_together(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    assert "tls" in login("tls://host", settings(ca_file=issued.ca)).options
    valid = settings(ca_file=issued.ca, cert_file=issued.certificate, key_file=issued.key)
    assert "tls" in login("tls://host", valid).options
    with pytest.raises(ConfigurationError, match="tls://"):
        login("nats://host", settings(ca_file=issued.ca))
    with pytest.raises(ConfigurationError, match=r"nats\.ca_file"):
        login("tls://host", settings(ca_file=issued.key))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nats.user": "operator"}, "user and password go together"),
        ({"nats.replicas": 2}, "1, 3 or 5"),
        ({"nats.replicas": 7}, r"nats\.replicas"),
    ],
)
def test_inconsistent_settings_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_settings(**values)


def test_a_credentials_file_signs_the_servers_nonce(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    raw = bytes([18 << 3 | 20 << 3 >> 5, 0])  # the prefix of a user's seed, `SU`
    raw += key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    seed = base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    assert seed.startswith("SU")
    path = tmp_path / "role.creds"
    path.write_text(
        "-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\nNKEY Seed is sensitive.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    how = login("nats://host", settings(credentials_file=path))
    assert how.options["user_jwt_cb"]() == b"abc.def.ghi"
    key.public_key().verify(base64.b64decode(how.options["signature_cb"]("nonce")), b"nonce")


def test_a_file_without_credentials_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "role.creds"
    path.write_text("SUSECRETSEED")
    with pytest.raises(ConfigurationError, match=r"nats\.credentials_file") as raised:
        login("nats://host", settings(credentials_file=path))
    assert "SUSECRETSEED" not in str(raised.value)


# -- refusals -----------------------------------------------------------------------------------------------


def violation(verb: str, subject: str) -> Exception:
    """As nats-py reports it: in lower case."""
    return Exception(f'nats: permissions violation for {verb} to "{subject.lower()}"')


def test_a_refusal_fails_only_requests_on_its_subject() -> None:
    refusals = Refusals("SOCK001", "socket-server-SOCK001", "_INBOX_socket-server-SOCK001")
    mine: list[NotPermitted] = []
    reported: list[NotPermitted] = []
    with refusals.watch("status.server.SOCK002", mine.append), refusals.watch("status.server.SOCK003", reported.append):
        assert refusals.report(violation("publish", "status.server.SOCK002")) == "status.server.sock002"
    refusals.report(violation("publish", "status.server.SOCK002"))
    assert len(mine) == 1
    assert "'socket-server-SOCK001' publish to status.server.SOCK002" in str(mine[0])
    assert reported == []
    assert refusals.lasting is None


def test_a_refused_inbox_fails_all_requests_until_the_next_connection() -> None:
    refusals = Refusals("cli", "operator", "_INBOX_operator")
    reported: list[NotPermitted] = []
    with refusals.watch("$JS.API.INFO", reported.append):
        refusals.report(violation("subscription", "_INBOX_operator.abc.*"))
    assert reported
    assert refusals.lasting is not None
    refusals.forget()
    assert refusals.lasting is None


def test_other_errors_are_not_refusals() -> None:
    refusals = Refusals("cli", None, "_INBOX")
    assert refusals.report(Exception("nats: stale connection")) is None
    assert refusals.report(violation("subscription", "session.p001.e001")) is None
    assert refusals.lasting is None
