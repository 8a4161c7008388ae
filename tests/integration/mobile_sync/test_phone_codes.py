"""A phone joins an examinee by a code: made, typed, expired, guessed."""

from __future__ import annotations

import asyncio
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from actors.runtime.broker.connection import Bus
from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import TokenVerifier, issue_token
from actors.runtime.store.state_store import StateStore
from actors.runtime.telemetry.metrics import REGISTRY
from actors.web_server.api import phone_codes
from actors.web_server.api.guess_budget import GuessBudget
from protocol.broker.streams import PHONE
from protocol.errors import InvalidToken
from protocol.messages.frames import Role
from protocol.times import parse_time
from tests.integration.support.clients.phones import (
    Site,
    open_site,
    picture,
    problem,
    record,
    seconds_from_now,
    upload_path,
)
from tests.integration.support.settings import changed
from tests.integration.support.system import eventually

MAKE = "/v1/plans/P001/examinees/E001/phone-code"


@pytest.fixture
async def site(settings: Settings, bus: Bus, store: StateStore) -> AsyncIterator[Site]:
    await bus.apply_stream(PHONE)
    async with open_site(settings, bus, store) as site:
        yield site


def told(**labels: str) -> float:
    return REGISTRY.get_sample_value("examwire_web_phone_codes_total", labels) or 0.0


def refused_as_cross_site() -> float:
    return REGISTRY.get_sample_value("examwire_web_cross_site_requests_total") or 0.0


async def waiting(site: Site, seconds: float = 60.0, status: str = "WAITING") -> None:
    await record(site.settings, status=status, deadline=seconds_from_now(seconds))


async def made(site: Site, **headers: str) -> dict[str, Any]:
    response = await site.http.post(MAKE, headers={**site.bearer("examinee"), **headers})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    code: dict[str, Any] = response.json()
    return code


async def test_a_phone_that_gives_the_code_may_upload_for_this_examinee_until_the_deadline(site: Site) -> None:
    await waiting(site)
    phone_code = await made(site)
    bare = phone_code["code"].replace("-", "")
    assert phone_code["url"] == f"{site.server.url}/phone#code={bare}"
    assert 50 < parse_time(phone_code["expiresAt"]) - time.time() <= 60
    full_width = "".join(chr(ord(character) + 0xFEE0) for character in bare)
    for typed in (phone_code["code"], bare.lower(), full_width):  # more than once: a phone opens links in two browsers
        response = await site.http.post(f"/v1/phone-codes/{typed}")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        joined = response.json()
        assert (joined["planId"], joined["examineeId"]) == ("P001", "E001")
        assert 50 < joined["secondsLeft"] <= 60
        claims = TokenVerifier(site.settings).verify(joined["token"])
        assert (claims.role, claims.plan, claims.sub) == ("mobile", "P001", "E001")
    upload = await site.put(picture(), headers={"Authorization": f"Bearer {joined['token']}"})
    assert upload.status_code == 201


