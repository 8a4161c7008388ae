"""Whether tokens that are signed here are taken by the system they are for, found out before they are handed out."""

from __future__ import annotations

import hashlib

from actors.runtime.config.settings import Settings, signs_elsewhere, token_secret, variable_of
from cli.shared.running_system import RunningSystem
from protocol.errors import ConfigurationError


def secret_fingerprint(settings: Settings) -> str:
    """What tells two token secrets apart without saying either: `examwire up` leaves that of its own in its data."""
    return hashlib.sha256(b"examwire token secret:" + token_secret(settings).encode()).hexdigest()[:16]


def require_tokens_accepted(settings: Settings) -> None:
    """Raises `ConfigurationError` when tokens signed by these settings would be refused.

    Because they come from an issuer of which only the public key is known, by these settings or by those of the
    `examwire up` that runs on this data directory; or because that was started with another secret: a variable that
    only its own terminal has.
    """
    if signs_elsewhere(settings):
        raise ConfigurationError(
            "token: the settings name an issuer's public key, so tokens signed here would be refused; ask the issuer"
        )
    running = RunningSystem.on(settings.data_dir)
    if running is not None and running.issuer_keys:
        raise ConfigurationError(
            f"token: the `examwire up` on {settings.data_dir} was started with an issuer's public key, so tokens "
            "signed here would be refused; ask the issuer"
        )
    expected = running.secret_fingerprint if running is not None else None
    if expected is not None and expected != secret_fingerprint(settings):
        raise ConfigurationError(
            f"token: the `examwire up` on {settings.data_dir} was started with another secret, so tokens signed here "
            f"would be refused: give this command the same {variable_of('secret')}"
        )
