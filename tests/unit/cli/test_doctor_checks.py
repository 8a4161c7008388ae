"""The rules of `examwire doctor` for values that a test cannot bring about on real engines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from actors.runtime.actor.process_facts import process_facts
from actors.runtime.store.log_mark import KnownLog
from cli.check.doctor_checks import (
    GIB,
    judge_account,
    judge_checkpoints,
    judge_clock,
    judge_disk,
    judge_log,
    judge_memory,
    judge_nats,
    judge_newer,
    judge_process,
    judge_redis,
)
from cli.shared.findings import Finding, State, worst
from protocol.log.gap import LogGap
from protocol.messages.inspection import ProcessFacts
from tests.unit.support.facts import DAWN, at

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED

GAP = LogGap(after=50, up_to=80, missing_from=at(0), missing_to=at(20), timestamp=at(60))
FACTS = ProcessFacts(
    host="h", pid=1, version="0.1.0", time="2026-01-05T09:00:00Z", fds_open=10, fd_limit=100, memory_bytes=1, listens={}
)


@pytest.mark.parametrize(
    ("findings", "check", "state"),
    [
        (judge_nats({"version": "2.11.9", "jetstream": True, "max_payload": 1 << 20}, []), "nats.version", FAILED),
        (judge_nats({"version": "2.14.0", "jetstream": True, "max_payload": 600_000}, []), "nats.max_payload", WARNING),
        (judge_nats({"version": "2.15.1"}, ["nats://broker:4222"]), "nats.users", WARNING),
        (judge_account({"error": {"code": 503, "description": "no"}}), "nats.jetstream", FAILED),
        (judge_account({"storage": 99, "limits": {"max_storage": 100}}), "nats.account", FAILED),
        (judge_account({"streams": 8, "limits": {"max_streams": 10}}), "nats.account", WARNING),
        (judge_redis("r", {"redis_version": "6.2.7", "aof_enabled": 1}, None), "redis.version", FAILED),
        (judge_redis("r", {"redis_version": "7.0.0", "role": "slave"}, None), "redis.role", FAILED),
        (
            judge_redis("r", {"redis_version": "7.0.0", "aof_enabled": 1, "aof_last_write_status": "err"}, None),
            "redis.persistence",
            FAILED,
        ),
        (
            judge_redis("r", {"redis_version": "7.0.0", "connected_clients": 99, "maxclients": 100}, None),
            "redis.clients",
            FAILED,
        ),
        (
            judge_redis("r", {"redis_version": "7.0.0", "maxmemory_policy": "volatile-ttl"}, ""),
            "redis.eviction",
            WARNING,
        ),
        ([judge_newer([{"kind": "state-manager", "details": {"newer": 0}}, {"kind": "web-server"}])], "newer", OK),
        ([judge_newer([{"kind": "state-manager", "details": {"newer": 3}}])], "newer", FAILED),
        ([judge_checkpoints({"servers": DAWN, "3": DAWN - 590}, DAWN - 9999, DAWN)], "checkpoints", OK),
        ([judge_checkpoints({"servers": DAWN, "3": DAWN - 610}, DAWN - 9999, DAWN)], "checkpoints", WARNING),
        ([judge_checkpoints({"servers": DAWN, "3": None}, DAWN - 610, DAWN)], "checkpoints", WARNING),
        ([judge_checkpoints({"servers": DAWN, "3": None}, DAWN - 590, DAWN)], "checkpoints", OK),
        ([judge_checkpoints({"servers": None}, None, DAWN)], "checkpoints", OK),
        ([judge_log(KnownLog(reached=90, mending=True), 100, [], DAWN)], "log", FAILED),
        ([judge_log(KnownLog(reached=101), 100, [], DAWN)], "log", FAILED),
        ([judge_log(KnownLog(90, DAWN, 1.0, 2.0), 100, [], DAWN, 3.0, 4.0)], "log", FAILED),
        ([judge_log(KnownLog(90, DAWN, 1.0, 2.0), 100, [], DAWN, 3.0, 2.0)], "log", OK),
        ([judge_log(KnownLog(90, 2.5, 1.0, 2.0), 100, [], DAWN, 3.0, 4.0)], "log", OK),
        ([judge_log(KnownLog(reached=100), 100, [GAP], DAWN + 23 * 3600)], "log", WARNING),
        ([judge_log(KnownLog(reached=100), 100, [GAP], DAWN + 25 * 3600)], "log", OK),
        ([judge_clock("NATS", -0.6, 0.05)], "clocks", WARNING),
        ([judge_clock("NATS", 0.6, 0.2)], "clocks", OK),
        ([judge_disk("/", GIB // 10, 100 * GIB)], "disk", FAILED),
        ([judge_disk("/", 2 * GIB, 100 * GIB)], "disk", WARNING),
        ([judge_memory(1, 100)], "memory", WARNING),
        (judge_process("a", FACTS.model_copy(update={"fds_open": 96}), None), "fds", FAILED),
        (judge_process("a", FACTS.model_copy(update={"fds_open": 85}), None), "fds", WARNING),
        (judge_process("a", FACTS.model_copy(update={"listens": {"web.host": "0.0.0.0"}}), None), "listening", OK),
    ],
)
def test_a_finding_has_the_state_that_the_values_call_for(
    findings: Iterator[Finding], check: str, state: State
) -> None:
    matching = [finding for finding in findings if finding.check == check]
    assert worst(matching) is state
    assert any(finding.state is state for finding in matching)


def test_process_facts_describe_this_process() -> None:
    facts = process_facts()
    assert facts.pid == os.getpid()
    assert 0 < facts.fds_open < facts.fd_limit
