from __future__ import annotations

import asyncio
import gc
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.runtime.actor.actor import Actor, ActorStopped, on
from actors.runtime.actor.mailbox import MailboxFull
from actors.runtime.actor.registry import ACTORS
from actors.runtime.actor.service import Service
from actors.runtime.broker.consumers.consumer import Delivery
from tests.unit.support.waiting import until


@dataclass(frozen=True)
class Note:
    text: str = ""


@dataclass(frozen=True)
class Slow:
    """Handled when `go` is set."""

    name: str = ""
    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Broken:
    error: type[BaseException] = RuntimeError


@dataclass(frozen=True)
class Unknown:
    pass


class Clerk(Actor):
    """Writes down what it does."""

    kind = "clerk"
    mailbox_capacity = 4

    def __init__(self, address: str = "clerk.1") -> None:
        super().__init__(address)
        self.book: list[str] = []

    async def on_start(self) -> None:
        self.book.append("start")

    async def on_stop(self) -> None:
        self.book.append("stop")

    @on(Note)
    def note(self, message: Note) -> str:
        self.book.append(message.text)
        return message.text.upper()

    @on(Slow)
    async def slow(self, message: Slow) -> str:
        self.book.append(f"{message.name} begins")
        await message.go.wait()
        self.book.append(f"{message.name} ends")
        return message.name

    @on(Broken)
    async def broken(self, message: Broken) -> None:
        raise message.error("it broke")


# -- declarations -----------------------------------------------------------------------------------------


def test_a_second_handler_for_a_type_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Twice\.second: a second handler for Note"):

        class Twice(Actor):
            @on(Note)
            def first(self, message: Note) -> None: ...

            @on(Note)
            def second(self, message: Note) -> None: ...


def test_a_handler_annotated_for_another_type_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="declared on Note, annotated"):

        class Other(Actor):
            @on(Note)
            def handle(self, message: Slow) -> None: ...


def test_a_handler_with_the_wrong_parameters_fails_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="takes self, one message"):

        class Two(Actor):
            @on(Note)
            def handle(self, message: Note, delivery: Delivery, more: int) -> None: ...

    with pytest.raises(TypeError, match="second parameter of a handler is the Delivery"):

        class NoDelivery(Actor):
            @on(Note)
            def handle(self, message: Note, number: int) -> None: ...

    with pytest.raises(TypeError, match="takes self, one message"):

        class Nothing(Actor):
            @on(Note)
            def handle(self) -> None: ...


async def test_a_subclass_inherits_handlers_and_may_override_them() -> None:
    class Junior(Clerk):
        @on(Note)
        def note_more(self, message: Note) -> str:
            return f"junior {message.text}"

    junior, senior = Junior(), Clerk()
    await junior.start()
    await senior.start()
    assert await junior.ask(Note("a")) == "junior a"
    assert await senior.ask(Note("a")) == "A"
    slow = Slow("x")
    slow.go.set()
    assert await junior.ask(slow) == "x"


async def test_a_message_without_a_handler_is_the_senders_error() -> None:
    clerk = Clerk()
    await clerk.start()
    with pytest.raises(TypeError, match="clerk has no handler for Unknown"):
        clerk.tell(Unknown())
    with pytest.raises(TypeError):
        await clerk.ask(Unknown())
    assert clerk.failed == 0


# -- messages ---------------------------------------------------------------------------------------------


async def test_messages_are_handled_in_order_after_the_start() -> None:
    clerk = Clerk()
    clerk.tell(Note("early"))
    await asyncio.sleep(0)
    assert clerk.book == []
    await clerk.start()
    clerk.tell(Note("late"))
    assert await clerk.ask(Note("asked")) == "ASKED"
    assert clerk.book == ["start", "early", "late", "asked"]
    assert (clerk.handled, clerk.failed) == (3, 0)


async def test_handlers_of_one_actor_never_overlap() -> None:
    clerk = Clerk()
    await clerk.start()
    first, second = Slow("first"), Slow("second")
    clerk.tell(first)
    clerk.tell(second)
    clerk.tell(Note("after"))
    await until(lambda: "first begins" in clerk.book)
    second.go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert clerk.book == ["start", "first begins"]
    first.go.set()
    await until(lambda: "after" in clerk.book)
    assert clerk.book == ["start", "first begins", "first ends", "second begins", "second ends", "after"]


