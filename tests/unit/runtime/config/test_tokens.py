from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import example, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from actors.runtime.config.settings import Settings, load_settings, require_secret_beyond_loopback, token_secret
from actors.runtime.config.tokens import TokenVerifier, bearer, issue_token
from protocol.access.claims import Claims
from protocol.errors import ConfigurationError, InvalidField, InvalidToken, TokenNotYetValid

SECRET = "a secret of at least thirty-two characters"
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(secret=SECRET, data_dir=tmp_path)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def claims(**changes: Any) -> dict[str, Any]:
    usual = {"sub": "E001", "role": "examinee", "plan": "P001", "aud": "examwire", "exp": int(time.time()) + 60}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def refusal(settings: Settings, token: str | None) -> str:
    """Why a token is refused; whatever the reason, the text repeats nothing of the token."""
    with pytest.raises(InvalidToken) as raised:
        TokenVerifier(settings).verify(token)
    text = str(raised.value)
    for part in (token or "").split("."):
        assert len(part) < 6 or part not in text
    return text


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def with_public_key(directory: Path, key: PrivateKey) -> Settings:
    path = directory / "issuer.pem"
    path.write_bytes(public_pem(key))
    return load_settings(data_dir=directory, **{"token.public_key_file": path})


def with_jwks(directory: Path, **keys: PrivateKey) -> Settings:
    entries = []
    for kid, key in keys.items():
        algorithm: Any = jwt.algorithms.RSAAlgorithm
        if isinstance(key, ed25519.Ed25519PrivateKey):
            algorithm = jwt.algorithms.OKPAlgorithm
        entries.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
    path = directory / "jwks.json"
    path.write_text(json.dumps({"keys": entries}))
    return load_settings(data_dir=directory, **{"token.jwks_file": path})


# -- the shared secret ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["examinee", "proctor", "mobile", "operator"])
def test_an_issued_token_has_the_claims_it_was_issued_for(settings: Settings, role: Any) -> None:
    read = TokenVerifier(settings).verify(issue_token(settings, role, "P001", "E001"))
    assert (read.sub, read.role, read.plan, read.aud) == ("E001", role, "P001", "examwire")
    assert read.exp > time.time() + 3600


@pytest.mark.parametrize(("plan", "subject"), [("P.1", "E001"), ("P001", "E*"), ("", "E001"), ("P001", "a" * 65)])
def test_no_token_is_issued_for_an_invalid_id(settings: Settings, plan: str, subject: str) -> None:
    with pytest.raises(InvalidField):
        issue_token(settings, "examinee", plan, subject)


def test_a_missing_token_is_refused(settings: Settings) -> None:
    assert refusal(settings, None) == "no token was given"
    assert refusal(settings, "") == "no token was given"


def test_an_expired_token_is_refused_as_expired(settings: Settings) -> None:
    assert refusal(settings, issue_token(settings, "examinee", "P001", "E001", seconds=-11)) == "the token has expired"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"aud": "somebody"}, "udience"),
        ({"aud": None}, "aud"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"role": None}, "role"),
        ({"plan": None}, "plan"),
        ({"role": "admin"}, "role"),
        ({"plan": "P.1"}, "plan"),
        ({"plan": "*"}, "plan"),
        ({"sub": "E 1"}, "sub"),
        ({"nbf": 2**40}, "not yet valid"),
    ],
)
def test_an_invalid_claim_is_named(settings: Settings, changes: dict[str, Any], says: str) -> None:
    assert says in refusal(settings, signed(**changes))


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "...",
        "eyJhbGciOiJIUzI1NiJ9.e30.",
        "\ud800",
        "é.é.é",
        "x" * 8192,
        "Bearer x",
        "eyJhbGciOiJIUzI1NiIsImtpZCI6eyJhIjoxfX0.e30.AAAA",
    ],
    ids=lambda token: repr(token[:12]),
)
def test_a_malformed_token_is_refused(settings: Settings, token: str) -> None:
    assert refusal(settings, token)


