"""Check that the running system accepts tokens signed by this command, before they are handed out."""

from __future__ import annotations

import hashlib

from actors.runtime.config.settings import Settings, signs_elsewhere, token_secret, variable_of
from cli.shared.running_system import RunningSystem
from protocol.errors import ConfigurationError


def secret_fingerprint(settings: Settings) -> str:
    """Return a hash that tells two token secrets apart without revealing them; `examwire up` writes it to its data."""
    return hashlib.sha256(b"examwire token secret:" + token_secret(settings).encode()).hexdigest()[:16]


def require_tokens_accepted(settings: Settings) -> None:
    """Raise `ConfigurationError` when tokens signed with these settings would be refused.

    They are refused when these settings, or the `examwire up` on this data directory, name an issuer's public key, or
    when that `examwire up` was started with another secret.
    """
    if signs_elsewhere(settings):
        raise ConfigurationError(
            "token: the settings name an issuer's public key, so tokens signed here would be refused: get tokens from "
            "the issuer"
        )
    running = RunningSystem.find(settings.data_dir)
    if running is not None and running.issuer_keys:
        raise ConfigurationError(
            f"token: the `examwire up` on {settings.data_dir} was started with an issuer's public key, so tokens "
            "signed here would be refused: get tokens from the issuer"
        )
    expected = running.secret_fingerprint if running is not None else None
    if expected is not None and expected != secret_fingerprint(settings):
        raise ConfigurationError(
            f"token: the `examwire up` on {settings.data_dir} was started with another secret, so tokens signed here "
            f"would be refused: set the same {variable_of('secret')} for this command"
        )
