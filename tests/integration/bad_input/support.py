"""What the doors have in common: ids that are none, and how a client is shown out."""

from __future__ import annotations

import time
from typing import Any

import jwt

from actors.runtime.config.settings import Settings, token_secret
from tests.integration.support.system import RawClient, System

BAD_IDS = [
    *("P.1", "P*", "*", ">", "P>", "P:1", "P/1", "../P", "P 1", " ", "", "P" * 65, "응시자", "E001\n", "E\x00", "É"),
]
"""Each would be a wildcard, another subject, another key or another file, or is too long."""


class Neighbours:
    """Another examinee and a proctor on the same server, who must notice nothing."""

    def __init__(self, system: System, examinee: RawClient, proctor: RawClient) -> None:
        self.system, self.examinee, self.proctor = system, examinee, proctor

    async def notice_nothing(self) -> None:
        """Both are answered, their statuses go through, and no event about them came in between."""
        for client in (self.examinee, self.proctor):
            before = len(client.frames)
            await client.say("heartbeat")
            await client.expect("heartbeat", after=before)
        before = len(self.proctor.frames)
        await self.examinee.say("mobile_sync_wait")
        await self.proctor.expect("mobile_sync_status", after=before, examineeId="N001", status="WAITING")
        kinds = [frame["type"] for frame in self.proctor.about("N001") if "mobile_sync" not in frame["type"]]
        assert kinds in ([], ["examinee_connected"])
        assert self.system.failures == []


async def refused(client: RawClient, code: int, error: str | None = None, field: str | None = None) -> None:
    """The connection ends with `code`, after one error frame that says why (where there is one)."""
    assert await client.closed() == code
    errors = [(frame["data"]["code"], frame["data"].get("field")) for frame in client.frames]
    assert errors == ([(error, field)] if error is not None else [])


def crafted(settings: Settings, *, key: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that says what the test wants, whether it may or not."""
    payload = {"sub": "E001", "role": "examinee", "plan": "P001", "aud": "examwire", "exp": int(time.time()) + 60}
    payload |= claims
    return jwt.encode(
        {name: value for name, value in payload.items() if value is not None},
        token_secret(settings) if key is None else key,
        algorithm=algorithm,
    )
