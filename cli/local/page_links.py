"""The pages as links to click on, and what a browser will say about a trial's certificate, in plain words."""

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
    """Where browsers reach the web server at `web_url`, the best address first."""
    if settings.web.public_url is not None:
        return [settings.web.public_url.rstrip("/")]
    parts = urlsplit(web_url)
    if not is_wildcard(settings.web.host):
        return [web_url]
    usable = [one for one in lan_addresses() if settings.web.host != "0.0.0.0" or ":" not in one]
    return [*(f"{parts.scheme}://{in_url(address)}:{parts.port}" for address in usable), web_url]


def page_links(base: str, settings: Settings, plan_id: str) -> dict[str, str]:
    """Each page's address, with a token in the fragment (which no browser sends) where tokens are signed here."""
    if signs_elsewhere(settings):
        return {name: f"{base}/{name}" for name in ("proctor", "examinee", "phone")}
    return {
        "proctor": f"{base}/proctor#token={issue_token(settings, 'proctor', plan_id, PROCTOR)}",
        "examinee": f"{base}/examinee#token={issue_token(settings, 'examinee', plan_id, EXAMINEE)}",
        "phone": f"{base}/phone",
    }


def describe_links(links: Mapping[str, str]) -> list[str]:
    """The links as lines; the phone's page is opened by the QR code on the examinee's."""
    told = {
        "proctor": f"  proctor {PROCTOR}   {links['proctor']}",
        "examinee": f"  examinee {EXAMINEE}  {links['examinee']}",
        "phone": f"  phone          {links['phone']}  (the examinee's page shows a QR code to it)",
    }
    return ["Pages to open:", *(told[name] for name in links), ""]


def access_notes(
    bases: Sequence[str], settings: Settings, socket_urls: Sequence[str], certificate: TrialCertificate | None
) -> list[str]:
    """What somebody has to know who opens the pages here, and on a phone."""
    lines: list[str] = []
    host = urlsplit(bases[0]).hostname or ""
    if len(bases) > 1:
        lines += ["The pages can be opened at:", *(f"  {base}/" for base in bases), ""]
    if certificate is not None:
        lines += _about_certificate(certificate, socket_urls)
    if is_loopback(host):
        if certificate is not None:
            lines += [
                "Only this machine can open these pages. For a phone or another computer in the same network:",
                "  export EXAMWIRE_SECRET=$(openssl rand -base64 48)",
                "  examwire up --tls --web-host 0.0.0.0 --socket-host 0.0.0.0",
                "",
            ]
    elif urlsplit(bases[0]).scheme == "http":
        lines += [
            "Over http a phone's browser gives no page its camera; the phone's page then takes a picture from the",
            "phone's own camera app. With --tls it asks for the camera.",
            "",
        ]
    if not is_loopback(host) and is_loopback(urlsplit(socket_urls[0]).hostname or ""):
        lines += ["Pages on other machines cannot reach the socket servers: add --socket-host 0.0.0.0", ""]
    return lines


def _about_certificate(certificate: TrialCertificate, socket_urls: Sequence[str]) -> list[str]:
    what = "was made for this trial" if certificate.made else "is that of the last trial"
    ports = [f"https://{urlsplit(url).netloc}/healthz" for url in socket_urls]
    return [
        f"The certificate {what}. Nobody else vouches for it, so each browser asks once:",
        '  Chrome, Edge, Android:  "Your connection is not private": Advanced, then Proceed',
        '  Safari, iPhone, iPad:   "This Connection Is Not Private": Show Details, then visit this website',
        '  Firefox:                "Warning: Potential Security Risk Ahead": Advanced, then Accept the Risk; for the',
        f"                          proctor's and the examinee's page also at {' and '.join(ports)}",
        "Safari does not take the exception for WebSockets: open the proctor's and the examinee's page elsewhere; the",
        "phone's page needs none. For an exam, use a certificate that browsers know (web.certificate_file).",
        f"  valid until {certificate.expires:%Y-%m-%d}, in {certificate.certificate_file.parent}",
        f"  SHA-256 {certificate.fingerprint}",
        "",
    ]
