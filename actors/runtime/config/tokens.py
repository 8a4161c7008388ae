"""Tokens: JWTs, HS256 by a shared secret, or RS256/EdDSA by the exam platform's public key or JWKS file."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from actors.runtime.config.settings import Settings, signs_elsewhere, token_secret
from protocol.access.claims import AUDIENCE, Claims
from protocol.errors import ConfigurationError, InvalidToken, TokenNotYetValid
from protocol.ids import check_id
from protocol.messages.frames import Role

_ASYMMETRIC = ["RS256", "EdDSA"]


class TokenVerifier:
    """Verifies tokens by the keys of the settings. An issuer's public key replaces the shared secret.

    With both, the secret is that of our own web servers: it is good for tokens of phones
    (`actors.web_server.api.phone_codes`), and
    for nothing else. `now`: the broker's clock, seconds since the epoch.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._leeway = settings.token.leeway_seconds
        # Parsed once: a key that is none fails at the start, and a hall that comes back does not pay for it.
        self._key: Any = None
        self._algorithms = _ASYMMETRIC
        self._key_set: jwt.PyJWKSet | None = None
        self._own: Any = None
        try:
            if signs_elsewhere(settings) and settings.secret is not None:
                self._own = _secret_key(settings)
            if settings.token.jwks_file is not None:
                self._key_set = _key_set(settings.token.jwks_file.read_text())
            elif settings.token.public_key_file is not None:
                self._key = load_pem_public_key(settings.token.public_key_file.read_bytes())
                if not isinstance(self._key, RSAPublicKey | Ed25519PublicKey):
                    raise ValueError("neither an RSA nor an Ed25519 public key")
            else:
                self._key, self._algorithms = _secret_key(settings), ["HS256"]
        except (OSError, ValueError, UnsupportedAlgorithm, jwt.PyJWTError) as error:
            path = settings.token.jwks_file or settings.token.public_key_file
            said = f"{path}: {str(error).partition('. ')[0]}" if path is not None else str(error)
            raise ConfigurationError(f"token: the issuer's keys cannot be read: {said}") from error

    def verify(self, token: str | None) -> Claims:
        """The claims of a token.

        Raises `InvalidToken` saying what is wrong, never repeating the token; `TokenNotYetValid` when time mends it.
        """
        if not token:
            raise InvalidToken("no token was given")
        key, algorithms, own = self._key, self._algorithms, False
        try:
            if self._own is not None and jwt.get_unverified_header(token).get("alg") == "HS256":
                # Each key with its own algorithms only: a public key is never taken for a secret.
                key, algorithms, own = self._own, ["HS256"], True
            elif self._key_set is not None:
                key = self._key_set[jwt.get_unverified_header(token).get("kid", "")].key
            payload = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=AUDIENCE,
                # The times are checked below, by our clocks.
                options={
                    "require": ["exp", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except KeyError:
            raise InvalidToken("the token names a key that the issuer does not have") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise InvalidToken(f"the token is not valid: {error}") from None
        claims = Claims.read(payload)
        self._check_times(payload)
        if own and claims.role != "mobile":
            raise InvalidToken("the token is not the issuer's, and only those of phones are signed here")
        return claims

    def _check_times(self, payload: dict[str, Any]) -> None:
        """Raise `InvalidToken` when the token has expired, `TokenNotYetValid` when it is not valid yet.

        The issuer's clock is a third one. A token is refused only when this machine's clock and the broker's both say
        so: one of them that is wrong must not lock out everybody (that it is wrong is told, see `BrokerClock`).
        """
        earliest, latest = sorted((time.time(), self._now()))
        if _moment(payload, "exp", math.inf) <= earliest - self._leeway:
            raise InvalidToken("the token has expired")
        begins = max(_moment(payload, "nbf", 0.0), _moment(payload, "iat", 0.0))
        if begins > latest + self._leeway:
            raise TokenNotYetValid(
                f"the token is not yet valid: it begins {math.ceil(begins - latest)} s from now; the clock of who "
                "issued it may be ahead"
            )


def _moment(payload: dict[str, Any], claim: str, missing: float) -> float:
    """A NumericDate (RFC 7519). Raises `InvalidToken`."""
    value = payload.get(claim)
    if value is None:
        return missing
    try:
        moment = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        moment = math.nan
    if not math.isfinite(moment):
        raise InvalidToken(f"claim {claim}: must be a number of seconds")
    return moment


def check_token_keys(settings: Settings, *, needed: bool = True) -> None:
    """Refuse keys that are none before anything is started with them. Raises `ConfigurationError`.

    `needed`: this process checks or signs tokens. One that does not has none made for it.
    """
    if needed or settings.secret is not None or signs_elsewhere(settings):
        TokenVerifier(settings)


def _key_set(text: str) -> jwt.PyJWKSet:
    """The public keys of a JWKS document. Raises `ValueError` or `PyJWTError`."""
    document = json.loads(text)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('not a JWKS: {"keys": [...]} is expected')
    try:
        found = jwt.PyJWKSet.from_dict(document)
    except (TypeError, AttributeError, KeyError) as error:  # of a key whose fields are not what they should be
        raise ValueError(f"not a JWKS: {error!r}") from error
    if not any(key.key_type in ("RSA", "OKP") for key in found.keys):
        raise ValueError("the JWKS holds neither an RSA nor an Ed25519 public key")
    return found


def _secret_key(settings: Settings) -> jwt.PyJWK:
    secret = base64.urlsafe_b64encode(token_secret(settings).encode()).decode()
    return jwt.PyJWK({"kty": "oct", "k": secret}, "HS256")


def issue_token(
    settings: Settings,
    role: Role,
    plan_id: str,
    subject: str,
    *,
    seconds: float = 12 * 3600.0,
    issued_at: float | None = None,
) -> str:
    """A token signed with the shared secret, as of `issued_at` (default: now, by this machine).

    Raises `InvalidField` for a bad id.
    """
    check_id("planId", plan_id)
    check_id("sub", subject)
    now = int(time.time() if issued_at is None else issued_at)
    claims = {"sub": subject, "role": role, "plan": plan_id, "aud": AUDIENCE, "iat": now, "exp": int(now + seconds)}
    return jwt.encode(claims, token_secret(settings), algorithm="HS256")


def bearer(header: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header, if that is what it is."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
