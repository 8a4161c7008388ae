"""`examwire simulate`: test a running system with simulated examinees and proctors."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from cli.local.trial_certificate import trust_certificate
from cli.shared.live_actors import connected
from cli.shared.options import takes_settings, with_running_engines
from cli.shared.output import ExitCode, Format, OutputOption, say, show
from cli.shared.running_system import READY_FILE, RunningSystem
from cli.shared.signing import require_tokens_accepted
from cli.simulate.exam import EXAM_SECONDS, SimulatedExam
from cli.simulate.examinee import SimulatedExaminee, SimulationTarget
from cli.simulate.live_view import LiveView
from cli.simulate.proctor import SimulatedProctor
from cli.simulate.report import SimulateReport, draw_report, missing_in, report_of, wrong_in
from cli.simulate.stories import deal_stories
from protocol.errors import ExamwireError
from protocol.ids import check_id
from protocol.messages.frames import Role

SETTLE_SECONDS = 20.0


class NoSystem(ExamwireError):
    """No system was found, or it refuses the connection."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Options of a simulation.

    `socket_urls`: the ws:// addresses of the socket servers; clients are spread over them. `settings`: for signing
    tokens, and for NATS if it is an `exam`. `duration` in seconds; `None`: until every examinee has performed all
    actions. `speed`: relative to people.
    """

    settings: Settings
    socket_urls: tuple[str, ...]
    web_url: str | None = None
    plan_id: str = "P001"
    examinees: int = 12
    proctors: int = 2
    duration: float | None = None
    seed: int = 0
    speed: float = 1.0
    exam: bool = False


async def simulate(
    options: SimulateOptions, *, live_view: LiveView | None = None, stop: asyncio.Event | None = None
) -> SimulateReport:
    """Run the simulation; `stop` ends it early, with its report. Raises `NoSystem` when proctors cannot join."""
    began = time.monotonic()
    live_view = live_view or LiveView(live=False)
    rng = random.Random(options.seed)
    target = SimulationTarget(
        options.socket_urls,
        options.web_url,
        options.plan_id,
        partial(_token, options.settings, options.plan_id),
        options.speed,
    )
    proctors = await _join_proctors(options, target, live_view)
    examinees = [
        SimulatedExaminee(f"E{number:03}", target, story, proctors[0], random.Random(rng.random()))
        for number, story in enumerate(deal_stories(options.examinees, rng), start=1)
    ]
    title = f"plan {options.plan_id} on {len(options.socket_urls)} socket servers, seed {options.seed}"
    background = [asyncio.create_task(proctor.watch()) for proctor in proctors]
    background.append(asyncio.create_task(live_view.draw(title, examinees, proctors[0])))
    stories: list[asyncio.Task[None]] = []
    try:
        async with _set_up(options, proctors, examinees) as exam:
            endless = options.duration is not None
            stories += [asyncio.create_task(item.live(endless=endless, exam=options.exam)) for item in examinees]
            if exam is None:
                await _until_told(stories, options.duration, stop)
            else:
                await _play(exam, options, stories, stop)
            await _end(stories)
        for item in examinees:
            item.doing = ""
            item.client.wake()
        live_view.note("all actions are performed; comparing the proctors' views with the real state")
        await _settle(examinees, proctors, began_stop=stop is not None and stop.is_set(), exam=options.exam)
        seconds = time.monotonic() - began
        report = report_of(options.plan_id, options.seed, seconds, examinees, proctors, exam=options.exam)
    finally:
        await _end(stories)
        await _end(background)
        await asyncio.gather(*(item.leave() for item in examinees), *(item.client.close() for item in proctors))
    for task in stories + background:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return report


@contextlib.asynccontextmanager
async def _set_up(
    options: SimulateOptions, proctors: list[SimulatedProctor], examinees: list[SimulatedExaminee]
) -> AsyncIterator[SimulatedExam | None]:
    """Schedule the exam, if it is one."""
    if not options.exam:
        yield None
        return
    async with connected(options.settings, "simulate") as bus:
        exam = SimulatedExam(bus, options.plan_id, proctors)
        try:
            await exam.set_up([item.examinee_id for item in examinees], options.duration or EXAM_SECONDS)
        except TimeoutError:
            raise NoSystem(f"the exam of plan {options.plan_id} cannot be set up: no state manager answers") from None
        yield exam


async def _play(
    exam: SimulatedExam, options: SimulateOptions, stories: list[asyncio.Task[None]], stop: asyncio.Event | None
) -> None:
    """Play the exam to its end: when all stories are performed, after the `duration`, or at once on `stop`."""
    performed = asyncio.Event()
    more = asyncio.create_task(exam.keep_open(performed)) if options.duration is None else None
    try:
        await _until_told(stories, options.duration, stop)
        performed.set()
        if more is not None:
            await more
        stopped = stop is not None and stop.is_set()
        await exam.end(soon=stopped or options.duration is None)
    finally:
        performed.set()
        if more is not None:
            await _end([more])


def _token(settings: Settings, plan_id: str, role: Role, subject: str) -> str:
    return issue_token(settings, role, plan_id, subject)


async def _join_proctors(
    options: SimulateOptions, target: SimulationTarget, live_view: LiveView
) -> list[SimulatedProctor]:
    proctors = []
    for number in range(max(1, options.proctors)):
        url = options.socket_urls[number % len(options.socket_urls)]
        name = f"T{number + 1:03}"
        proctors.append(
            SimulatedProctor(name, url, target.token("proctor", name), live_view.event if number == 0 else None)
        )
    try:
        await asyncio.gather(*(proctor.join() for proctor in proctors))
    except (ExamwireError, TimeoutError) as error:
        for proctor in proctors:
            await proctor.client.close()
        raise NoSystem(f"no proctor can watch plan {options.plan_id}: {error or 'no snapshot came'}") from error
    return proctors


async def _until_told(stories: list[asyncio.Task[None]], duration: float | None, stop: asyncio.Event | None) -> None:
    async def stories_done() -> None:
        await asyncio.wait(stories)

    ends = {asyncio.create_task(stories_done()), asyncio.create_task((stop or asyncio.Event()).wait())}
    try:
        await asyncio.wait(ends, timeout=duration, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _settle(
    examinees: list[SimulatedExaminee], proctors: list[SimulatedProctor], *, began_stop: bool, exam: bool
) -> None:
    """Wait, for a limited time, until reconnects are complete and the proctors have received the events."""
    deadline = time.monotonic() + (SETTLE_SECONDS / 2 if began_stop else SETTLE_SECONDS)
    while time.monotonic() < deadline:
        settled = all(examinee.away or (examinee.present and not exam) for examinee in examinees)
        if settled and not any(
            wrong_in(proctor, examinees) or missing_in(proctor, examinees, exam=exam) for proctor in proctors
        ):
            return
        await asyncio.sleep(0.05)


# -- the command ----------------------------------------------------------------------------------------


@takes_settings("data_dir")
def simulate_command(
    settings: Settings,
    socket_url: Annotated[
        list[str] | None,
        typer.Option(
            "--socket-url", help="A socket server; repeatable. [default: those of `examwire up`]", metavar="URL"
        ),
    ] = None,
    web_url: Annotated[
        str | None, typer.Option("--web-url", help="The web server for uploads of pictures.", metavar="URL")
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="The plan. [default: that of `examwire up`]", metavar="PLAN_ID")
    ] = None,
    examinees: Annotated[
        int, typer.Option("--examinees", metavar="N", min=1, max=2000, help="Number of examinees.")
    ] = 12,
    proctors: Annotated[int, typer.Option("--proctors", metavar="N", min=1, max=100, help="Number of proctors.")] = 2,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="SECONDS",
            min=1,
            help="End after this time. [default: until all actions are performed]",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="The same seed repeats the same actions. [default: random]"),
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", metavar="FACTOR", min=0.1, max=100, help="Speed relative to people.")
    ] = 1.0,
    exam: Annotated[
        bool | None,
        typer.Option(
            "--exam/--no-exam",
            help="Play a whole exam: schedule the plan, begin and end it. [default: yes, unless --socket-url is given]",
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Play a whole exam on a running system with simulated people.

    \b
    Examples:
      examwire simulate
      examwire simulate --examinees 100 --duration 60 --seed 7

    Examinees wait for the beginning, and hand in or stay until the end. Meanwhile they reload the page, lose their
    connection, hang, connect from another computer, upload a picture by phone or miss the deadline, and stay away until
    a proctor readmits them. The live view shows what the first proctor sees. The report says whether all proctors see
    the real state. Ctrl-C ends the exam early. Exit code 0: all views are right and no event is missing or doubled, 1:
    they are not, 4: no system to connect to.

    The plan is scheduled to begin in five seconds, and closed at the end.
    """
    require_tokens_accepted(settings)
    try:
        options = _options(settings, socket_url, web_url, plan, examinees, proctors, duration, seed, speed, exam)
        report = asyncio.run(_run(options, LiveView(live=output is Format.TABLE and sys.stdout.isatty())))
    except NoSystem as error:
        say(f"examwire: {error}", err=True)
        raise typer.Exit(ExitCode.UNREACHABLE) from None
    show(report.model_dump(by_alias=True), lambda: draw_report(report), output)
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.FAILED)


