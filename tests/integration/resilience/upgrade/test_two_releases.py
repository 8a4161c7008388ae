"""Two releases serve an exam together: upgraded role by role, rolled back and upgraded again, while examinees drop.

docs/upgrade.md says what an operator does; the steps here are those.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from actors.runtime.config.settings import Settings
from actors.runtime.config.tokens import issue_token
from cli.shared.output import ExitCode
from tests.integration.resilience.upgrade.crowd import PLAN, Crowd
from tests.integration.resilience.upgrade.installation import ROOT, Installation, Release
from tests.integration.resilience.upgrade.next_release import PACKAGES, make_next_release
from tests.integration.support.system import eventually

TAG = "format-1"
"""The first release whose records and messages the next one understands, and the other way round."""
SERVERS = ("SOCK001", "SOCK002")
MANAGERS = ("state-manager-1", "state-manager-2")


class Operator:
    """What an operator does, and what is true after each step."""

    def __init__(self, installation: Installation, crowd: Crowd) -> None:
        self.installation = installation
        self.crowd = crowd

    async def begin(self, release: Release, *names: str) -> None:
        """Start a queue server and these roles, and let everybody in."""
        await self.installation.start("queue-server", release)
        await asyncio.gather(*(self.installation.start(name, release) for name in names))
        for number, server_id in enumerate(SERVERS):
            await self.crowd.watch(f"proctor-{number}", server_id)
        await asyncio.gather(*map(self.crowd.join, self.crowd.examinees))

    async def step(self, step: str, release: Release, *names: str, commands: Release) -> None:
        """Change roles to another release while everybody drops and comes back; then check what is true.

        `commands`: the release whose commands the operator runs meanwhile.
        """
        async with self.crowd.churning():
            await asyncio.gather(*(self._replace(name, release) for name in names if name not in SERVERS))
            for server_id in filter(SERVERS.__contains__, names):
                await self._replace_server(server_id, release)
        await self.crowd.everything_told(step)
        assert await self.installation.dead_letters() == 0, step
        code, report = await self.installation.command(commands, "state", "verify")
        assert (code, report["differences"]) == (0, []), f"{step}: {report}"

    async def _replace(self, name: str, release: Release) -> None:
        """Start a role of another release beside the old one, then stop that."""
        old = self.installation.roles[name]
        await self.installation.start(name, release)
        await old.stop()

    async def _replace_server(self, server_id: str, release: Release) -> None:
        """Drain a socket server and start it again; its proctor comes home."""
        role = self.installation.roles[server_id]
        self.crowd.closed.add(server_id)
        code, drained = await self.installation.command(role.release, "actors", "drain", server_id, "--over", "0")
        assert (code, drained["state"]) == (0, "STOPPED")
        await role.ended()
        await self.installation.start(server_id, release)
        self.crowd.closed.discard(server_id)
        await self.crowd.send_home(f"proctor-{SERVERS.index(server_id)}")


@pytest.fixture
async def operator(own_settings: Settings, tmp_path: Path) -> AsyncIterator[Operator]:
    async with Installation(own_settings, tmp_path) as installation:
        crowd = Crowd(installation, 24)
        yield Operator(installation, crowd)
        await crowd.end()


@pytest.mark.timeout(400)
async def test_the_next_release_is_upgraded_to_rolled_back_and_upgraded_to_again(
    operator: Operator, tmp_path: Path
) -> None:
    this, new = Release("this", ROOT), Release("next", make_next_release(ROOT, tmp_path / "next"), newer=True)
    crowd, installation = operator.crowd, operator.installation
    await operator.begin(this, *MANAGERS, *SERVERS, "web-server")
    await operator.step("one manager is newer", new, "queue-server", MANAGERS[0], commands=this)
    await operator.step("one server is newer", new, MANAGERS[1], SERVERS[0], commands=new)

    async def passed_on() -> bool:
        return crowd.heard("proctor-1", "examinee_checked")

    await eventually(passed_on, "a server passes on what it does not know")
    await crowd.finish("F001", SERVERS[0])
    await every_command_answers(installation, this)
    await operator.step("upgraded", new, SERVERS[1], commands=new)
    await everything_new_is_applied(operator)
    known = await fields_of_the_next_release(installation, crowd)
    assert {field for _, field in known} == {"checks", "network"}
    # The worst order: what newer servers write waits in the log, and records hold facts of a type that is not known.
    await operator.step("managers are rolled back", this, *MANAGERS, commands=this)
    await crowd.finish("F002", SERVERS[1])
    await operator.step("rolled back", this, *SERVERS, "queue-server", commands=this)
    assert await status_of(installation, "F002") != "FINISHED"
    assert known <= await fields_of_the_next_release(installation, crowd), "the older one has written all of them"
    assert "NEWER" in await timeline_of(installation, crowd.examinees[0])
    await every_command_answers(installation, this)
    await operator.step("upgraded again", new, "queue-server", MANAGERS[0], SERVERS[0], commands=new)
    await everything_new_is_applied(operator)


@pytest.mark.timeout(400)
async def test_the_tagged_release_is_upgraded_to_this_one_and_back(operator: Operator, tmp_path: Path) -> None:
    tagged, this = Release("tagged", tagged_tree(tmp_path / "tagged")), Release("this", ROOT)
    await operator.begin(tagged, MANAGERS[0], *SERVERS)
    await operator.step("the manager is newer", this, "queue-server", MANAGERS[0], commands=tagged)
    await operator.step("one server is newer", this, SERVERS[0], commands=this)
    await operator.step("rolled back", tagged, SERVERS[0], MANAGERS[0], "queue-server", commands=tagged)


def tagged_tree(directory: Path) -> Path:
    """Unpack the tagged release into `directory`. Skips the test where there is nothing to compare with."""
    known = subprocess.run(["git", "rev-parse", "-q", "--verify", f"{TAG}^{{commit}}"], cwd=ROOT, capture_output=True)
    if known.returncode:
        pytest.skip(f"this clone has no tag {TAG}: git fetch --tags")
    if not subprocess.run(["git", "diff", "--quiet", TAG, "--", *PACKAGES], cwd=ROOT).returncode:
        pytest.skip(f"this is the release {TAG}")
    directory.mkdir()
    archive = subprocess.run(["git", "archive", TAG, *PACKAGES], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive, check=True)
    return directory


async def everything_new_is_applied(operator: Operator) -> None:
    """Wait until Redis has what only the next release writes: the new field, each new fact once, the new value."""
    installation, crowd = operator.installation, operator.crowd
    missing: list[object] = []

    async def applied() -> bool:
        missing.clear()
        for examinee_id, (server_id, _) in crowd.clients.items():
            record = await installation.progress(examinee_id, PLAN)
            # Who came by an older server and has done nothing since the upgrade has the value of before.
            network = "wired" if installation.roles[server_id].release.newer else record.get("network")
            expected = str(crowd.checked[examinee_id]), network
            if (found := (record.get("checks"), record.get("network"))) != expected:
                missing.append((examinee_id, found, expected))
        for examinee_id in crowd.finished:
            if (status := await status_of(installation, examinee_id)) != "FINISHED":
                missing.append((examinee_id, status))
        return not missing

    try:
        await eventually(applied, "what was written in new types is applied", 40)
    except AssertionError as error:
        raise AssertionError(f"{error}: {missing}") from None


async def every_command_answers(installation: Installation, release: Release) -> None:
    """Run what operators look with, on records and roles of another release."""
    for command in (
        ("actors", "ls"),
        ("sessions", "ls"),
        ("queues", "ls"),
        ("plans", "show", PLAN),
        ("plans", "report", PLAN),
        ("plans", "timeline", PLAN, "F001"),
        ("examinees", "show", PLAN, "F001"),
        ("doctor",),
    ):
        code, answer = await installation.command(release, *command)
        assert code in (ExitCode.OK, ExitCode.DEGRADED, ExitCode.FAILED), (command, code)
        assert answer, command


async def status_of(installation: Installation, examinee_id: str) -> str | None:
    return (await installation.progress(examinee_id, PLAN)).get("connStatusCode")


async def fields_of_the_next_release(installation: Installation, crowd: Crowd) -> set[tuple[str, str]]:
    """Return which examinees' records hold which of the fields that only the next release knows."""
    found: set[tuple[str, str]] = set()
    for examinee_id in crowd.examinees:
        history = json.loads((await installation.progress(examinee_id, PLAN))["history"])
        states = [history["base"], history.get("head", {})]
        found |= {(examinee_id, "checks") for state in states if state.get("checks")}
        found |= {(examinee_id, "network") for s in states for outage in s.get("outages", ()) if outage.get("network")}
    return found


async def timeline_of(installation: Installation, examinee_id: str) -> list[str]:
    """Return the kinds of the entries of an examinee's timeline, as the web server has it."""
    token = issue_token(installation.settings, "proctor", PLAN, "kim")
    async with httpx.AsyncClient(base_url=installation.roles["web-server"].ready["url"], trust_env=False) as http:
        path = f"/v1/plans/{PLAN}/examinees/{examinee_id}/timeline"
        answer = await http.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    return [entry["what"] for entry in answer.json()["entries"]]
