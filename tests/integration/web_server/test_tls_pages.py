"""TLS at the web server and the socket servers: pages over https, wss, a renewed certificate, a trial's own one."""

from __future__ import annotations

import datetime
import json
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509

from actors.runtime.broker.connection import Bus
from actors.runtime.config.local_addresses import lan_addresses
from actors.runtime.config.settings import Settings, load_settings
from actors.runtime.config.tls import ServerTls
from actors.runtime.store.state_store import StateStore
from actors.web_server.server import WebServer
from cli.check.certificate_check import certificate_findings
from cli.local.trial_certificate import is_for, own_host_names, trial_certificate
from cli.shared.findings import State
from protocol.errors import ConfigurationError
from tests.integration.support.clients.phones import Site
from tests.integration.support.system import RawClient, System
from tests.integration.support.up import eventually, running
from tests.support.certificates import Certificates, issue


def over_tls(settings: Settings, certificates: Certificates) -> Settings:
    files = {"certificate_file": certificates.certificate, "key_file": certificates.key}
    return settings.model_copy(
        update={"web": settings.web.model_copy(update=files), "socket": settings.socket.model_copy(update=files)}
    )


async def test_pages_and_sockets_over_tls(settings: Settings, bus: Bus, tmp_path: Path) -> None:
    certificates = issue(tmp_path / "pki")
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    async with System(over_tls(settings, certificates), servers=("SOCK001",)) as system:
        server = await system.start("web-server", lambda own: WebServer(system.settings, own, system.store))
        assert isinstance(server, WebServer)
        assert server.url.startswith("https://127.0.0.1:")
        url = system.server("SOCK001").url
        assert url.startswith("wss://127.0.0.1:")
        async with httpx.AsyncClient(base_url=server.url, verify=trust, trust_env=False) as http:
            page = await http.get("/examinee")
            assert f"connect-src 'self' wss://{urlsplit(url).netloc};" in page.headers["content-security-policy"]
            assert (await http.get("/v1/endpoints")).json()["socketServers"] == [url]
            assert (await http.get(f"https://{urlsplit(url).netloc}/healthz")).text == "ok\n"
        client = await RawClient.open(url, ssl=trust, origin=server.url)
        system.clients.append(client)
        await client.hello(system.token("examinee", "E001"))
        await system.status("E001", "CONNECTED")
        client.abort()
        await system.status("E001", "DISCONNECTED")
        with pytest.raises(httpx.RemoteProtocolError):  # in clear there is nothing
            await httpx.AsyncClient(trust_env=False).get(server.url.replace("https:", "http:"))


async def test_a_renewed_certificate_is_taken_into_use_and_a_broken_one_is_not(
    settings: Settings, bus: Bus, store: StateStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates, renewed = issue(tmp_path / "pki"), issue(tmp_path / "renewed")
    server = WebServer(over_tls(settings, certificates), bus, store)
    await server.start()
    site = Site(server, settings, bus)

    async def answered_under(ca: Path) -> bool:
        trust = ssl.create_default_context(cafile=str(ca))
        async with httpx.AsyncClient(base_url=server.url, verify=trust, trust_env=False) as http:
            try:
                return (await http.get("/healthz")).status_code == 200
            except httpx.ConnectError:
                return False

    tls = server._tls
    assert tls is not None
    assert not tls.reload()
    assert await answered_under(certificates.ca)
    os.replace(renewed.certificate, certificates.certificate)  # its key is not there yet
    assert not tls.reload()
    assert "the old certificate stays in use" in caplog.text
    assert await answered_under(certificates.ca)
    os.replace(renewed.key, certificates.key)
    assert tls.reload()
    assert await answered_under(renewed.ca)
    assert not await answered_under(certificates.ca)
    await site.close()


@pytest.mark.parametrize("wrong", ["certificate", "key", "pair"])
def test_invalid_certificate_files_are_named(tmp_path: Path, wrong: str) -> None:
    certificates, other = issue(tmp_path / "a"), issue(tmp_path / "b")
    if wrong == "pair":
        os.replace(other.key, certificates.key)
    else:
        (certificates.certificate if wrong == "certificate" else certificates.key).write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"web\.certificate_file: .*server\.pem"):
        ServerTls("web", certificates.certificate, certificates.key)


def test_a_certificate_goes_with_a_key(tmp_path: Path) -> None:
    certificates = issue(tmp_path)
    with pytest.raises(ConfigurationError, match=r"web: .*go together"):
        load_settings(**{"web.certificate_file": certificates.certificate})
    with pytest.raises(ConfigurationError, match=r"socket\.certificate_file"):
        load_settings(**{"socket.certificate_file": tmp_path / "none.pem", "socket.key_file": certificates.key})


# -- what config check and the doctor say ----------------------------------------------------------------