def test_a_token_signed_by_somebody_else_is_refused(settings: Settings) -> None:
    assert refusal(settings, signed("another secret, just as long as the first"))


def test_a_token_with_a_changed_payload_is_refused(settings: Settings) -> None:
    header, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(role="proctor")).encode()).rstrip(b"=").decode()
    assert refusal(settings, f"{header}.{body}.{signature}")


def test_an_unsigned_token_is_refused(settings: Settings, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    unsigned = jwt.encode(claims(), "", algorithm="none")
    assert refusal(settings, unsigned)
    assert refusal(with_public_key(tmp_path, rsa_key), unsigned)
    assert refusal(with_jwks(tmp_path, one=rsa_key), unsigned)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_token_with_another_algorithm_is_refused(settings: Settings, algorithm: str) -> None:
    long = SECRET * 2
    assert refusal(load_settings(secret=long), signed(long, algorithm))
    assert TokenVerifier(load_settings(secret=long)).verify(signed(long))


_HEADERS = (
    '{"alg":"HS256","typ":"JWT"}',
    '{"typ":"JWT","alg":"HS256"}',
    '{"alg":"HS256"}',
    '{"alg":"HS256","crit":["b64"],"b64":false}',
    '{"alg":"none"}',
    '{"alg":"HS512"}',
    "[]",
)
_ANY_CLAIM = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.text(max_size=2)))


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _signed_segments(header: str, payload: str) -> str:
    signature = hmac.digest(SECRET.encode(), f"{header}.{payload}".encode(), "sha256")
    return f"{header}.{payload}.{_segment(signature)}"


def _with_loose_end(payload: bytes) -> str:
    """Encode with a last character that says the same and is not what an encoder writes."""
    encoded = _segment(payload + b" " * (len(payload) % 3 == 0))
    return encoded[:-1] + chr(ord(encoded[-1]) + 1)


@st.composite
def _tokens(draw: st.DrawFn) -> str:
    """Tokens of the secret, as they are or damaged in one place; their headers and claims may be unusual."""
    changes = draw(st.dictionaries(st.sampled_from(["sub", "aud", "exp", "jti", "iss", "nbf", "role"]), _ANY_CLAIM))
    payload = draw(st.sampled_from([json.dumps(claims() | changes).encode(), b"[1]", b"{", b'"x"', b"\xff", b""]))
    token = _signed_segments(_segment(draw(st.sampled_from(_HEADERS)).encode()), _segment(payload))
    place = draw(st.integers(0, len(token)))
    cut = draw(st.integers(0, 1))
    changed = token[:place] + draw(st.sampled_from(["", "=", ".", "A", "_", "+", "é", " "])) + token[place + cut :]
    return draw(st.sampled_from([token, token, changed, token + "=", token + "=="]))


@settings_of_hypothesis(max_examples=400, deadline=None)
@given(token=_tokens())
@example(token=signed())
@example(token=_signed_segments(_segment(_HEADERS[0].encode()), _with_loose_end(json.dumps(claims()).encode())))
def test_the_short_way_decides_as_pyjwt_does(token: str) -> None:
    def outcome(verifier: TokenVerifier) -> object:
        try:
            return verifier.verify(token)
        except InvalidToken as error:
            return str(error)

    short, whole = (TokenVerifier(load_settings(secret=SECRET)) for _ in range(2))
    whole._secret = None  # PyJWT alone
    assert outcome(short) == outcome(whole)


def test_a_usual_token_is_verified_without_pyjwt(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    token = issue_token(settings, "examinee", "P001", "E001")
    monkeypatch.delattr(jwt, "decode")
    assert TokenVerifier(settings).verify(token).sub == "E001"


def test_a_secret_is_created_once_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "new")
    token = issue_token(settings, "proctor", "P001", "S001")
    assert TokenVerifier(load_settings(data_dir=tmp_path / "new")).verify(token).sub == "S001"
    path = tmp_path / "new" / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text()) >= 32
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]
    assert refusal(load_settings(data_dir=tmp_path / "other"), token)


