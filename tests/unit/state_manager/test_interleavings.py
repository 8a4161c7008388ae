"""Two state managers over one log: any interleaving, any crash, any redelivery, and the end state is the truth."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.state_manager.order_of_work import Limits
from actors.status_log.status_log import LogExtent
from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatus
from protocol.messages.server_messages import ServerStatusCode
from protocol.rules.connection_state import server_id_of
from tests.unit.support import facts
from tests.unit.support.fact_logs import connection_fact, in_order, mobile_sync_fact, notice_fact
from tests.unit.support.facts import PLAN
from tests.unit.support.memory_broker import Broker, publish
from tests.unit.support.memory_store import MemoryStore
from tests.unit.support.state_manager_truth import PROGRESS, SYNC, check_truth
from tests.unit.support.state_manager_world import (
    is_open,
    kind_of,
    log_of,
    stored_state,
)
from tests.unit.support.stepped_manager import Manager

managers = st.integers(0, 1)


class StateManagers(RuleBasedStateMachine):
    """One examinee, two socket servers, two state managers, one proctor."""

    def __init__(self) -> None:
        super().__init__()
        self.broker, self.store = Broker(), MemoryStore()
        # One has a portion for each message, so that several are worked on at once; the other takes a batch as it is.
        self.managers = [Manager(self.broker, self.store, limits) for limits in (Limits(portion_bytes=1), Limits())]
        self.incarnations = {"SOCK001": 0, "SOCK002": 0}
        self.happened: set[int] = set()

    # -- what happens in the hall ----------------------------------------------------------------------

    @rule(data=st.data(), number=st.integers(1, 3))
    def something_happens_to_the_connection(self, data: st.DataObject, number: int) -> None:
        past = log_of(self.broker).get(PROGRESS, [])
        happened: list[Message] = []
        for _ in range(number):
            fact = connection_fact(data.draw, past)
            happened.append(self._by_a_process(data, fact) if isinstance(fact, ConnectionStatus) else fact)
        self._publish(happened, f"status.plan.{PLAN}")

    def _publish(self, happened: Sequence[Message], subject: str) -> None:
        before = len(self.broker.payloads)
        publish(self.broker, happened, subject)
        self.happened.update(range(before + 1, len(self.broker.payloads) + 1))

    def _by_a_process(self, data: st.DataObject, fact: ConnectionStatus) -> ConnectionStatus:
        """A socket belongs to one process; only of its end there may be word later."""
        server_id = server_id_of(fact)
        process = self.incarnations[server_id]
        if not is_open(fact):
            process = max(0, process - data.draw(st.integers(0, 1)))
        socket_id = f"{fact.socket_id}{process}"
        return fact.model_copy(update={"socket_id": socket_id, "server_id": server_id, "incarnation": f"i{process}"})

    @rule(data=st.data(), number=st.integers(1, 2))
    def something_happens_to_the_mobile_sync(self, data: st.DataObject, number: int) -> None:
        past = log_of(self.broker).get(SYNC, [])
        happened = [mobile_sync_fact(data.draw, past) for _ in range(number)]
        self._publish(happened, f"status.plan.{PLAN}")

    @rule(data=st.data(), number=st.integers(1, 2))
    def a_proctor_sends_messages(self, data: st.DataObject, number: int) -> None:
        happened = [notice_fact(data.draw, []) for _ in range(number)]
        self._publish(happened, f"status.plan.{PLAN}")

    @rule(server_id=st.sampled_from(["SOCK001", "SOCK002"]))
    def a_server_starts_anew(self, server_id: str) -> None:
        self.incarnations[server_id] += 1
        for status in (ServerStatusCode.STARTING, ServerStatusCode.READY):
            fact = facts.server(status, f"i{self.incarnations[server_id]}").model_copy(update={"server_id": server_id})
            self._publish([fact], f"status.server.{server_id}")

    @rule(server_id=st.sampled_from(["SOCK001", "SOCK002"]))
    def a_server_is_lost(self, server_id: str) -> None:
        incarnation = f"i{self.incarnations[server_id]}"
        fact = facts.server(ServerStatusCode.LOST, incarnation).model_copy(update={"server_id": server_id})
        self._publish([fact], f"status.server.{server_id}")

    # -- what happens to the managers ------------------------------------------------------------------

    @rule(who=managers, news=st.integers(0, 3), again=st.booleans())
    def a_batch_is_delivered(self, who: int, news: int, again: bool) -> None:
        manager = self.managers[who]
        if not manager.idle:
            return
        batch = self.broker.undelivered[:news]
        if again:
            batch = [*sorted(self.broker.expired)[:2], *batch]
            self.broker.expired.difference_update(batch)
        del self.broker.undelivered[:news]
        if batch:
            manager.take(batch)

    @rule(who=managers, steps=st.integers(1, 6), which=st.integers(0, 2), access=st.integers(0, 1))
    def a_manager_goes_on(self, who: int, steps: int, which: int, access: int) -> None:
        self.managers[who].step(steps, which, access)

    @rule(who=managers)
    def a_manager_finishes(self, who: int) -> None:
        self.managers[who].finish()

    @precondition(lambda self: any(manager.batches for manager in self.managers))
    @rule(who=managers, arrives=st.booleans())
    def a_manager_dies(self, who: int, arrives: bool) -> None:
        self.managers[who].crash(arrives=arrives)

    @precondition(lambda self: any(manager.batches for manager in self.managers))
    @rule(who=managers)
    def a_connection_to_the_broker_breaks(self, who: int) -> None:
        self.managers[who].bus.break_off()

    @rule()
    def redis_is_away_for_a_moment(self) -> None:
        self.store.fail_next = 1

    @precondition(lambda self: any(manager.batches for manager in self.managers))
    @rule(who=managers)
    def a_slow_managers_messages_are_delivered_to_others(self, who: int) -> None:
        self.broker.expired.update(self.broker.unacknowledged & self.managers[who].in_hand)

    @rule(who=managers)
    def a_manager_learns_what_is_acknowledged(self, who: int) -> None:
        self.managers[who].learned = self.broker.acknowledged_up_to
        up_to = self.broker.acknowledged_up_to
        self.managers[who].decider.raise_floors(LogExtent(1, up_to, up_to, up_to))

    @rule(who=managers)
    def a_manager_notes_what_redis_holds(self, who: int) -> None:
        self.store.mark.advance_now(self.managers[who].learned)

    # -- what happens to Redis -------------------------------------------------------------------------

    @rule()
    def redis_loses_everything(self) -> None:
        self.store.lose_everything()

    @rule()
    def redis_is_saved(self) -> None:
        self.store.save_snapshot()

    @rule()
    def redis_comes_back_as_it_was_saved(self) -> None:
        self.store.come_back_from_snapshot()

    @rule(who=managers)
    def a_manager_looks_after_redis(self, who: int) -> None:
        self.managers[who].repair_at_once()

    @rule()
    def the_broker_forgets_message_ids(self) -> None:
        self.broker.ids.clear()

    # -- the end ---------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        for _ in range(200):
            for manager in self.managers:
                manager.finish()
            self.managers[0].repair_at_once()
            waiting = [*sorted(self.broker.expired), *self.broker.undelivered[:3]]
            if not waiting:
                return
            self.broker.expired.clear()
            del self.broker.undelivered[:3]
            self.managers[0].take(waiting)
        raise AssertionError("the log never comes to rest")

    def teardown(self) -> None:
        self.come_to_rest()
        check_truth(self.broker, self.store, self.happened)

    @invariant()
    def nothing_became_a_dead_letter(self) -> None:
        assert self.broker.dead == []

    @invariant()
    def whoever_may_read_sees_all_that_is_acknowledged(self) -> None:
        """What a record shows is the fold of everything acknowledged, and of what it says it holds beyond that."""
        if not self.store.mark.whole:
            return
        acknowledged = floor_version(self.broker.acknowledged_up_to)
        for key, log in log_of(self.broker).items():
            kind = kind_of(key)
            stored = self.store.rows.get(key, {})
            versions = {version for version, _ in kind.read(stored.get("history")).facts}
            state, _ = in_order(kind, [entry for entry in log if entry[0] <= acknowledged or entry[0] in versions])
            assert stored_state(self.store, key) == state
            assert not stored or {name: stored[name] for name in kind.fields(state)} == kind.fields(state)


TestStateManagers = StateManagers.TestCase
TestStateManagers.settings = settings(stateful_step_count=30)
