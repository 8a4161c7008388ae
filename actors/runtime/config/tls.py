"""TLS of what listens: a certificate and its key from files, read again when they are replaced."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Protocol

from protocol.errors import ConfigurationError

log = logging.getLogger("examwire.tls")

LOOK_SECONDS = 60.0


class TlsFiles(Protocol):
    """A section of the settings that names them."""

    @property
    def certificate_file(self) -> Path | None: ...

    @property
    def key_file(self) -> Path | None: ...


class ServerTls:
    """`context` is what a server takes. `name` is the settings' section (`web`, `socket`), for errors.

    Raises `ConfigurationError` when the files are no certificate with its key.
    """

    def __init__(self, name: str, certificate_file: Path, key_file: Path) -> None:
        self._name = name
        self._certificate_file = certificate_file
        self._key_file = key_file
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        try:
            self._load()
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise ConfigurationError(
                f"{name}.certificate_file: {certificate_file} with {key_file} cannot be used: {error}"
            ) from error

    @classmethod
    def of(cls, name: str, certificate_file: Path | None, key_file: Path | None) -> ServerTls | None:
        """`None` without files: it listens in clear."""
        if certificate_file is None or key_file is None:
            return None
        return cls(name, certificate_file, key_file)

    async def follow(self) -> None:
        """Take renewed files into use, until cancelled; new connections have them, those that are open stay."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> bool:
        """Read the files again if they were replaced; True when another certificate is in use now."""
        state = self._state()
        if state == self._seen or None in state:
            return False
        try:
            # Tried aside first: a certificate whose key is not written yet must not take the place of a good pair.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self._certificate_file, self._key_file, _no_passphrase
            )
            self._load()
        except (OSError, ValueError) as error:
            log.error("%s.certificate_file: the new certificate is not used, the old one is: %s", self._name, error)
            return False
        finally:
            self._seen = state
        log.warning("%s.certificate_file: a new certificate is in use", self._name)
        return True

    def _load(self) -> None:
        # A callback that refuses: without one OpenSSL would ask for the passphrase on the terminal.
        self.context.load_cert_chain(self._certificate_file, self._key_file, _no_passphrase)

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_state_of(path) for path in (self._certificate_file, self._key_file))


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; store it without one, readable by the role's user only")


def check_tls(name: str, section: TlsFiles) -> None:
    """Refuse files that are no certificate with its key before anything is started. Raises `ConfigurationError`."""
    ServerTls.of(name, section.certificate_file, section.key_file)