async def test_the_qr_code_is_a_picture_without_styles_or_scripts(site: Site) -> None:
    await waiting(site)
    phone_code = await made(site)
    root = ElementTree.fromstring(phone_code["qrSvg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    for element in root.iter():
        assert element.tag.rpartition("}")[2] in ("svg", "path", "g")
        assert not {"style", "class", "onload"} & set(element.attrib)


async def test_the_stored_entry_does_not_contain_the_code(site: Site, bus: Bus) -> None:
    await waiting(site)
    phone_code = await made(site)
    stored = await bus.message_at(PHONE.name, 1)
    assert stored is not None
    code = phone_code["code"].replace("-", "")
    assert code not in stored.subject + stored.payload.decode()
    assert stored.headers["Nats-TTL"] in ("58s", "59s", "60s")


async def test_the_phone_address_is_that_of_the_page_or_the_configured_one(
    settings: Settings, bus: Bus, store: StateStore
) -> None:
    await bus.apply_stream(PHONE)
    web = settings.web.model_copy(update={"trusted_proxies": ["127.0.0.1"]})
    async with open_site(settings.model_copy(update={"web": web}), bus, store) as site:
        await waiting(site)
        behind_proxy = await made(site, **{"Host": "exam.example", "X-Forwarded-Proto": "https"})
        assert behind_proxy["url"].startswith("https://exam.example/phone#code=")
    web = settings.web.model_copy(update={"public_url": "https://exam.example:444/"})
    async with open_site(settings.model_copy(update={"web": web}), bus, store) as site:
        assert (await made(site))["url"].startswith("https://exam.example:444/phone#code=")
    async with open_site(settings, bus, store) as site:
        assert (await made(site, **{"X-Forwarded-Proto": "https"}))["url"].startswith("http://127.0.0.1:")


async def test_nobody_else_gets_a_code(site: Site) -> None:
    await waiting(site)
    strangers: list[tuple[Role, str, str]] = [("examinee", "E002", "P001"), ("examinee", "E001", "P002")]
    strangers += [("mobile", "E001", "P001"), ("proctor", "E001", "P001"), ("operator", "E001", "P001")]
    for role, subject, plan_id in strangers:
        response = await site.http.post(MAKE, headers=site.bearer(role, subject, plan_id))
        assert (response.status_code, problem(response)["code"]) == (403, "FORBIDDEN")
    bare = await site.http.post(MAKE)
    assert (bare.status_code, problem(bare)["code"]) == (401, "UNAUTHORIZED")
    bad_id_response = await site.http.post("/v1/plans/P.1/examinees/E001/phone-code", headers=site.bearer("examinee"))
    assert (bad_id_response.status_code, problem(bad_id_response)["field"]) == (400, "planId")


async def test_a_code_is_given_only_while_the_stage_waits(site: Site) -> None:
    async def refused() -> str:
        response = await site.http.post(MAKE, headers=site.bearer("examinee"))
        assert response.status_code == 409
        return str(problem(response)["code"])

    assert await refused() == "NOT_WAITING"
    await waiting(site, status="COMPLETED")
    assert await refused() == "NOT_WAITING"
    await waiting(site, -1)
    assert await refused() == "DEADLINE_PASSED"
    await waiting(site, 60, "TIMED_OUT")
    assert await refused() == "DEADLINE_PASSED"
    await waiting(site, 60, "FAILED")  # the stage goes on
    await made(site)


async def test_an_expired_code_is_refused_as_expired(site: Site) -> None:
    await waiting(site, 2.5)
    code = (await made(site))["code"]

    async def over() -> bool:
        response = await site.http.post(f"/v1/phone-codes/{code}")
        if response.status_code == 200:
            return False
        assert (response.status_code, problem(response)["code"]) == (410, "EXPIRED")
        return True

    await eventually(over, "the code expired")

    async def marked() -> bool:
        newest = await site.bus.last_message(PHONE.name, "phone.*")
        return newest is not None and newest.headers.get("Nats-Marker-Reason") == "MaxAge"

    await eventually(marked, "NATS has taken it out")
    assert await over()


async def test_a_stage_that_was_extended_gives_the_phone_more_time(site: Site) -> None:
    await waiting(site, 30)
    code = (await made(site))["code"]
    await waiting(site, 500)
    joined = (await site.http.post(f"/v1/phone-codes/{code}")).json()
    assert joined["secondsLeft"] > 400


async def test_a_code_lives_a_quarter_of_an_hour_at_most(site: Site) -> None:
    await waiting(site, 3600)
    assert (await made(site))["secondsLeft"] == 900


async def test_a_hall_behind_one_address_gets_in_with_its_typos(site: Site) -> None:
    await waiting(site)
    code = (await made(site))["code"]

    async def phone(number: int) -> list[int]:
        typed = [code] if number % 20 else [f"ZZZZZZ{code[-2:]}", "ABCDEFG0", code]  # 5 % of them take three tries
        return [(await site.http.post(f"/v1/phone-codes/{code}")).status_code for code in typed]

    answers = await asyncio.gather(*(phone(number) for number in range(500)))
    assert [tried[-1] for tried in answers] == [200] * 500
    assert sum(tried == [404, 404, 200] for tried in answers) == 25


async def test_wrong_codes_lock_nobody_out_whoever_tries_them(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(phone_codes, "WRONG_SECONDS", 0.0)
    before = told(outcome="NOT_FOUND")
    await waiting(site)
    code = (await made(site))["code"]

    async def guess(number: int) -> int:
        wrong_code = f"ZZ{chr(65 + number % 8)}{chr(65 + number // 8 % 8)}{chr(65 + number // 64)}ZZZ"
        return (await site.http.post(f"/v1/phone-codes/{wrong_code}")).status_code

    for start in range(0, 400, 100):
        assert set(await asyncio.gather(*(guess(start + number) for number in range(100)))) == {404}
    for _ in range(3):
        assert (await site.http.post(f"/v1/phone-codes/{code}")).status_code == 200
    assert told(outcome="NOT_FOUND") == before + 400
    assert "300 wrong phone codes within a minute, 300 of them from 127.0.0.1" in caplog.text


async def test_a_right_code_over_the_budget_is_accepted_after_a_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_codes, "WRONG_SECONDS", 0.0)
    await waiting(site)
    code = (await made(site))["code"]
    site.server.codes._guesses = GuessBudget(5.0, 2, 5.0)  # slower than any machine answers
    guesses = [asyncio.create_task(site.http.post("/v1/phone-codes/ZZZZZZZZ")) for _ in range(10)]

    async def waits() -> bool:
        return site.server.codes._guesses.waiting >= 5

    await eventually(waits, "guesses that wait for their turn")
    assert (await site.http.post(f"/v1/phone-codes/{code}")).status_code == 200
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {404}


async def test_a_long_queue_of_guesses_gets_retry_after(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_codes, "WRONG_SECONDS", 0.0)
    await waiting(site)
    code = (await made(site))["code"]
    site.server.codes._guesses = GuessBudget(0.5, 1, 3.0)
    answers = await asyncio.gather(*(site.http.post("/v1/phone-codes/ZZZZZZZZ") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [404, 404, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert problem(refused)["code"] == "TOO_MANY_REQUESTS"
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert (await site.http.post(f"/v1/phone-codes/{code}")).status_code == 200


# -- pages of other sites --------------------------------------------------------------------------------

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://other.exam.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_can_do_nothing(site: Site, headers: dict[str, str]) -> None:
    await waiting(site)
    code = (await made(site))["code"]
    before, refused = told(outcome="NOT_FOUND"), refused_as_cross_site()
    for method, path, more in (
        ("POST", f"/v1/phone-codes/{code}", {}),
        ("POST", "/v1/phone-codes/ZZZZZZZZ", {}),
        ("POST", MAKE, site.bearer("examinee")),
        ("PUT", upload_path(), site.bearer()),
    ):
        response = await site.http.request(method, path, headers={**headers, **more}, content=b"")
        assert (response.status_code, problem(response)["code"]) == (403, "CROSS_SITE_REQUEST"), (method, path)
    assert told(outcome="NOT_FOUND") == before
    assert refused_as_cross_site() == refused + 4
    assert await site.published() == []
    assert (await site.http.get("/v1/endpoints", headers=headers)).status_code == 503  # as for everybody: none is READY


async def test_our_own_pages_and_programs_are_not_cross_site(settings: Settings, bus: Bus, store: StateStore) -> None:
    await bus.apply_stream(PHONE)
    web = settings.web.model_copy(update={"public_url": "https://exam.example/", "trusted_proxies": ["127.0.0.1"]})
    async with open_site(settings.model_copy(update={"web": web}), bus, store) as site:
        await waiting(site)
        code = (await made(site))["code"]
        for headers in (
            {},
            {"Origin": site.server.url},
            {"Sec-Fetch-Site": "same-origin", "Origin": site.server.url},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "https://exam.example"},
            {"Origin": "https://exam.example:443", "Sec-Fetch-Site": "same-site"},
            {"Origin": "https://pages.example", "X-Forwarded-Host": "pages.example"},
        ):
            response = await site.http.post(f"/v1/phone-codes/{code}", headers=headers)
            assert response.status_code == 200, headers


async def test_codes_of_an_examinee_are_limited_per_minute(site: Site) -> None:
    await waiting(site)
    assert len({(await made(site))["code"] for _ in range(10)}) == 10
    response = await site.http.post(MAKE, headers=site.bearer("examinee"))
    assert (response.status_code, problem(response)["code"]) == (429, "TOO_MANY_REQUESTS")
    assert 1 <= int(response.headers["retry-after"]) <= 60


async def test_any_web_server_knows_the_codes_of_all(site: Site, bus: Bus, store: StateStore) -> None:
    await waiting(site)
    code = (await made(site))["code"]
    async with open_site(site.settings, bus, store) as other:
        assert (await other.http.post(f"/v1/phone-codes/{code}")).json()["examineeId"] == "E001"


# -- with an issuer's public key -------------------------------------------------------------------------


def issuer(settings: Settings, directory: Path, **more: str) -> tuple[Settings, Ed25519PrivateKey]:
    key = Ed25519PrivateKey.generate()
    path = directory / "issuer.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return changed(settings, {"token.public_key_file": path, **more}), key


def examinee_token(key: Ed25519PrivateKey) -> dict[str, str]:
    import jwt

    claims = {"sub": "E001", "role": "examinee", "plan": "P001", "aud": "examwire", "exp": int(time.time()) + 600}
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='EdDSA')}"}


async def test_without_an_own_secret_codes_are_refused_with_a_reason(
    settings: Settings, bus: Bus, store: StateStore, tmp_path: Path
) -> None:
    with_key, key = issuer(settings, tmp_path)
    async with open_site(with_key, bus, store) as site:
        for path, headers in ((MAKE, examinee_token(key)), ("/v1/phone-codes/ABCDEFGH", {})):
            response = await site.http.post(path, headers=headers)
            assert (response.status_code, problem(response)["code"]) == (501, "NO_SECRET")


async def test_with_an_issuer_the_own_secret_signs_only_phone_tokens(
    settings: Settings, bus: Bus, store: StateStore, tmp_path: Path
) -> None:
    with_both, key = issuer(settings, tmp_path, secret="0123456789-abcdefghij-ABCDEFGHIJ")
    await bus.apply_stream(PHONE)
    async with open_site(with_both, bus, store) as site:
        await waiting(site)
        code = (await site.http.post(MAKE, headers=examinee_token(key))).json()["code"]
        token = (await site.http.post(f"/v1/phone-codes/{code}")).json()["token"]
        upload = await site.put(picture(), headers={"Authorization": f"Bearer {token}"})
        assert upload.status_code == 201
        ours = issue_token(with_both, "proctor", "P001", "T1")
        refused = await site.http.get("/v1/plans/P001/report.csv", headers={"Authorization": f"Bearer {ours}"})
        assert refused.status_code == 401
    with pytest.raises(InvalidToken, match="only those of phones"):
        TokenVerifier(with_both).verify(ours)
