"""The links of `examwire up`, and what is said to whoever opens them elsewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.config.tokens import TokenVerifier
from cli.local.page_links import access_notes, describe_links, page_bases, page_links
from cli.local.trial_certificate import trial_certificate

SECRET = "0123456789-abcdefghij-ABCDEFGHIJ"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.local.page_links.lan_addresses", lambda: ["192.168.0.5", "2001:db8::5"])


def settings(tmp_path: Path, **flags: str) -> Settings:
    return load_settings(
        data_dir=tmp_path, secret=SECRET, **{name.replace("__", "."): value for name, value in flags.items()}
    )


def test_a_wildcard_address_is_linked_by_the_network_address(tmp_path: Path) -> None:
    local_url = "https://127.0.0.1:8000"
    assert page_bases(local_url, settings(tmp_path)) == [local_url]
    assert page_bases(local_url, settings(tmp_path, web__host="0.0.0.0")) == ["https://192.168.0.5:8000", local_url]
    everywhere = page_bases("https://[::1]:8000", settings(tmp_path, web__host="::"))
    assert everywhere == ["https://192.168.0.5:8000", "https://[2001:db8::5]:8000", "https://[::1]:8000"]
    proxied = settings(tmp_path, web__host="0.0.0.0", web__public_url="https://exam.example/")
    assert page_bases(local_url, proxied) == ["https://exam.example"]


def test_a_link_has_its_token_where_no_browser_sends_it(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    links = page_links("https://exam.example", mine, "P007")
    for role, subject in (("proctor", "T001"), ("examinee", "E001")):
        parts = urlsplit(links[role])
        assert (parts.path, parts.query) == (f"/{role}", "")
        claims = TokenVerifier(mine).verify(parts.fragment.removeprefix("token="))
        assert (claims.role, claims.plan, claims.sub) == (role, "P007", subject)
    assert links["phone"] == "https://exam.example/phone"
    described = "\n".join(describe_links(links, "P007", with_tokens=True))
    assert [described.count(link) for link in links.values()] == [1, 1, 1]


def test_links_have_no_token_when_an_issuer_signs_them(tmp_path: Path) -> None:
    platform = load_settings(data_dir=tmp_path, **{"token.jwks_file": tmp_path / "jwks.json"})
    links = page_links("https://exam.example", platform, "P001")
    assert not any("token" in link for link in links.values())
    assert "issuer" in describe_links(links, "P001", with_tokens=False)[0]


def test_the_output_names_what_a_phone_needs_and_fits_a_screen(tmp_path: Path) -> None:
    certificate = trial_certificate(tmp_path / "tls", ["localhost", "192.168.0.5"])
    sockets = ["wss://192.168.0.5:19001/v1/connect", "wss://192.168.0.5:19002/v1/connect"]
    lan, loopback = ["https://192.168.0.5:18000", "https://127.0.0.1:18000"], ["https://127.0.0.1:18000"]

    def said(bases: list[str], urls: list[str], *, tls: bool, secret: str | None = SECRET) -> str:
        mine = load_settings(data_dir=tmp_path, **({"secret": secret} if secret else {}))
        notes = access_notes(bases, mine, urls, certificate if tls else None, ".venv/bin/examwire")
        screen = [*describe_links(page_links(bases[0], mine, "P001"), "P001", with_tokens=True), *notes]
        # Beside these: a heading, two blank lines, three lines of commands, and the line of the cursor.
        assert sum(-(-len(line) // 80) for line in screen) <= 24 - 7
        return "\n".join(notes)

    trial = said(lan, sockets, tls=True)
    assert "https://192.168.0.5:18000/" in trial
    assert "Advanced, then Proceed" in trial
    assert certificate.fingerprint.replace(":", "") in trial
    assert "https://192.168.0.5:19001/healthz" in trial  # a browser that asks for each port
    assert "--web-host 0.0.0.0" not in trial
    for tls in (True, False):
        alone = said(loopback, ["wss://127.0.0.1:19001", "wss://127.0.0.1:19002"], tls=tls, secret=None)
        assert "Only this machine" in alone
        assert "export EXAMWIRE_SECRET=" in alone
        assert ".venv/bin/examwire up --tls --web-host 0.0.0.0 --socket-host 0.0.0.0" in alone
    assert "export" not in said(loopback, ["wss://127.0.0.1:19001"], tls=False)
    plain = said(["http://192.168.0.5:18000"], ["ws://192.168.0.5:19001"], tls=False)
    assert "--tls" in plain
    assert "can open http://192.168.0.5:18000/" in plain
    assert "  or http://10.0.0.7:18000/" in said(
        ["http://192.168.0.5:18000", "http://10.0.0.7:18000", "http://127.0.0.1:18000"],
        ["ws://192.168.0.5:19001"],
        tls=False,
    )
    assert "--socket-host 0.0.0.0" in said(lan, ["wss://127.0.0.1:19001"], tls=True)
