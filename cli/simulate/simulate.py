"""`examwire simulate`: test a running system with simulated examinees and proctors."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from cli.local.trial_certificate import trust_certificate
from cli.shared.options import takes_settings
from cli.shared.output import ExitCode, Format, OutputOption, say, show
from cli.shared.running_system import READY_FILE, RunningSystem
from cli.shared.signing import require_tokens_accepted
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
    tokens. `duration` in seconds; `None`: until every examinee has performed all actions. `speed`: relative to people.
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
    stories = [asyncio.create_task(item.live(endless=options.duration is not None)) for item in examinees]
    try:
        await _until_told(stories, options.duration, stop)
        await _end(stories)
        for item in examinees:
            item.doing = ""
            item.client.wake()
        live_view.note("all actions are performed; comparing the proctors' views with the real state")
        await _settle(examinees, proctors, began_stop=stop is not None and stop.is_set())
        report = report_of(options.plan_id, options.seed, time.monotonic() - began, examinees, proctors)
    finally:
        await _end(stories)
        await _end(background)
        await asyncio.gather(*(item.leave() for item in examinees), *(item.client.close() for item in proctors))
    for task in stories + background:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return report


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


async def _settle(examinees: list[SimulatedExaminee], proctors: list[SimulatedProctor], *, began_stop: bool) -> None:
    """Wait, for a limited time, until reconnects are complete and the proctors have received the events."""
    deadline = time.monotonic() + (SETTLE_SECONDS / 2 if began_stop else SETTLE_SECONDS)
    while time.monotonic() < deadline:
        settled = all(examinee.present or examinee.away for examinee in examinees)
        if settled and not any(
            wrong_in(examinee, examinees) or missing_in(examinee, examinees) for examinee in proctors
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
    output: OutputOption = Format.TABLE,
) -> None:
    """Test a running system with simulated examinees and proctors.

    \b
    Examples:
      examwire simulate
      examwire simulate --examinees 100 --duration 60 --seed 7

    Examinees join, reload the page, lose their connection, hang, connect from another computer, upload a picture by
    phone or miss the deadline, and stay away until a proctor readmits them. The live view shows what the first proctor
    sees. The report says whether all proctors see the real state. Ctrl-C ends the simulation early. Exit code 0: all
    views are right and no event is missing or doubled, 1: they are not, 4: no system to connect to.
    """
    require_tokens_accepted(settings)
    try:
        options = _options(settings, socket_url, web_url, plan, examinees, proctors, duration, seed, speed)
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
        settings,
        tuple(socket_urls) if socket_urls else running.socket_urls if running is not None else (),
        web_url or (running.web_url if running is not None else None),
        check_id("planId", plan or (running.plan_id if running is not None else "P001")),
        examinees,
        proctors,
        duration,
        secrets.randbelow(1_000_000) if seed is None else seed,
        speed,
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
