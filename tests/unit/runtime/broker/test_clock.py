"""The broker's clock, kept by a process whose own may be wrong or set."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest

from actors.runtime.broker.clock import BrokerClock
from protocol.errors import BrokerUnavailable, NoResponders, NotPermitted
from protocol.times import format_time
from tests.support.metrics import sample

EPOCH = 1_796_000_000.0


class Machine:
    """A machine that is `up` for so many seconds, its clock `ahead`; a question travels for `there`, `back` again."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.up, self.ahead, self.there, self.back = 1000.0, ahead, 0.0, 0.0
        self.broker_began = EPOCH - self.up
        self.trouble: Exception | None = None
        self.clock = BrokerClock("test", self._ask, wall=lambda: self.truth + self.ahead, steady=lambda: self.up)

    @property
    def truth(self) -> float:
        return self.broker_began + self.up

    async def _ask(self, _subject: str, _seconds: float) -> bytes:
        self.up += self.there
        if self.trouble is not None:
            raise self.trouble
        answer = json.dumps({"ts": format_time(self.truth)}).encode()
        self.up += self.back
        return answer

    @property
    def error(self) -> float:
        return self.clock.now() - self.truth


@pytest.mark.parametrize("ahead", [7200.0, -7200.0, -150.0, 90.0, 0.0])
async def test_the_time_is_the_brokers_also_when_this_machine_differs(ahead: float) -> None:
    machine = Machine(ahead)
    assert not machine.clock.known
    assert machine.error == ahead  # until the broker was asked there is no other
    await machine.clock.measure()
    for passed in (0.0, 1.5, 3600.0):
        machine.up += passed
        assert abs(machine.error) < 0.001
        assert machine.clock.offset == pytest.approx(ahead, abs=0.001)


async def test_setting_this_machines_clock_does_not_change_the_time() -> None:
    machine = Machine()
    await machine.clock.measure()
    for machine.ahead in (7200.0, -5.0):
        assert abs(machine.error) < 0.001


async def test_a_slow_answer_is_ignored_and_a_quick_one_replaces_a_slow_one() -> None:
    machine = Machine()
    machine.there = 4.0
    await machine.clock.measure()
    assert machine.error == pytest.approx(2.0, abs=0.001)  # half of the way, at worst
    machine.there = 0.002
    await machine.clock.measure()
    assert abs(machine.error) < 0.003
    machine.there, machine.back = 0.0, 30.0
    await machine.clock.measure()
    assert abs(machine.error) < 0.003


async def test_a_broker_whose_clock_was_set_is_followed_at_the_next_measurement() -> None:
    machine = Machine()
    await machine.clock.measure()
    machine.broker_began += 7200
    await machine.clock.measure()
    assert abs(machine.error) < 0.001


async def test_a_difference_over_two_seconds_is_logged_once_per_change_and_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine()
    records = []
    for machine.ahead in (0.0, 1.9, -1.9, 7200.0, 7200.5, 7201.0, -150.0, -150.4, 0.0, 0.0):
        await machine.clock.measure()
        records.append([record.getMessage() for record in caplog.records])
        caplog.clear()
        assert sample("examwire_broker_clock_offset_seconds") == pytest.approx(machine.ahead, abs=0.001)
    assert [len(record) for record in records] == [0, 0, 0, 1, 0, 0, 1, 0, 1, 0]
    assert "7200.0 s ahead of the broker's" in records[3][0]
    assert "150.0 s behind the broker's" in records[6][0]
    assert "agrees with the broker's again" in records[8][0]


async def test_without_an_answer_the_last_measurement_stays() -> None:
    machine = Machine(-150.0)
    await machine.clock.measure()
    for machine.trouble in (BrokerUnavailable("away"), NoResponders("no JetStream")):
        machine.up += 10
        with pytest.raises(BrokerUnavailable):
            await machine.clock.measure()
        assert abs(machine.error) < 0.001


async def test_a_user_without_permission_uses_its_own_clock_and_logs_that_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(5.0)
    machine.trouble = NotPermitted("user may not")
    for _ in range(3):
        await machine.clock.measure()
    assert (machine.clock.known, machine.clock.offset, machine.error) == (False, 0.0, 5.0)
    assert len(caplog.records) == 1


OWN = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
OWN_CLOCK = {
    "actors/web_server/pictures/store.py": "the default for tests; a store is given the broker's",
    "actors/web_server/pictures/directory_store.py": "the same",
    "actors/web_server/pictures/incoming.py": "the same",
    "actors/socket_server/status.py": "a message id, which need only be another one each time",
    "actors/socket_server/handshake/opening.py": "the Date of an HTTP answer, which says when this machine wrote it",
    "actors/runtime/telemetry/spans.py": "spans go by the clocks of their processes, as all tracing does",
    "actors/runtime/telemetry/tracing.py": "the same",
    "actors/runtime/actor/service.py": "since when this process's actors run, and when they failed last",
    "actors/runtime/broker/clock.py": "what the broker's is compared with",
    "actors/runtime/actor/process_facts.py": "what the doctor compares",
    "actors/runtime/store/state_mark.py": "a note for people in Redis",
    "actors/runtime/actor/tail.py": "what a tailed actor's own log would say",
    "actors/runtime/config/tokens.py": "the issuer's clock is a third one: both are asked",
    "actors/runtime/role/probes.py": "what Redis' clock is compared with",
    "actors/client/connection.py": "an HTTP date of a proxy, as seconds from now",
}
"""Where a process may ask its own clock, and why; everything else goes by the broker's (`bus.clock`)."""


def test_no_exam_time_is_read_from_a_processes_own_clock() -> None:
    root = Path(__file__).parents[4]
    asking = set()
    for folder in ("actors", "protocol"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                    continue
                if (node.value.id, node.attr) in OWN:
                    asking.add(str(path.relative_to(root)))
    assert asking == set(OWN_CLOCK)