def _options(
    settings: Settings,
    socket_urls: list[str] | None,
    web_url: str | None,
    plan: str | None,
    examinees: int,
    proctors: int,
    duration: float | None,
    seed: int | None,
    speed: float,
    exam: bool | None,
) -> SimulateOptions:
    running = RunningSystem.find(settings.data_dir) if not socket_urls else None
    if running is None and not socket_urls:
        raise NoSystem(
            f"no `examwire up` runs on {settings.data_dir} (there is no {settings.data_dir / READY_FILE}): start it, "
            "or give --data-dir of a running system, or --socket-url and --web-url"
        )
    if running is not None and running.certificate_file is not None:
        trust_certificate(running.certificate_file)
    return SimulateOptions(
        with_running_engines(settings),
        tuple(socket_urls) if socket_urls else running.socket_urls if running is not None else (),
        web_url or (running.web_url if running is not None else None),
        check_id("planId", plan or (running.plan_id if running is not None else "P001")),
        examinees,
        proctors,
        duration,
        secrets.randbelow(1_000_000) if seed is None else seed,
        speed,
        not socket_urls if exam is None else exam,
    )


async def _run(options: SimulateOptions, live_view: LiveView) -> SimulateReport:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        if stop.is_set():  # the second Ctrl-C ends it at once
            loop.remove_signal_handler(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        return await simulate(options, live_view=live_view, stop=stop)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
