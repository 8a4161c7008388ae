"""Verify and issue tokens: JWTs (RFC 7519) signed with HS256, or RS256/EdDSA ones of the exam platform."""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
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

_PLAIN_HEADERS = frozenset(
    base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    for header in (b'{"alg":"HS256","typ":"JWT"}', b'{"typ":"JWT","alg":"HS256"}', b'{"alg":"HS256"}')
)
_PLAIN = re.compile(r"([\w-]+)\.([\w-]+)\.([\w-]{43})", re.ASCII)


class TokenVerifier:
    """Verifies tokens with the keys of the settings: the shared secret, or the issuer's public keys.

    When both are set, the secret verifies only the tokens that web servers issue to phones
    (`actors.web_server.api.phone_codes`). `now`: the broker's clock, in seconds since the epoch.

    Example::

        verifier = TokenVerifier(settings, bus.clock.now)
        claims = verifier.verify(bearer(request.headers.get("authorization")))
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._leeway = settings.token.leeway_seconds
        # Parsed once: an invalid key fails at the start, and verifying thousands of tokens at a time stays cheap.
        self._key: Any = None
        self._algorithms = _ASYMMETRIC
        self._key_set: jwt.PyJWKSet | None = None
        self._phone_key: Any = None
        self._secret: bytes | None = None
        try:
            if signs_elsewhere(settings) and settings.secret is not None:
                self._phone_key = _secret_key(settings)
            if settings.token.jwks_file is not None:
                self._key_set = _key_set(settings.token.jwks_file.read_text("utf-8"))
            elif settings.token.public_key_file is not None:
                self._key = load_pem_public_key(settings.token.public_key_file.read_bytes())
                if not isinstance(self._key, RSAPublicKey | Ed25519PublicKey):
                    raise ValueError("neither an RSA nor an Ed25519 public key")
            else:
                self._key, self._algorithms = _secret_key(settings), ["HS256"]
                self._secret = token_secret(settings).encode()
        except (OSError, ValueError, UnsupportedAlgorithm, jwt.PyJWTError) as error:
            path = settings.token.jwks_file or settings.token.public_key_file
            reason = f"{path}: {str(error).partition('. ')[0]}" if path is not None else str(error)
            raise ConfigurationError(f"token: the issuer's keys cannot be read: {reason}") from error

    def verify(self, token: str | None) -> Claims:
        """Verify a token and return its claims.

        Raises `InvalidToken` that says what is wrong, without the token; `TokenNotYetValid` when it begins later.
        """
        if not token:
            raise InvalidToken("no token was given")
        payload = _plain_payload(token, self._secret) if self._secret is not None else None
        is_phone_token = False
        if payload is None:
            payload, is_phone_token = self._payload(token)
        claims = Claims.read(payload)
        self._check_times(payload)
        if is_phone_token and claims.role != "mobile":
            raise InvalidToken("the token is not the issuer's, and only those of phones are signed here")
        return claims

    def _payload(self, token: str) -> tuple[dict[str, Any], bool]:
        """Verify a token with PyJWT; return its payload, and whether it is one that is signed here for a phone."""
        key, algorithms, is_phone_token = self._key, self._algorithms, False
        try:
            if self._phone_key is not None and jwt.get_unverified_header(token).get("alg") == "HS256":
                # Each key with its own algorithms only: a public key is never taken for a secret.
                key, algorithms, is_phone_token = self._phone_key, ["HS256"], True
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
        return payload, is_phone_token

    def _check_times(self, payload: dict[str, Any]) -> None:
        """Raise `InvalidToken` when the token has expired, `TokenNotYetValid` when it is not valid yet.

        A token is refused only when this machine's clock and the broker's clock agree: a single wrong clock must not
        lock out everybody (`BrokerClock` reports it). The leeway is for the issuer's clock.
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


def _plain_payload(token: str, secret: bytes) -> dict[str, Any] | None:
    """Return the payload of a usual token of the shared secret, if its signature and its claims are valid.

    `None`: PyJWT decides. It takes ten times as long, and a hall of thousands shows its tokens at the same time.
    """
    parts = _PLAIN.fullmatch(token)
    if parts is None or parts[1] not in _PLAIN_HEADERS:
        return None
    signature = hmac.digest(secret, token[: parts.end(2)].encode(), "sha256")
    if not hmac.compare_digest(base64.urlsafe_b64encode(signature)[:43], parts[3].encode()):
        return None
    try:
        encoded = base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4))
        payload = json.loads(encoded)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(payload, dict)
        or payload.get("aud") != AUDIENCE
        or payload.get("exp") is None
        or not isinstance(payload.get("sub"), str)
        or not isinstance(payload.get("jti", ""), str)
        or base64.urlsafe_b64encode(encoded).rstrip(b"=") != parts[2].encode()
    ):
        return None
    return payload


def _moment(payload: dict[str, Any], claim: str, missing: float) -> float:
    """Return a NumericDate claim (RFC 7519), or `missing`. Raises `InvalidToken`."""
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
    """Check the keys before anything is started. Raises `ConfigurationError`.

    `needed`: this process verifies or signs tokens; without it a missing secret is not created.
    """
    if needed or settings.secret is not None or signs_elsewhere(settings):
        TokenVerifier(settings)


def _key_set(text: str) -> jwt.PyJWKSet:
    """Parse the public keys of a JWKS document (RFC 7517). Raises `ValueError` or `PyJWTError`."""
    document = json.loads(text)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError('not a JWKS: {"keys": [...]} is expected')
    try:
        key_set = jwt.PyJWKSet.from_dict(document)
    except (TypeError, AttributeError, KeyError) as error:  # a key has fields of the wrong type
        raise ValueError(f"not a JWKS: {error!r}") from error
    if not any(key.key_type in ("RSA", "OKP") for key in key_set.keys):
        raise ValueError("the JWKS holds neither an RSA nor an Ed25519 public key")
    return key_set


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
    scope: Mapping[str, Sequence[str]] | None = None,
    name: str | None = None,
) -> str:
    """Sign a token with the shared secret. Raises `InvalidField` for an invalid id.

    `scope`: the labels that a proctor is limited to.

    `seconds`: how long it is valid, from `issued_at` (seconds since the epoch; default: now, by this machine's clock).
    `name`: how people read who the bearer is.
    """
    check_id("planId", plan_id)
    check_id("sub", subject)
    now = int(time.time() if issued_at is None else issued_at)
    claims: dict[str, Any] = {"sub": subject, "role": role, "plan": plan_id, "aud": AUDIENCE}
    claims |= {"iat": now, "exp": int(now + seconds)}
    if scope is not None:
        claims["scope"] = {label: list(values) for label, values in scope.items()}
    if name is not None:
        claims["name"] = name
    return jwt.encode(claims, token_secret(settings), algorithm="HS256")


def bearer(header: str | None) -> str | None:
    """Return the token of an `Authorization: Bearer` header (RFC 6750); `None` for any other value."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
