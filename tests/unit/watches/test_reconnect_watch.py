"""The reconnect watch without a network: which attempt a delivery is, by the plan's ladder and the exam's phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.runtime.actor.receiver import Received
from actors.runtime.broker.connection import Outgoing, PubAck
from actors.runtime.broker.consumers.consumer import Delivery
from actors.runtime.config.settings import Settings
from actors.watches.reconnect_watch import Attempts, ReconnectWatch
from protocol.broker import subjects
from protocol.broker.stream_codecs import ReconnectWait, encode_wait
from protocol.errors import StateUnavailable
from protocol.messages.base import Message
from protocol.messages.facts import STATUS_CODEC, ReconnectAttempt, ReconnectExhausted
from protocol.messages.plan_facts import PlanFact, PlanPolicy
from protocol.records import keys, kinds
from protocol.records.writes import StoredRecord
from protocol.rules.history import fold, insert
from tests.unit.support import facts
from tests.unit.support.facts import DAWN, EXAMINEE, PLAN

LOST = ("DISCONNECTED", "70", "0", "SOCKET_CLOSED")
MIGRATING = ("MIGRATING", "70", "0", "SERVER_DRAINING")
SETTINGS = Settings.model_validate({"reconnect": {"max_attempts": 2, "backoff_seconds": [5, 10], "jitter": 0}})


@dataclass
class World:
    """The broker and Redis of a reconnect watch. `now`: seconds after the documents' morning."""

    now: float = 0.0
    progress: tuple[str | None, ...] = LOST
    plan: list[PlanFact] = field(default_factory=list)
    redis_away: bool = False
    published: list[Message] = field(default_factory=list)
    waits: list[Outgoing] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        bus = SimpleNamespace(
            clock=SimpleNamespace(now=lambda: DAWN + self.now), publish_until_stored=self.publish_until_stored
        )
        store = SimpleNamespace(fields=self.fields, load=self.load)
        self.watch = ReconnectWatch(SETTINGS, cast(Any, bus), cast(Any, store), "rw1")

    async def fields(self, names: Sequence[str], _fields: Sequence[str]) -> list[tuple[str | None, ...]]:
        if self.redis_away:
            raise StateUnavailable("Redis is away")
        assert names == [keys.progress(PLAN, EXAMINEE)]
        return [self.progress]

    async def load(self, names: Sequence[str]) -> list[StoredRecord]:
        assert names == [keys.plan(PLAN)]
        history = kinds.PLAN.empty()
        for number, fact in enumerate(self.plan, start=1):
            history = insert(history, kinds.PLAN.rule, number, cast(Any, fact), kinds.PLAN.visible_part).history
        written = kinds.PLAN.write(history, fold(history, kinds.PLAN.rule), 1)["history"]
        return [StoredRecord(1, written)]

    async def publish_until_stored(self, messages: Sequence[Outgoing]) -> list[PubAck]:
        for message in messages:
            if message.subject == subjects.reconnect(PLAN, EXAMINEE):
                self.waits.append(message)
            else:
                assert message.subject == subjects.status_plan(PLAN, subjects.WATCH)
                self.published += cast(list[Message], STATUS_CODEC.decode_batch(message.payload))
        return [PubAck("STATUS", 1) for _ in messages]

    async def _settle(self, replies: Sequence[str], verdict: bytes) -> None:
        self.answers += [verdict.decode()] * len(replies)

    async def deliver(self, attempt: int) -> Message | None:
        """Deliver the wait for the loss 70 for the `attempt`th time; return the fact that was published, if any."""
        before = len(self.published)
        subject = subjects.reconnect(PLAN, EXAMINEE)
        delivery = Delivery(subject, b"", {}, 1, attempt, 0, 0.0, "reply", self._settle, set())
        wait = ReconnectWait(PLAN, EXAMINEE, 70)
        await self.watch.count_attempts(Attempts([Received(delivery, [wait], [0], 1)]))
        new = self.published[before:]
        assert len(new) <= 1
        return new[0] if new else None

    @property
    def answer(self) -> str:
        return self.answers[-1]


def again(seconds: float) -> str:
    return f'-NAK {{"delay": {int(seconds * 1e9)}}}'


