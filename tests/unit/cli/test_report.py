"""The outage report as a table: how the exam ended for each examinee, and what is compensated."""

from __future__ import annotations

import io

from cli.plans import report
from cli.shared.fitted_table import TableConsole
from protocol.log.entries import LogEntry
from protocol.log.outages import Outages, sum_rows
from protocol.messages.facts import ExamineeFact, FinishReason
from protocol.messages.plan_facts import PlanFact
from tests.unit.support import facts
from tests.unit.support.facts import DAWN


def of(examinee_id: str, fact: ExamineeFact) -> ExamineeFact:
    return fact.model_copy(update={"examinee_id": examinee_id})


STORY: list[ExamineeFact | PlanFact] = [
    facts.schedule(0, 3600, name="Mathematics", second=-100),
    of("E001", facts.connected("SOCK001-a", -50)),
    of("E001", facts.disconnected("SOCK001-a", 1000, "PING_TIMEOUT")),
    of("E001", facts.connected("SOCK001-b", 1100)),
    of("E001", facts.finish(2000, "E001", reason=FinishReason.HANDED_IN)),
    of("E002", facts.connected("SOCK001-c", 5)),
    of("E002", facts.disconnected("SOCK001-c", 3000, "CLIENT_CLOSED")),
    of("E003", facts.enrol("Kim", labels={"room": "A"})),
    of("E004", facts.connected("SOCK001-d", 5)),
    facts.extend_exam(600, "E004"),
    of("E004", facts.finish(4200, "plan", reason=FinishReason.PLAN_ENDED)),
    of("E005", facts.connected("SOCK001-e", 5)),
    of("E005", facts.finish(300, "kim")),
    of("E006", facts.connected("SOCK001-f", 5)),
    of("E006", facts.remove(300)),
]


def drawn(width: int, *, wide: bool = False, until: float = 5000) -> list[str]:
    outages = Outages()
    for number, fact in enumerate(STORY, 1):
        outages.add(LogEntry(10 * number, DAWN, fact))
    window = (DAWN - 100, DAWN + until)
    rows = outages.rows(*window)
    drawing = io.StringIO()
    terminal = TableConsole(width=width, file=drawing, force_terminal=True, color_system=None)
    terminal.wide = wide
    terminal.print(report._draw("P001", outages.plan, window, rows, sum_rows(rows)))
    return [line.rstrip() for line in drawing.getvalue().splitlines()]


def test_a_narrow_terminal_shows_who_it_is_how_the_exam_ended_and_what_to_compensate() -> None:
    lines = drawn(80)
    assert lines[0].startswith("Mathematics: not begun yet, from ")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.lstrip().startswith("E0")}
    assert rows == {
        "E001": ["handed", "in", "1", "100", "PING_TIMEOUT", "1"],
        "E002": ["lost", "at", "the", "end", "1", "CLIENT_CLOSED", "1"],
        "E003": ["Kim", "A", "never", "came"],
        "E004": ["ended", "with", "the", "plan"],
        "E005": ["finished", "by", "kim"],
        "E006": ["removed"],
    }


def test_the_wide_table_shows_each_examinees_own_times_and_no_empty_column() -> None:
    text = "\n".join(drawn(200, wide=True))
    header = next(line for line in text.splitlines() if line.startswith("examinee "))
    assert header.replace("by client", "by-client").split() == [
        *("examinee", "name", "room", "result", "outages", "compensate", "reasons", "seconds", "removed", "longest"),
        *("by-client", "begin", "end"),
    ]
    running = "\n".join(drawn(200, until=3100))
    assert "disconnected" in running
    assert "lost at the end" not in running
