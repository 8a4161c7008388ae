from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from actors.socket_server.handshake.welcome import Welcomes
from protocol.messages.codec import encode
from protocol.messages.frames import SERVER_FRAMES, Role, Welcome
from protocol.messages.plan_facts import PlanPolicy
from tests.unit.support.socket_sessions import fake_context

POLICIES = st.none() | st.builds(
    PlanPolicy,
    max_attempts=st.none() | st.integers(1, 20),
    backoff_seconds=st.none() | st.lists(st.floats(0.1, 3600), min_size=1, max_size=20).map(tuple),
    jitter=st.none() | st.floats(0, 1),
    shut_out=st.none() | st.booleans(),
)


@given(
    role=st.sampled_from(["examinee", "proctor"]),
    examinee_id=st.none() | st.just("E001"),
    policies=st.lists(POLICIES, min_size=1, max_size=3),
    urls=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3),
)
def test_a_welcome_is_encoded_as_its_model_is(
    role: Role, examinee_id: str | None, policies: list[PlanPolicy | None], urls: list[str]
) -> None:
    context = fake_context()
    welcomes = Welcomes(context, cast(Any, SimpleNamespace(all=urls)))
    for policy in policies * 2:
        encoded = welcomes.encoded(role, "P001", "SOCK001-1f", policy, examinee_id=examinee_id)
        welcome = SERVER_FRAMES.decode_one(encoded)
        assert isinstance(welcome, Welcome)
        assert encode(welcome) == encoded
        assert (welcome.role, welcome.examinee_id, welcome.endpoints) == (role, examinee_id, urls)
        assert welcome.server_time is not None
        steps = (policy and policy.backoff_seconds) or tuple(context.settings.reconnect.backoff_seconds)
        attempts = (policy and policy.max_attempts) or context.settings.reconnect.max_attempts
        assert welcome.reconnect.max_attempts == len(welcome.reconnect.backoff_seconds) == attempts
        assert welcome.reconnect.backoff_seconds[: len(steps)] == list(steps[:attempts])
        assert welcome.reconnect.shut_out is (False if policy and policy.shut_out is False else None)