async def test_each_delivery_is_an_attempt_and_the_one_after_the_last_shuts_out() -> None:
    world = World()
    first, second, last = await world.deliver(1), await world.deliver(2), await world.deliver(3)
    assert isinstance(first, ReconnectAttempt)
    assert isinstance(second, ReconnectAttempt)
    assert (first.attempt, first.max_attempts, first.next_attempt_at) == (1, 2, facts.at(5))
    assert (second.attempt, second.max_attempts, second.next_attempt_at) == (2, 2, None)
    assert isinstance(last, ReconnectExhausted)
    assert last.loss_version == 70
    assert world.answers == [again(5), again(10), "+ACK"]


async def test_the_policy_of_the_plan_goes_before_the_settings_also_with_more_attempts() -> None:
    world = World(plan=[facts.schedule(policy=PlanPolicy(max_attempts=4, backoff_seconds=(1, 2)))])
    attempts = [await world.deliver(number) for number in range(1, 5)]
    assert [(fact.attempt, fact.max_attempts) for fact in attempts if isinstance(fact, ReconnectAttempt)] == [
        (number, 4) for number in range(1, 5)
    ]
    assert world.answers == [again(1), again(2), again(2), again(2)]
    assert isinstance(await world.deliver(5), ReconnectExhausted)


async def test_used_up_attempts_refuse_nobody_when_the_policy_says_so() -> None:
    world = World(plan=[facts.schedule(policy=PlanPolicy(shut_out=False))])
    assert isinstance(await world.deliver(2), ReconnectAttempt)
    assert (await world.deliver(3), world.answer) == (None, "+ACK")


@pytest.mark.parametrize(
    ("plan", "now"),
    [
        ([facts.schedule(100, 200)], 99),
        ([facts.schedule(100, 200)], 200),
        ([facts.window(EXAMINEE, 100)], 99),
        ([facts.schedule(None, 200), facts.close_plan(50)], 60),
    ],
    ids=["before the start", "after the end", "before their own start", "closed"],
)
async def test_outside_the_exam_a_loss_starts_no_ladder(plan: list[PlanFact], now: float) -> None:
    world = World(plan=plan, now=now)
    assert (await world.deliver(1), world.answer) == (None, "+ACK")


async def test_an_examinee_with_more_time_is_waited_for_after_the_others_end() -> None:
    world = World(plan=[facts.schedule(None, 200), facts.extend_exam(60, EXAMINEE)], now=230)
    assert isinstance(await world.deliver(1), ReconnectAttempt)
    world.now = 260
    assert (await world.deliver(2), world.answer) == (None, "+ACK")


async def test_who_does_not_arrive_at_another_server_before_the_start_is_told_to_be_lost_and_not_waited_for() -> None:
    world = World(plan=[facts.schedule(100, 200)], progress=MIGRATING)
    await world.deliver(1)
    late = await world.deliver(2)
    assert isinstance(late, ReconnectAttempt)
    assert late.next_attempt_at is None
    world.progress = LOST
    assert (await world.deliver(3), world.answer) == (None, "+ACK")


@pytest.mark.parametrize(
    "progress",
    [
        ("CONNECTED", "70", "0", ""),
        ("FINISHED", "70", "0", ""),
        ("DISCONNECTED", "70", "1", "RECONNECT_LIMIT_EXCEEDED"),
        *(("DISCONNECTED", "70", "0", reason) for reason in ("READMITTED", "REMOVED", "RESUMED")),
        (None, None, None, None),
    ],
)
async def test_nobody_is_waited_for_who_is_back_finished_shut_out_or_called_by_a_proctor(
    progress: tuple[str | None, ...],
) -> None:
    world = World(progress=progress)
    assert (await world.deliver(1), world.answer, world.waits) == (None, "+ACK", [])


async def test_a_newer_loss_than_the_one_waited_for_is_waited_for_instead() -> None:
    world = World(progress=("DISCONNECTED", "90", "0", "SOCKET_CLOSED"))
    assert (await world.deliver(1), world.answer) == (None, "+ACK")
    (wait,) = world.waits
    assert wait.payload == encode_wait(90)


async def test_while_redis_is_away_attempts_go_on_and_nobody_is_shut_out(caplog: pytest.LogCaptureFixture) -> None:
    world = World(redis_away=True)
    assert isinstance(await world.deliver(2), ReconnectAttempt)
    assert (await world.deliver(3), world.answer) == (None, again(10))
    assert len(caplog.records) == 1, "logged once"
    world.redis_away = False
    assert isinstance(await world.deliver(4), ReconnectExhausted)
