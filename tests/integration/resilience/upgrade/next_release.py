"""The next release: a copy of a release's tree, changed as CONTRIBUTING.md ("Change what is stored") says.

It has a new field of a fact and of two stored states (one of them nested in the other), a new type of fact with an
event of its own, and a new value of an enum.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("actors", "cli", "protocol")


class Change(NamedTuple):
    """In `file`, `old` becomes `new`; `old` must be there exactly once."""

    file: str
    old: str
    new: str


FORMAT = (
    Change("protocol/messages/base.py", "\nText = Annotated[", "\nFORMAT += 1\n\nText = Annotated["),
    Change(
        "protocol/messages/facts.py",
        "from protocol.messages.base import ",
        "from protocol.messages.base import FORMAT, ",
    ),
    Change(
        "protocol/messages/proctor_events.py",
        "from protocol.messages.base import ",
        "from protocol.messages.base import FORMAT, ",
    ),
)

NEW_FIELD = (
    Change(
        "protocol/messages/facts.py",
        "    unstable_rule: UnstableRule | None = None\n",
        "    unstable_rule: UnstableRule | None = None\n    network: Text | None = None\n",
    ),
    Change(
        "actors/sessions/examinee_session.py",
        '            "again": again,\n',
        '            "again": again,\n            "network": "wired" if connected else None,\n',
    ),
    Change(
        "protocol/rules/connection_state.py",
        "    seconds: float\n",
        "    seconds: float\n    network: str | None = None\n",
    ),
    Change(
        "protocol/rules/connection_state.py",
        "Outage(end, seconds)",
        "Outage(end, seconds, network=self.network)",
    ),
    Change(
        "protocol/rules/connection_state.py",
        "    client_id: str | None = None\n",
        "    client_id: str | None = None\n    network: str | None = None\n    checks: int = 0\n",
    ),
    Change(
        "protocol/rules/connection.py",
        "        server_id=server_id,\n        client_id=fact.client_id,\n",
        "        server_id=server_id,\n        client_id=fact.client_id,\n"
        "        network=fact.network,\n        checks=state.checks,\n",
    ),
    Change(
        "protocol/records/kinds.py",
        "        ipAddress=state.ip_address,\n",
        "        ipAddress=state.ip_address,\n        network=state.network,\n        checks=state.checks,\n",
    ),
)

NEW_TYPE = (
    Change(
        "protocol/messages/facts.py",
        "class ReconnectAttempt(ExamineeFact):\n",
        "class BrowserChecked(ExamineeFact):\n"
        '    """The server has checked the browser of an examinee who has connected."""\n\n'
        '    type: ClassVar[str] = "browser_checked"\n'
        "    format: ClassVar[int] = FORMAT\n\n\n"
        "class ReconnectAttempt(ExamineeFact):\n",
    ),
    Change(
        "protocol/messages/facts.py", "    ConnectionStatus\n    |", "    ConnectionStatus\n    | BrowserChecked\n    |"
    ),
    Change(
        "protocol/messages/proctor_events.py",
        "class ExamineeFinished(ConnectionEvent):\n",
        "class ExamineeChecked(ConnectionEvent):\n"
        '    """`examinee_checked`: the server has checked the browser of the examinee."""\n\n'
        '    type: ClassVar[str] = "examinee_checked"\n'
        "    format: ClassVar[int] = FORMAT\n"
        "    checks: int\n"
        "    timestamp: Timestamp\n\n\n"
        "class ExamineeFinished(ConnectionEvent):\n",
    ),
    Change(
        "protocol/messages/proctor_events.py",
        "    | ExamineeFinished\n",
        "    | ExamineeChecked\n    | ExamineeFinished\n",
    ),
    Change("protocol/rules/connection.py", "    ConnectionFact,\n", "    BrowserChecked,\n    ConnectionFact,\n"),
    Change("protocol/rules/connection.py", "    Event,\n    Exa", "    Event,\n    ExamineeChecked,\n    Exa"),
    Change(
        "protocol/rules/connection.py",
        "        case Enrol():\n",
        "        case BrowserChecked():\n"
        "            checked = state.changed(checks=state.checks + 1, version=version)\n"
        "            event = ExamineeChecked(\n"
        "                **checked.about(), checks=checked.checks, timestamp=fact.timestamp, version=version\n"
        "            )\n"
        "            return Outcome(checked, (event,))\n"
        "        case Enrol():\n",
    ),
    Change(
        "actors/sessions/examinee_session.py",
        "    ConnectionStatus,\n",
        "    BrowserChecked,\n    ConnectionStatus,\n",
    ),
    Change(
        "actors/sessions/examinee_session.py",
        "            self._announced = True\n",
        "            if not self._announced:\n"
        "                now = format_time(self._outbox.clock.now())\n"
        "                self._outbox.add(\n"
        "                    BrowserChecked(plan_id=self.plan_id, examinee_id=self.examinee_id, timestamp=now)\n"
        "                )\n"
        "            self._announced = True\n",
    ),
)

NEW_VALUE = (
    Change(
        "protocol/messages/facts.py",
        '    HANDED_IN = "HANDED_IN"\n',
        '    HANDED_IN = "HANDED_IN"\n    WITHDRAWN = "WITHDRAWN"\n',
    ),
    Change(
        "protocol/messages/facts.py",
        "    reason: FinishReason = FinishReason.DECIDED\n",
        "    reason: FinishReason = FinishReason.DECIDED\n\n"
        "    def required_format(self) -> int:\n"
        "        return FORMAT if self.reason is FinishReason.WITHDRAWN else self.format\n",
    ),
    Change(
        "protocol/messages/proctor_events.py",
        "    reason: FinishReason\n",
        "    reason: FinishReason\n\n"
        "    def required_format(self) -> int:\n"
        "        return FORMAT if self.reason is FinishReason.WITHDRAWN else self.format\n\n",
    ),
    Change(
        "protocol/rules/connection_state.py",
        "    @property\n    def live(self) -> bool:\n",
        "    def required_format(self) -> int:\n"
        "        return FORMAT if self.finished is FinishReason.WITHDRAWN else self.format\n\n"
        "    @property\n    def live(self) -> bool:\n",
    ),
    Change(
        "protocol/rules/connection_state.py",
        "from protocol.messages.facts import ",
        "from protocol.messages.base import FORMAT\nfrom protocol.messages.facts import ",
    ),
    Change("actors/sessions/examinee_session.py", "FinishReason.HANDED_IN", "FinishReason.WITHDRAWN"),
    Change("actors/sessions/outbox.py", "is FinishReason.HANDED_IN", "is FinishReason.WITHDRAWN"),
)

CHANGES = (*FORMAT, *NEW_FIELD, *NEW_TYPE, *NEW_VALUE)


def make_next_release(release: Path, directory: Path) -> Path:
    """Copy a release's tree into `directory` and change it. Raises `AssertionError` for a change that does not fit."""
    for package in PACKAGES:
        shutil.copytree(release / package, directory / package)
    for change in CHANGES:
        path = directory / change.file
        text = path.read_text()
        assert text.count(change.old) == 1, (
            f"{Path(__file__).name} changes {change.file}, which holds this text {text.count(change.old)} times, "
            f"not once:\n{change.old}\nWrite down how it looks now."
        )
        path.write_text(text.replace(change.old, change.new))
    return directory
