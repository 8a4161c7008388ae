"""Links to the pages for the output of `examwire up`, and notes on certificates and network access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.runtime.config.local_addresses import in_url, is_wildcard, lan_addresses
from actors.runtime.config.settings import Settings, is_loopback, signs_elsewhere
from actors.runtime.config.tokens import issue_token

if TYPE_CHECKING:
    from cli.local.trial_certificate import TrialCertificate

PROCTOR, EXAMINEE = "T001", "E001"


def page_bases(web_url: str, settings: Settings) -> list[str]:
    """Return the addresses at which browsers reach the web server at `web_url`, the best first."""
    if settings.web.public_url is not None:
        return [settings.web.public_url.rstrip("/")]
    parts = urlsplit(web_url)
    if not is_wildcard(settings.web.host):
        return [web_url]
    usable = [address for address in lan_addresses() if settings.web.host != "0.0.0.0" or ":" not in address]
    return [*(f"{parts.scheme}://{in_url(address)}:{parts.port}" for address in usable), web_url]


def page_links(base: str, settings: Settings, plan_id: str) -> dict[str, str]:
    """Return each page's address. If tokens are signed here, one is in the fragment, which browsers do not send."""
    if signs_elsewhere(settings):
        return {name: f"{base}/{name}" for name in ("proctor", "examinee", "phone")}
    return {
        "proctor": f"{base}/proctor#token={issue_token(settings, 'proctor', plan_id, PROCTOR)}",
        "examinee": f"{base}/examinee#token={issue_token(settings, 'examinee', plan_id, EXAMINEE)}",
        "phone": f"{base}/phone",
    }


def describe_links(links: Mapping[str, str]) -> list[str]:
    """Return the links as lines of text."""
    lines = {
        "proctor": f"  proctor {PROCTOR}   {links['proctor']}",
        "examinee": f"  examinee {EXAMINEE}  {links['examinee']}",
        "phone": f"  phone          {links['phone']}  (the examinee's page shows its QR code)",
    }
    return ["Pages to open:", *(lines[name] for name in links), ""]


def access_notes(
    bases: Sequence[str], settings: Settings, socket_urls: Sequence[str], certificate: TrialCertificate | None
) -> list[str]:
    """Return notes on opening the pages: addresses, the certificate, and access from phones and other computers."""
    lines: list[str] = []
    host = urlsplit(bases[0]).hostname or ""
    if len(bases) > 1:
        lines += ["The pages can be opened at:", *(f"  {base}/" for base in bases), ""]
    if certificate is not None:
        lines += _about_certificate(certificate, socket_urls)
    if is_loopback(host):
        if certificate is not None:
            lines += [
                "Only this machine can open these pages. To open them on a phone or another computer:",
                "  export EXAMWIRE_SECRET=$(openssl rand -base64 48)",
                "  examwire up --tls --web-host 0.0.0.0 --socket-host 0.0.0.0",
                "",
            ]
    elif urlsplit(bases[0]).scheme == "http":
        lines += [
            "Browsers give the camera only to https pages. Over http, the phone page uses the phone's camera app;",
            "with --tls it can use the camera itself.",
            "",
        ]
    if not is_loopback(host) and is_loopback(urlsplit(socket_urls[0]).hostname or ""):
        lines += ["Pages on other machines cannot reach the socket servers: add --socket-host 0.0.0.0", ""]
    return lines


def _about_certificate(certificate: TrialCertificate, socket_urls: Sequence[str]) -> list[str]:
    origin = "is new" if certificate.made else "is the one of the last start"
    ports = [f"https://{urlsplit(url).netloc}/healthz" for url in socket_urls]
    return [
        f"The self-signed certificate {origin}. Each browser warns once; allow it like this:",
        '  Chrome, Edge, Android:  "Your connection is not private": Advanced, then Proceed',
        '  Safari, iPhone, iPad:   "This Connection Is Not Private": Show Details, then visit this website',
        '  Firefox:                "Warning: Potential Security Risk Ahead": Advanced, then Accept the Risk; for the',
        f"                          proctor's and the examinee's page also at {' and '.join(ports)}",
        "Safari does not apply the exception to WebSockets: use another browser for the proctor's and the examinee's",
        "page. For a real exam, use a certificate that browsers trust (web.certificate_file).",
        f"  valid until {certificate.expires:%Y-%m-%d}, in {certificate.certificate_file.parent}",
        f"  SHA-256 {certificate.fingerprint}",
        "",
    ]
