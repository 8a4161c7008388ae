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


def describe_links(links: Mapping[str, str], plan_id: str, *, with_tokens: bool) -> list[str]:
    """Return the links as lines of text."""
    if not with_tokens:
        lines = [f"Pages of plan {plan_id}; tokens come from the issuer whose public key is configured:"]
        return [*lines, *(f"  {name:<8}  {link}" for name, link in links.items())]
    return [
        f"Pages of plan {plan_id}; their tokens are valid for 12 hours:",
        f"proctor {PROCTOR}   {links['proctor']}",
        f"examinee {EXAMINEE}  {links['examinee']}",
        f"phone          {links['phone']}  (QR code: the examinee's page)",
    ]


def access_notes(
    bases: Sequence[str],
    settings: Settings,
    socket_urls: Sequence[str],
    certificate: TrialCertificate | None,
    command: str,
) -> list[str]:
    """Return notes on opening the pages: the certificate, and what phones and other computers can reach."""
    local = is_loopback(urlsplit(bases[0]).hostname or "")
    lines = _about_certificate(certificate, socket_urls, phones=not local) if certificate is not None else []
    if local:
        return [
            *lines,
            "Only this machine can open them. For phones and other computers:",
            *([] if settings.secret is not None else ["  export EXAMWIRE_SECRET=$(openssl rand -base64 48)"]),
            f"  {command} up --tls --web-host 0.0.0.0 --socket-host 0.0.0.0",
        ]
    if urlsplit(bases[0]).scheme == "http":
        lines.append("Over http, phones use their camera app; with --tls, the page opens the camera.")
    if is_loopback(urlsplit(socket_urls[0]).hostname or ""):
        lines.append("Pages on other machines cannot reach the socket servers: add --socket-host 0.0.0.0")
    else:
        others = [f"  or {base}/" for base in bases[1:] if not is_loopback(urlsplit(base).hostname or "")]
        lines += [f"Phones and other computers can open {bases[0]}/", *others]
    return lines


def _about_certificate(certificate: TrialCertificate, socket_urls: Sequence[str], *, phones: bool) -> list[str]:
    return [
        "The certificate is self-signed. Each browser warns once; open the page anyway:",
        "  Chrome, Edge: Advanced, then Proceed. Firefox: Advanced, Accept Risk, also",
        f"  {' '.join(f'https://{urlsplit(url).netloc}/healthz' for url in socket_urls)}",
        *(["  Safari, iPhone: Show Details, then visit this website; the phone page only."] if phones else []),
        f"  SHA-256 {certificate.fingerprint.replace(':', '')}",
    ]