def test_a_short_secret_is_refused_naming_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^secret: .*32") as raised:
        token_secret(load_settings(secret="short-one"))
    assert "short-one" not in str(raised.value)


def test_an_unusable_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"data_dir: .*file cannot be made: it is not a directory"):
        token_secret(load_settings(data_dir=tmp_path / "file"))


# -- the keys of an exam platform -------------------------------------------------------------------------


def test_tokens_of_the_platform_are_verified_with_its_public_key(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ed_key: ed25519.Ed25519PrivateKey
) -> None:
    by_rsa = TokenVerifier(with_public_key(tmp_path, rsa_key))
    assert by_rsa.verify(signed(rsa_key, "RS256")).sub == "E001"
    by_ed = TokenVerifier(with_public_key(tmp_path, ed_key))
    assert by_ed.verify(signed(ed_key, "EdDSA")).sub == "E001"
    for verifier, token in ((by_rsa, signed(ed_key, "EdDSA")), (by_ed, signed(rsa_key, "RS256"))):
        with pytest.raises(InvalidToken):
            verifier.verify(token)


def test_the_public_key_is_never_used_as_a_shared_secret(tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    """The classic forgery: HS256 with the public key, which everybody has, as its secret."""
    settings = with_public_key(tmp_path, rsa_key)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}".encode()
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = base64.urlsafe_b64encode(hmac.sign(body, public_pem(rsa_key))).rstrip(b"=").decode()
    assert refusal(settings, f"{body.decode()}.{signature}")


