"""TLS of the servers: a certificate and its key from files, read again when they are replaced."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Protocol

from protocol.errors import ConfigurationError

log = logging.getLogger("examwire.tls")

CHECK_SECONDS = 60.0


class TlsFiles(Protocol):
    """A section of the settings that names a certificate and its key."""

    @property
    def certificate_file(self) -> Path | None: ...

    @property
    def key_file(self) -> Path | None: ...


class ServerTls:
    """The TLS context of a server. `name` is the section of the settings (`web`, `socket`), for errors.

    Raises `ConfigurationError` when the files are not a certificate with its key.

    Example::

        tls = ServerTls("web", Path("web.pem"), Path("web.key"))
        server = HttpServer(app, connections, drain_seconds=5, tls=tls.context)
        await tls.follow()
    """

    def __init__(self, name: str, certificate_file: Path, key_file: Path) -> None:
        self._name = name
        self._certificate_file = certificate_file
        self._key_file = key_file
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._loaded_state = self._state()
        try:
            self._load()
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise ConfigurationError(
                f"{name}.certificate_file: {certificate_file} with {key_file} cannot be used: {error}"
            ) from error

    @classmethod
    def of(cls, name: str, certificate_file: Path | None, key_file: Path | None) -> ServerTls | None:
        """Return the TLS of the files; `None` without files: the server uses no TLS."""
        if certificate_file is None or key_file is None:
            return None
        return cls(name, certificate_file, key_file)

    async def follow(self) -> None:
        """Reload replaced files, until cancelled. New connections use them; open ones continue."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.reload()

    def reload(self) -> bool:
        """Read the files again if they were replaced. Return whether another certificate is in use now."""
        state = self._state()
        if state == self._loaded_state or None in state:
            return False
        try:
            # Tested in another context: a certificate whose key is not written yet must not replace a good pair.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self._certificate_file, self._key_file, _no_passphrase
            )
            self._load()
        except (OSError, ValueError) as error:
            log.error(
                "%s.certificate_file: the old certificate stays in use, the new one is not valid: %s", self._name, error
            )
            return False
        finally:
            self._loaded_state = state
        log.warning("%s.certificate_file: a new certificate is in use", self._name)
        return True

    def _load(self) -> None:
        # The callback refuses: without one OpenSSL would ask for the passphrase on the terminal.
        self.context.load_cert_chain(self._certificate_file, self._key_file, _no_passphrase)

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_state_of(path) for path in (self._certificate_file, self._key_file))


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; store it without one, readable by the role's user only")


def check_tls(name: str, section: TlsFiles) -> None:
    """Check the certificate and key before anything is started. Raises `ConfigurationError`."""
    ServerTls.of(name, section.certificate_file, section.key_file)
