"""Create the self-signed certificate of `examwire up --tls`, for trials in the local network only."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.runtime.config.local_addresses import LOOPBACK_NAMES, lan_addresses
from protocol.errors import ConfigurationError

# Phones refuse certificates that are valid for more than 825 days (Apple, HT210176); public CAs give up to 398.
VALID_DAYS = 397
RENEW_DAYS = 7
CLOCK_SKEW = datetime.timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class TrialCertificate:
    """A certificate in PEM files. `names`: host names and addresses that it covers; `made`: it was created just now."""

    certificate_file: Path
    key_file: Path
    names: tuple[str, ...]
    fingerprint: str
    expires: datetime.datetime
    made: bool


def own_host_names() -> list[str]:
    """Return the host names and addresses of this machine, for browsers here and in the local network."""
    hostname = socket.gethostname().lower()
    names = [*LOOPBACK_NAMES, *lan_addresses(), hostname]
    if "." not in hostname:
        names.append(f"{hostname}.local")  # the multicast DNS name (RFC 6762)
    return list(dict.fromkeys(names))


def trial_certificate(directory: Path, names: Iterable[str]) -> TrialCertificate:
    """Return the certificate in a directory. Create it if it is missing, expires soon, or does not cover a name.

    Raises `ConfigurationError` when the directory is not writable.
    """
    required_names = tuple(names)
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    existing = _usable(certificate_file, key_file, required_names)
    if existing is None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = ec.generate_private_key(ec.SECP256R1())
            created = _self_signed(key, required_names)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(key_file, pem, 0o600)
            _write(certificate_file, created.public_bytes(Encoding.PEM), 0o644)
        except OSError as error:
            raise ConfigurationError(f"--tls: cannot write a certificate to {directory}: {error.strerror}") from error
    certificate = existing or created
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    expires = certificate.not_valid_after_utc
    return TrialCertificate(certificate_file, key_file, names_of(certificate), fingerprint, expires, existing is None)


def trust_certificate(certificate_file: str) -> None:
    """Make the TLS clients of this process trust this certificate only."""
    os.environ["SSL_CERT_FILE"] = certificate_file


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses in a certificate's subjectAltName."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = extension.get_values_for_type(x509.DNSName)
    return (*names, *(str(address) for address in extension.get_values_for_type(x509.IPAddress)))


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Return whether the certificate covers `host`: by name, by wildcard for one label, or by address (RFC 6125)."""
    try:
        host_name = str(ipaddress.ip_address(host))
    except ValueError:
        host_name = host.lower().rstrip(".")
    names = {name.lower() for name in names_of(certificate)}
    return host_name in names or (":" not in host_name and f"*.{host_name.partition('.')[2]}" in names)


def _usable(certificate_file: Path, key_file: Path, names: Iterable[str]) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    key_format = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    renew_before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
    key_matches = certificate.public_key().public_bytes(*key_format) == key.public_key().public_bytes(*key_format)
    if (
        not key_matches
        or certificate.not_valid_after_utc < renew_before
        or not all(is_for(certificate, name) for name in names)
    ):
        return None
    return certificate


def _self_signed(key: ec.EllipticCurvePrivateKey, names: Iterable[str]) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    # A new subject each time, as browsers confuse two certificates with the same issuer and serial number.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"examwire trial {secrets.token_hex(4)}")])
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # Not a CA: trusting it means trusting this machine only.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file with `mode` atomically: to a temporary file, which is then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    temporary.replace(path)
