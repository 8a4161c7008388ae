"""Socket server start-up (document 9), by scenario. Versions are the places in the log."""

from __future__ import annotations

import pytest

from protocol.messages.server_messages import ServerStatus, ServerStatusCode
from protocol.rules.effects import Effect, EndSessions
from protocol.rules.socket_server import ServerState, apply
from tests.unit.support.facts import at, server

STARTING, READY, DRAINING, STOPPING, STOPPED, FAILED, LOST = ServerStatusCode


class Log:
    """Facts in order, and what came of the last one."""

    def __init__(self, *facts: ServerStatus) -> None:
        self.state = ServerState()
        self.version = 0
        self.effects: tuple[Effect, ...] = ()
        for fact in facts:
            self.add(fact)

    def add(self, fact: ServerStatus) -> Log:
        self.version += 1
        outcome = apply(self.state, self.version, fact)
        assert outcome.events == ()
        self.state, self.effects = outcome.state, outcome.effects
        return self

    def changes_nothing(self, fact: ServerStatus) -> bool:
        before = self.state
        self.add(fact)
        return self.state == before and self.effects == ()

    def ending(self) -> EndSessions:
        (effect,) = self.effects
        assert isinstance(effect, EndSessions)
        assert (effect.server_id, effect.version) == ("SOCK001", self.version)
        return effect


def test_a_server_starts_and_becomes_ready() -> None:
    log = Log(server(STARTING, "i1", 0))
    assert (log.state.status, log.state.incarnation, log.state.start_time) == (STARTING, "i1", at(0))
    ready = server(READY, "i1", 2).model_copy(
        update={
            "queue_id": "SOCK001_Q",
            "cpu_usage": 0.0,
            "memory_usage": 12.5,
            "network_status": "GOOD",
            "url": "ws://x",
        }
    )
    log.add(ready)
    assert log.effects == ()
    state = log.state
    assert (state.status, state.queue_id, state.network_status, state.url) == (READY, "SOCK001_Q", "GOOD", "ws://x")
    assert (state.cpu_usage, state.memory_usage) == (0.0, 12.5), "nought is a measure too"
    assert state.start_time == at(0)


def test_fields_that_a_later_status_leaves_out_are_kept() -> None:
    ready = server(READY).model_copy(update={"queue_id": "SOCK001_Q", "cpu_usage": 3.0, "url": "ws://x"})
    log = Log(server(STARTING), ready, server(STOPPING))
    assert (log.state.status, log.state.queue_id, log.state.cpu_usage, log.state.url) == (
        STOPPING,
        "SOCK001_Q",
        3.0,
        "ws://x",
    )


def test_a_new_process_ends_the_sessions_of_the_old_one() -> None:
    log = Log(server(STARTING, "i1"), server(READY, "i1"), server(STARTING, "i2", 60))
    ending = log.ending()
    assert ending.reason == "SERVER_RESTARTED"
    assert (log.state.incarnation, log.state.status, log.state.url) == ("i2", STARTING, None)


def test_a_repeated_start_ends_no_sessions() -> None:
    log = Log(server(STARTING, "i1"), server(STARTING, "i1", 1))
    assert log.effects == ()


@pytest.mark.parametrize("status", [READY, DRAINING, STOPPING, STOPPED, FAILED, LOST])
def test_the_status_of_an_older_process_is_ignored(status: ServerStatusCode) -> None:
    log = Log(server(STARTING, "i1"), server(STARTING, "i2"), server(READY, "i2"))
    assert log.changes_nothing(server(status, "i1", 70))


def test_an_expired_lease_ends_the_sessions() -> None:
    log = Log(server(STARTING), server(READY), server(LOST, second=30))
    assert log.ending().reason == "SERVER_LOST"
    assert log.state.status is LOST
    assert log.changes_nothing(server(LOST, second=31))


@pytest.mark.parametrize("gone", [STOPPED, FAILED])
def test_a_lease_that_expires_after_the_stop_changes_nothing(gone: ServerStatusCode) -> None:
    log = Log(server(STARTING), server(gone))
    assert log.changes_nothing(server(LOST))
    assert log.state.status is gone
    assert Log().changes_nothing(server(LOST))


def test_a_server_that_was_thought_lost_comes_back() -> None:
    log = Log(server(STARTING), server(READY), server(LOST), server(READY, second=40))
    assert log.state.status is READY
    assert log.effects == ()
    assert log.state.holds_sessions_of("i1")


@pytest.mark.parametrize("reason", ["QUEUE_CREATE_FAILED", "SUBSCRIBE_FAILED", "HANDLER_REGISTER_FAILED"])
def test_a_failed_start_is_recorded_with_its_reason(reason: str) -> None:
    log = Log(server(STARTING), server(FAILED, reason=reason))
    assert (log.state.status, log.state.reason) == (FAILED, reason)
    log.add(server(STARTING, "i2"))
    assert log.state.reason is None


def test_a_stopped_server_holds_no_sessions() -> None:
    log = Log(server(STARTING), server(READY), server(STOPPING))
    assert log.state.holds_sessions_of("i1"), "it is still draining"
    assert log.effects == ()
    log.add(server(STOPPED))
    assert log.ending().reason == "SERVER_STOPPED"
    assert not log.state.holds_sessions_of("i1")


def test_a_drained_server_holds_its_sessions_until_it_has_stopped() -> None:
    log = Log(server(STARTING), server(READY), server(DRAINING))
    assert log.effects == ()
    assert log.state.status is DRAINING, "so it is nobody's endpoint any more"
    assert log.state.holds_sessions_of("i1")
    log.add(server(STOPPING))
    assert log.effects == ()
    assert log.add(server(STOPPED)).ending().reason == "SERVER_STOPPED"


def test_a_server_that_dies_while_it_is_drained_is_lost_like_any_other() -> None:
    log = Log(server(STARTING), server(DRAINING), server(LOST, second=30))
    assert log.ending().reason == "SERVER_LOST"
    log.add(server(DRAINING, second=35))
    assert log.state.holds_sessions_of("i1"), "it was alive after all, and goes on"


def test_only_the_living_process_holds_sessions() -> None:
    log = Log(server(STARTING, "i1"), server(STARTING, "i2"))
    assert not log.state.holds_sessions_of("i1")
    assert log.state.holds_sessions_of("i2")
    assert log.state.holds_sessions_of(None), "a session that does not say is given the benefit of the doubt"
    assert ServerState().holds_sessions_of("i1"), "so is a server that the log does not know"