def test_what_is_wrong_with_a_certificate_is_found(tmp_path: Path) -> None:
    certificates = issue(tmp_path)  # for 127.0.0.1 and localhost, for an hour

    def found(*, days: float = 0.0, **urls: str) -> dict[str, tuple[State, str]]:
        flags: dict[str, object] = {
            f"{section}.certificate_file": certificates.certificate for section in ("web", "socket")
        }
        flags |= {f"{section}.key_file": certificates.key for section in ("web", "socket")}
        flags |= {f"{one}.public_url": url for one, url in urls.items()}
        settings = load_settings(**flags)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        return {finding.check: (finding.state, finding.found) for finding in certificate_findings(settings, now)}

    soon = found()
    assert {state for state, _ in soon.values()} == {State.WARNING}
    assert all("expires on" in text for _, text in soon.values())
    assert found(days=1)["web.certificate_file"][0] is State.FAILED
    assert "not valid before" in found(days=-1)["socket.certificate_file"][1]
    elsewhere = found(socket="wss://exam.example/v1/connect")["socket.certificate_file"]
    assert elsewhere[0] is State.FAILED
    assert "127.0.0.1" in elsewhere[1]
    assert "exam.example" in elsewhere[1]
    assert found(socket="wss://localhost:9000")["socket.certificate_file"][0] is State.WARNING
    assert found(socket="ws://localhost:9000")["socket.public_url"][0] is State.FAILED
    assert found(web="http://localhost:9000")["web.public_url"][0] is State.FAILED
    assert found(web="localhost:9000")["web.public_url"][0] is State.FAILED
    certificates.key.write_text("nonsense")
    assert found()["web.certificate_file"][0] is State.FAILED


def test_pages_over_https_with_sockets_in_clear_are_found(tmp_path: Path) -> None:
    certificates = issue(tmp_path)
    web = {"web.certificate_file": certificates.certificate, "web.key_file": certificates.key}
    findings = {finding.check: finding for finding in certificate_findings(load_settings(**web))}
    assert "browsers refuse" in findings["socket.public_url"].found
    proxied = load_settings(**web, **{"socket.public_url": "wss://localhost"})
    assert "socket.public_url" not in {finding.check for finding in certificate_findings(proxied)}
    assert list(certificate_findings(load_settings())) == []


# -- a trial ---------------------------------------------------------------------------------------------


def test_a_trial_certificate_is_reused_until_it_must_be_replaced(tmp_path: Path) -> None:
    names = own_host_names()
    assert {"localhost", "127.0.0.1", "::1", *lan_addresses()} <= set(names)
    first = trial_certificate(tmp_path / "tls", names)
    assert first.made
    assert set(first.names) == set(names)
    assert first.key_file.stat().st_mode & 0o077 == 0
    certificate = x509.load_pem_x509_certificate(first.certificate_file.read_bytes())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 825
    reused = trial_certificate(tmp_path / "tls", names[:2])  # fewer names: the phone need not be asked again
    assert (reused.made, reused.fingerprint) == (False, first.fingerprint)
    moved = trial_certificate(tmp_path / "tls", [*names, "192.0.2.77"])  # another network
    assert moved.made
    assert moved.fingerprint != first.fingerprint
    moved.key_file.write_text("damaged")
    assert trial_certificate(tmp_path / "tls", names).made


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        *(("127.0.0.1", True), ("LOCALHOST", True), ("localhost.", True), ("a.exam.example", True), ("0::1", True)),
        *(("exam.example", False), ("b.a.exam.example", False), ("127.0.0.2", False)),
    ],
)
def test_which_host_a_certificate_is_for(tmp_path: Path, host: str, fits: bool) -> None:
    trial = trial_certificate(tmp_path, ["localhost", "127.0.0.1", "::1", "*.exam.example"])
    assert is_for(x509.load_pem_x509_certificate(trial.certificate_file.read_bytes()), host) is fits


def test_up_with_tls_serves_pages_that_link_to_each_other(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--tls") as up:
        ready = up.ready
        assert urlsplit(ready["webUrl"]).scheme == "https"
        assert {urlsplit(server["url"]).scheme for server in ready["socketServers"]} == {"wss"}
        assert urlsplit(ready["metricsUrl"]).scheme == "http"
        assert set(ready["pages"]) == {"proctor", "examinee", "phone"}
        trust = ssl.create_default_context(cafile=ready["certificateFile"])
        with httpx.Client(verify=trust, trust_env=False) as http:
            assert http.get(ready["metricsUrl"]).status_code == 200
            for address in ready["pages"].values():
                assert http.get(address).status_code == 200
            servers = {server["url"] for server in ready["socketServers"]}

            def both_are_offered() -> bool:
                response = http.get(f"{ready['webUrl']}/v1/endpoints")  # 503 while none is READY
                return response.status_code == 200 and servers == set(response.json()["socketServers"])

            eventually(both_are_offered, "both servers are offered")
            assert all(http.get(f"https://{urlsplit(url).netloc}/healthz").text == "ok\n" for url in servers)
        assert json.loads((up.data_dir / "ready.json").read_text()).items() >= ready.items()
        assert "Traceback" not in up.stderr