async def test_an_actor_that_handles_at_once_keeps_the_order_and_never_overlaps() -> None:
    class QuickClerk(Clerk):
        handles_at_once = True

        @on(Unknown)
        def pass_on(self, message: Unknown) -> None:
            self.tell(Note("later"))
            self.book.append("now")

    clerk = QuickClerk()
    clerk.tell(Note("before the start"))
    await clerk.start()
    await until(lambda: clerk.handled == 1)
    clerk.tell(Note("at once"))
    clerk.tell(Unknown())
    assert clerk.book == ["start", "before the start", "at once", "now", "later"]
    slow = Slow("slow")
    clerk.tell(slow)
    clerk.tell(Note("behind"))
    assert len(clerk.mailbox) == 1
    slow.go.set()
    await until(lambda: clerk.handled == 6)
    clerk.tell(Broken())
    clerk.tell(Note("behind the failure"))
    await until(lambda: clerk.handled == 7)
    assert clerk.book[5:] == ["slow begins", "slow ends", "behind", "behind the failure"]
    assert clerk.failed == 1
    await clerk.stop()
    with pytest.raises(ActorStopped):
        clerk.tell(Note("too late"))


async def test_an_actor_without_a_task_starts_and_stops_at_once() -> None:
    failures: list[Service] = []
    clerk = Clerk()
    clerk.start_at_once(lambda failed, _error: failures.append(failed))
    assert clerk in ACTORS.running("clerk")
    slow = Slow("slow")
    clerk.tell(slow)
    await until(lambda: clerk.book == ["slow begins"])
    assert not clerk.stop_at_once(), "a handler is at work"
    assert clerk.running
    slow.go.set()
    clerk.tell(Broken())
    await until(lambda: failures == [clerk])
    assert clerk.stop_at_once()
    assert clerk.stop_at_once()
    assert clerk not in ACTORS.running("clerk")
    with pytest.raises(ActorStopped):
        clerk.tell(Note())


async def test_a_full_mailbox_refuses_a_tell_and_makes_a_put_wait() -> None:
    clerk = Clerk()
    await clerk.start()
    slow = Slow("s")
    clerk.tell(slow)
    await until(lambda: "s begins" in clerk.book)
    for number in range(4):
        clerk.tell(Note(str(number)))
    with pytest.raises(MailboxFull):
        clerk.tell(Note("too much"))
    with pytest.raises(MailboxFull):
        await clerk.ask(Note("too much"))
    patient = asyncio.create_task(clerk.put(Note("patient")))
    await asyncio.sleep(0)
    assert not patient.done()
    slow.go.set()
    async with asyncio.timeout(20):
        await patient
    await until(lambda: "patient" in clerk.book)
    assert clerk.book[-5:] == ["0", "1", "2", "3", "patient"]
    inspection = clerk.inspection()
    assert (inspection.mailbox_peak, inspection.mailbox_refused) == (4, 2)


async def test_an_ask_gets_the_handlers_error() -> None:
    clerk = Clerk()
    failures: list[BaseException] = []
    await clerk.start(lambda _, error: failures.append(error))
    with pytest.raises(RuntimeError, match="it broke"):
        await clerk.ask(Broken())
    assert [str(error) for error in failures] == ["it broke"]


async def test_an_ask_has_a_deadline_and_the_actor_goes_on() -> None:
    clerk = Clerk()
    await clerk.start()
    slow = Slow("s")
    with pytest.raises(TimeoutError):
        await clerk.ask(slow, timeout=0.01)
    slow.go.set()
    assert await clerk.ask(Note("next")) == "NEXT"


# -- failures ---------------------------------------------------------------------------------------------


async def test_a_failure_is_counted_and_reported_to_the_supervisor() -> None:
    clerk = Clerk()
    failures: list[tuple[Service, str]] = []
    await clerk.start(lambda actor, error: failures.append((actor, str(error))))
    clerk.tell(Broken(ValueError))
    await until(lambda: bool(failures))
    assert failures == [(clerk, "it broke")]
    inspection = clerk.inspection()
    assert (inspection.handled, inspection.failed, inspection.last_error) == (0, 1, "ValueError: it broke")


async def test_a_loop_that_raises_fails_its_actor() -> None:
    clerk = Clerk()
    failures: list[str] = []
    await clerk.start(lambda _, error: failures.append(str(error)))

    async def loop() -> None:
        raise RuntimeError("the loop broke")

    clerk.spawn(loop(), "loop")
    await until(lambda: bool(failures))
    assert failures == ["the loop broke"]


async def test_a_loop_that_ends_is_no_failure() -> None:
    clerk = Clerk()
    failures: list[str] = []
    await clerk.start(lambda _, error: failures.append(str(error)))

    async def loop() -> None:
        clerk.book.append("looped")

    await clerk.spawn(loop(), "loop")
    assert clerk.book[-1] == "looped"
    assert (failures, clerk.failed) == ([], 0)