def test_with_a_public_key_tokens_signed_with_the_secret_are_refused(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    settings = with_public_key(tmp_path, rsa_key)
    assert refusal(settings, issue_token(settings, "proctor", "P001", "S001"))


def test_the_key_that_the_token_names_is_used(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ed_key: ed25519.Ed25519PrivateKey
) -> None:
    settings = with_jwks(tmp_path, old=rsa_key, new=ed_key)
    verifier = TokenVerifier(settings)
    assert verifier.verify(signed(rsa_key, "RS256", {"kid": "old"})).sub == "E001"
    assert verifier.verify(signed(ed_key, "EdDSA", {"kid": "new"})).sub == "E001"
    assert refusal(settings, signed(rsa_key, "RS256", {"kid": "new"}))
    assert "key" in refusal(settings, signed(rsa_key, "RS256", {"kid": "gone"}))
    assert "key" in refusal(settings, signed(rsa_key, "RS256"))
    assert refusal(settings, signed(ed_key, "EdDSA", {"kid": "new"}, exp=1)) == "the token has expired"


@pytest.mark.parametrize("setting", ["token.public_key_file", "token.jwks_file"])
def test_a_missing_key_file_fails_at_the_start(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigurationError, match="token"):
        TokenVerifier(load_settings(**{setting: tmp_path / "gone"}))


@pytest.mark.parametrize(
    "setting",
    ["token.public_key_file", "token.jwks_file"],
)
def test_a_file_without_a_key_fails_at_the_start(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "garbage"
    path.write_text("no key at all")
    with pytest.raises(ConfigurationError, match="token"):
        TokenVerifier(load_settings(**{setting: path}))


# -- what a bearer may do ---------------------------------------------------------------------------------


def test_only_the_examinee_and_their_phone_may_upload_a_picture() -> None:
    for role, may in {"examinee": True, "mobile": True, "proctor": False, "operator": False}.items():
        bearer_claims = Claims.read(claims(role=role))
        assert bearer_claims.may_upload_for("P001", "E001") is may
        assert not bearer_claims.may_upload_for("P001", "E002")
        assert not bearer_claims.may_upload_for("P002", "E001")


def test_only_proctors_of_a_plan_may_watch_it() -> None:
    for role, may in {"examinee": False, "mobile": False, "proctor": True, "operator": False}.items():
        bearer_claims = Claims.read(claims(role=role))
        assert bearer_claims.may_watch("P001") is may
        assert not bearer_claims.may_watch("P002")


def test_only_the_examinee_and_proctors_of_the_plan_may_see_a_picture() -> None:
    for role, may in {"examinee": True, "mobile": False, "proctor": True, "operator": False}.items():
        bearer_claims = Claims.read(claims(role=role))
        assert bearer_claims.may_see_picture_of("P001", "E001") is may
        assert bearer_claims.may_see_picture_of("P001", "E002") is (role == "proctor")
        assert not bearer_claims.may_see_picture_of("P002", "E001")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("BEARER abc", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_only_bearer_headers_are_read(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


# -- beyond loopback --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_configured_secret(host: str) -> None:
    require_secret_beyond_loopback(load_settings(), "socket.host", host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_beyond_loopback_a_secret_or_a_public_key_is_required(
    host: str, tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    with pytest.raises(ConfigurationError, match=r"^socket\.host: .*secret"):
        require_secret_beyond_loopback(load_settings(), "socket.host", host)
    require_secret_beyond_loopback(load_settings(secret=SECRET), "socket.host", host)
    require_secret_beyond_loopback(with_public_key(tmp_path, rsa_key), "socket.host", host)
    require_secret_beyond_loopback(with_jwks(tmp_path, one=rsa_key), "socket.host", host)


# -- clocks ------------------------------------------------------------------------------------------------


def with_claim(claim: str, value: object) -> str:
    changes: dict[str, Any] = {claim: value}
    return signed(**changes)


@pytest.mark.parametrize(("claim", "accepted", "refused"), [("iat", 5, 30), ("nbf", 5, 30), ("exp", -5, -30)])
def test_the_issuers_clock_may_differ_by_the_leeway(
    settings: Settings, claim: str, accepted: int, refused: int
) -> None:
    now = int(time.time())
    assert TokenVerifier(settings).verify(with_claim(claim, now + accepted)).sub == "E001"
    with pytest.raises(InvalidToken) as raised:
        TokenVerifier(settings).verify(with_claim(claim, now + refused))
    assert isinstance(raised.value, TokenNotYetValid) is (claim != "exp")
    assert ("expired" in str(raised.value)) is (claim == "exp")
    wide = settings.model_copy(update={"token": settings.token.model_copy(update={"leeway_seconds": 60.0})})
    assert TokenVerifier(wide).verify(with_claim(claim, now + refused)).sub == "E001"


@pytest.mark.parametrize("broker_ahead", [7200.0, -7200.0, 150.0, -150.0])
def test_the_times_of_a_token_are_refused_only_when_both_clocks_agree(settings: Settings, broker_ahead: float) -> None:
    verifier = TokenVerifier(settings, lambda: time.time() + broker_ahead)
    by_broker, by_this_machine = time.time() + broker_ahead, time.time()
    for issued_at in (by_broker, by_this_machine):
        assert verifier.verify(signed(iat=int(issued_at), exp=int(issued_at) + 60)).sub == "E001"
    with pytest.raises(InvalidToken, match="has expired"):
        verifier.verify(signed(exp=int(min(by_broker, by_this_machine)) - 30))
    with pytest.raises(TokenNotYetValid):
        verifier.verify(signed(iat=int(max(by_broker, by_this_machine)) + 30, exp=2**40))


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", ["soon", True, [], {}, 1e308 * 10])
def test_an_invalid_time_claim_is_refused(settings: Settings, claim: str, value: object) -> None:
    assert claim in refusal(settings, with_claim(claim, value))


@pytest.mark.parametrize(
    ("claim", "read"),
    [
        ("김하늘", "김하늘"),
        ("Kim\x1b[2J\nLee\u202e", "Kim[2J Lee"),
        ("x" * 300, "x" * 100),
        ("\u200b", None),
        (7, None),
    ],
)
def test_the_name_of_a_bearer_is_cleaned_and_refuses_nobody(claim: object, read: str | None) -> None:
    claims = Claims.read({"sub": "kim", "role": "proctor", "plan": "P001", "exp": 2**33, "name": claim})
    assert claims.name == read
