"""Two state managers over one log: any interleaving, any crash, any redelivery, and the end state is the truth."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.log.version import floor_version
from protocol.messages.base import Message
from protocol.messages.facts import ConnectionStatus, MobileSyncCode, Notice
from protocol.messages.server_messages import ServerStatusCode
from protocol.messages.session_messages import SessionClose, SessionState
from protocol.records import keys
from protocol.rules.connection_state import ConnectionState, server_id_of
from protocol.rules.effects import CloseSocket, SendSessionState
from protocol.rules.mobile_sync import MobileSyncState
from protocol.rules.notices import NoticesState
from tests.unit.support import facts
from tests.unit.support.fact_logs import connection_fact, in_order, mobile_sync_fact, notice_fact
from tests.unit.support.facts import EXAMINEE, PLAN
from tests.unit.support.memory_broker import Broker, facts_of, publish
from tests.unit.support.memory_store import MemoryStore
from tests.unit.support.state_manager_world import (
    is_open,
    kind_of,
    log_of,
    loss_waited_for,
    newest_words,
    server_state,
    stages_timed,
    stored_state,
)
from tests.unit.support.stepped_manager import Manager

PROGRESS, SYNC = keys.progress(PLAN, EXAMINEE), keys.mobile_sync(PLAN, EXAMINEE)
NOTICES = keys.notices(PLAN, EXAMINEE)
managers = st.integers(0, 1)


class StateManagers(RuleBasedStateMachine):
    """One examinee, two socket servers, two state managers, one proctor."""

    def __init__(self) -> None:
        super().__init__()
        self.broker, self.store = Broker(), MemoryStore()
        self.managers = [Manager(self.broker, self.store) for _ in range(2)]
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
            said = facts.server(status, f"i{self.incarnations[server_id]}").model_copy(update={"server_id": server_id})
            self._publish([said], f"status.server.{server_id}")

    @rule(server_id=st.sampled_from(["SOCK001", "SOCK002"]))
    def a_server_is_lost(self, server_id: str) -> None:
        incarnation = f"i{self.incarnations[server_id]}"
        lost = facts.server(ServerStatusCode.LOST, incarnation).model_copy(update={"server_id": server_id})
        self._publish([lost], f"status.server.{server_id}")

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

    @rule(who=managers, steps=st.integers(1, 6), which=st.integers(0, 2))
    def a_manager_goes_on(self, who: int, steps: int, which: int) -> None:
        self.managers[who].step(steps, which)

    @rule(who=managers)
    def a_manager_finishes(self, who: int) -> None:
        self.managers[who].finish()

    @precondition(lambda self: any(manager.batches for manager in self.managers))
    @rule(who=managers)
    def a_manager_dies(self, who: int) -> None:
        self.managers[who].crash()

    @precondition(lambda self: any(manager.batches for manager in self.managers))
    @rule(who=managers)
    def a_slow_managers_messages_are_delivered_to_others(self, who: int) -> None:
        self.broker.expired.update(self.broker.unacknowledged & self.managers[who].in_hand)

    @rule(who=managers)
    def a_manager_learns_what_is_acknowledged(self, who: int) -> None:
        self.managers[who].learned = self.broker.acknowledged_up_to
        self.managers[who].decisions.raise_floor(self.broker.acknowledged_up_to)

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
        assert not self.broker.unacknowledged
        self.records_are_the_fold_of_the_log()
        self.the_proctor_sees_the_truth()
        self.everything_asked_for_was_done()
        self.whoever_waits_is_waited_for()
        self.sockets_are_as_the_newest_word_says()
        self.sessions_end_with_their_process_and_no_sooner()

    def records_are_the_fold_of_the_log(self) -> None:
        for key, log in log_of(self.broker).items():
            kind = kind_of(key)
            state, _ = in_order(kind, log)
            assert stored_state(self.store, key) == state
            stored = self.store.rows[key]
            assert {name: stored[name] for name in kind.fields(state)} == kind.fields(state)

    def the_proctor_sees_the_truth(self) -> None:
        connection, sync, notices = self._truth()
        seen = self.broker.proctors.examinees.get(EXAMINEE)
        if seen is None:
            assert (connection.status, connection.enrolled, sync.status, notices.sent) == (None, False, None, 0)
            return
        assert seen.status == connection.view().status
        assert (seen.exhausted, seen.removed) == (connection.exhausted, connection.removed)
        assert seen.name == connection.name
        assert seen.mobile_sync == sync.view().status
        assert (seen.notices, seen.unconfirmed) == (notices.sent, notices.unconfirmed)
        if connection.live:
            assert seen.socket_id == connection.socket_id

    def everything_asked_for_was_done(self) -> None:
        said = self.broker.to_servers
        state = ConnectionState()
        for version, fact in log_of(self.broker).get(PROGRESS, []):
            outcome = kind_of(PROGRESS).rule(state, version, fact)
            state = outcome.state
            for effect in outcome.effects:
                if isinstance(effect, SendSessionState):
                    assert any(isinstance(one, SessionState) and one.socket_id == effect.socket_id for one in said)
                if isinstance(effect, CloseSocket):
                    assert SessionClose(socket_id=effect.socket_id, code=effect.code) in said
        *_, notices = self._truth()
        shown = {one.action_id for one in said if isinstance(one, Notice)}
        assert set(notices.unconfirmed) <= shown

    def whoever_waits_is_waited_for(self) -> None:
        connection, sync, _ = self._truth()
        lost = connection.status is not None and not connection.live and not connection.exhausted
        if lost and connection.reason not in ("READMITTED", "REMOVED"):
            assert loss_waited_for(self.broker, EXAMINEE) == connection.loss_version
        if sync.status in (MobileSyncCode.WAITING, MobileSyncCode.FAILED) and sync.wait_version:
            assert sync.wait_version in stages_timed(self.broker, EXAMINEE)

    def sockets_are_as_the_newest_word_says(self) -> None:
        for socket_id, word in newest_words(self.broker).items():
            found = self.store.rows.get(keys.socket(PLAN, socket_id))
            # One that ended long ago may be gone: the tests' day is.
            assert found is not None or not is_open(word)
            assert found is None or found["status"] == word.status.value
            held = self.store.rows.get(keys.server_sockets(server_id_of(word)), {})
            assert (socket_id in held) == is_open(word)

    def sessions_end_with_their_process_and_no_sooner(self) -> None:
        connection, *_ = self._truth()
        if connection.live and connection.server_id is not None:
            holder = server_state(self.broker, connection.server_id)
            assert holder.holds_sessions_of(connection.incarnation), "a session of a process that is no more"
        for sequence in range(1, len(self.broker.payloads) + 1):
            if sequence in self.happened:
                continue
            for _, fact in facts_of(self.broker, sequence):
                if isinstance(fact, ConnectionStatus):
                    holder = server_state(self.broker, server_id_of(fact), sequence)
                    assert not holder.holds_sessions_of(fact.incarnation), "ended by mistake"

    def _truth(self) -> tuple[ConnectionState, MobileSyncState, NoticesState]:
        logs = log_of(self.broker)
        connection, _ = in_order(kind_of(PROGRESS), logs.get(PROGRESS, []))
        sync, _ = in_order(kind_of(SYNC), logs.get(SYNC, []))
        notices, _ = in_order(kind_of(NOTICES), logs.get(NOTICES, []))
        return connection, sync, notices

    @invariant()
    def nothing_was_put_aside(self) -> None:
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
            held = {version for version, _ in kind.read(stored.get("history")).facts}
            state, _ = in_order(kind, [one for one in log if one[0] <= acknowledged or one[0] in held])
            assert stored_state(self.store, key) == state
            assert not stored or {name: stored[name] for name in kind.fields(state)} == kind.fields(state)


TestStateManagers = StateManagers.TestCase
TestStateManagers.settings = settings(stateful_step_count=30)