async def test_a_handler_whose_awaitable_was_cancelled_fails_the_actor() -> None:
    clerk = Clerk()
    failures: list[BaseException] = []
    await clerk.start(lambda _, error: failures.append(error))
    clerk.tell(Broken(asyncio.CancelledError))
    clerk.tell(Note("next"))
    await until(lambda: bool(failures) or "next" in clerk.book, 0.2)


# -- the end ----------------------------------------------------------------------------------------------


async def test_stopping_fails_pending_asks_and_cancels_the_handler_at_work() -> None:
    clerk = Clerk()
    await clerk.start()
    asks = [asyncio.create_task(clerk.ask(message)) for message in (Slow("at work"), Note("waiting"))]
    await until(lambda: "at work begins" in clerk.book)
    await clerk.stop()
    for result in await asyncio.gather(*asks, return_exceptions=True):
        assert isinstance(result, ActorStopped)
        assert "clerk.1" in str(result)
    assert clerk.book == ["start", "at work begins", "stop"]


async def test_stopping_before_the_handlers_first_step_fails_its_ask() -> None:
    clerk = Clerk()
    await clerk.start()
    pending_ask = asyncio.create_task(clerk.ask(Slow("never begun"), timeout=20))
    await until(lambda: clerk._work is not None)
    await clerk.stop()
    answer = (await asyncio.gather(pending_ask, return_exceptions=True))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the handler that was never awaited
        clerk._work = None
        gc.collect()
    assert isinstance(answer, ActorStopped)


async def test_stopping_twice_or_at_once_is_harmless() -> None:
    clerk = Clerk()
    await clerk.start()
    await asyncio.gather(clerk.stop(), clerk.stop())
    await clerk.stop()
    assert clerk.book == ["start", "stop"]


async def test_stopping_ends_the_loops() -> None:
    clerk = Clerk()
    failures: list[BaseException] = []
    await clerk.start(lambda _, error: failures.append(error))
    forever = clerk.spawn(_forever(), "forever")
    await asyncio.sleep(0)
    await clerk.stop()
    assert forever.cancelled()
    assert failures == []


async def _forever() -> None:
    await asyncio.Event().wait()


async def test_an_actor_may_stop_itself() -> None:
    class Leaver(Clerk):
        @on(Note)
        async def leave(self, message: Note) -> str:
            await self.stop()
            return "left"

    leaver = Leaver()
    await leaver.start()
    assert await leaver.ask(Note()) == "left"
    assert leaver.book == ["start", "stop"]
    assert not leaver.running


async def test_a_stopped_actor_refuses_messages() -> None:
    clerk = Clerk()
    await clerk.start()
    await clerk.stop()
    with pytest.raises(ActorStopped):
        clerk.tell(Note())
    with pytest.raises(ActorStopped):
        await clerk.put(Note())
    with pytest.raises(ActorStopped):
        await clerk.ask(Note())


async def test_a_put_that_waits_for_room_fails_when_the_actor_stops() -> None:
    clerk = Clerk()
    await clerk.start()
    clerk.tell(Slow("s"))
    await until(lambda: "s begins" in clerk.book)
    for _ in range(4):
        clerk.tell(Note())
    waiting = asyncio.create_task(clerk.put(Note()))
    await asyncio.sleep(0)
    await clerk.stop()
    with pytest.raises(ActorStopped):
        await waiting


# -- inspection -------------------------------------------------------------------------------------------


async def test_an_inspection_shows_state_counts_and_details() -> None:
    class Detailed(Clerk):
        def details(self) -> dict[str, Any]:
            return {"plans": 2}

    clerk = Detailed()
    assert clerk.inspection().state == "starting"
    await clerk.start()
    await clerk.ask(Note())
    inspection = clerk.inspection()
    assert (
        inspection.address,
        inspection.kind,
        inspection.state,
        inspection.handled,
        inspection.failed,
        inspection.restarts,
    ) == (
        "clerk.1",
        "clerk",
        "running",
        1,
        0,
        0,
    )
    assert (inspection.mailbox_depth, inspection.mailbox_capacity, inspection.details) == (0, 4, {"plans": 2})
    assert inspection.since.endswith("Z")
    assert "mailboxDepth" in inspection.model_dump(by_alias=True)
    await clerk.stop()
    assert clerk.inspection().state == "stopping"


async def test_serials_grow_in_the_order_in_which_actors_are_made() -> None:
    serials = [Clerk().serial for _ in range(3)]
    assert serials == sorted(set(serials))
