"""Tokens: JWTs, HS256 by a shared secret, or RS256/EdDSA by the exam platform's public key or JWKS file."""

from __future__ import annotations

import time
from typing import Any

import jwt

from actors.runtime.settings import Settings, token_secret
from protocol.claims import AUDIENCE, Claims
from protocol.errors import ConfigurationError, InvalidToken
from protocol.frames import Role
from protocol.ids import check_id

_ASYMMETRIC = ["RS256", "EdDSA"]


class TokenVerifier:
    """Verifies tokens by the keys of the settings. An issuer's public key replaces the shared secret."""

    def __init__(self, settings: Settings) -> None:
        self._secret: str | None = None
        self._public_key: str | None = None
        self._key_set: jwt.PyJWKSet | None = None
        try:
            if settings.token.jwks_file is not None:
                self._key_set = jwt.PyJWKSet.from_json(settings.token.jwks_file.read_text())
            elif settings.token.public_key_file is not None:
                self._public_key = settings.token.public_key_file.read_text()
            else:
                self._secret = token_secret(settings)
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise ConfigurationError(f"token: the issuer's keys cannot be read: {error}") from error

    def verify(self, token: str | None) -> Claims:
        """The claims of a token. Raises `InvalidToken` saying what is wrong, never repeating the token."""
        if not token:
            raise InvalidToken("no token was given")
        key: Any
        try:
            if self._key_set is not None:
                key, algorithms = self._key_set[jwt.get_unverified_header(token).get("kid", "")].key, _ASYMMETRIC
            elif self._public_key is not None:
                key, algorithms = self._public_key, _ASYMMETRIC
            else:
                key, algorithms = self._secret, ["HS256"]
            payload = jwt.decode(
                token, key, algorithms=algorithms, audience=AUDIENCE, options={"require": ["exp", "aud", "sub"]}
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("the token has expired") from None
        except KeyError:
            raise InvalidToken("the token names a key that the issuer does not have") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise InvalidToken(f"the token is not valid: {error}") from None
        return Claims.read(payload)


def issue_token(settings: Settings, role: Role, plan_id: str, subject: str, *, seconds: float = 12 * 3600.0) -> str:
    """A token signed with the shared secret. Raises `InvalidField` for a bad id."""
    check_id("planId", plan_id)
    check_id("sub", subject)
    now = int(time.time())
    claims = {"sub": subject, "role": role, "plan": plan_id, "aud": AUDIENCE, "iat": now, "exp": int(now + seconds)}
    return jwt.encode(claims, token_secret(settings), algorithm="HS256")


def bearer(header: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header, if that is what it is."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
