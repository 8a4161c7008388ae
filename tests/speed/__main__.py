"""Run the measurements: `python -m tests.speed -h`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import uvloop

import tests.speed
from cli.load.workers import raise_file_limit
from tests.speed import comparison, socket_server, state_manager, whole_system
from tests.speed.system import ROLES, Figures, Setup

HERE = Path(__file__).parents[2]
NODE = "node"
PARTS = {
    "state-manager": state_manager.measure,
    "socket-server": socket_server.measure,
    "hall-outage": whole_system.measure_hall_outage,
    "one-by-one": whole_system.measure_one_by_one,
}


def main() -> None:
    """Measure one or two trees and print a table."""
    parser = argparse.ArgumentParser(
        "python -m tests.speed", description=tests.speed.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "--before", metavar="REV|DIR|node", help="compare with this revision or directory, or with Socket.IO"
    )
    parser.add_argument("--after", metavar="REV|DIR|node", default=str(HERE), help="what is measured [this tree]")
    parser.add_argument("--pairs", type=int, metavar="N", help="number of runs of each [5 with --before, else 1]")
    parser.add_argument("--examinees", type=int, default=4000, metavar="N", help="[4000]")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="facts or events in a payload [64]")
    parser.add_argument("--proctors", type=int, default=1, metavar="N", help="proctors of each plan [1]")
    parser.add_argument("--plans", type=int, default=1, metavar="N", help="plans of the examinees [1]")
    parser.add_argument("--managers", type=int, default=1, metavar="N", help="state managers [1]")
    parser.add_argument("--quick", action="store_true", help="of one role, measure only a connect and a loss")
    parser.add_argument("--json", action="store_true", help="print the figures of all runs as JSON")
    options = parser.parse_args()
    raise_file_limit()
    names = [name for name in (options.before, options.after) if name is not None]
    results: list[list[Figures]] = [[] for _ in names]
    with ExitStack() as stack:
        trees = [stack.enter_context(_tree(name)) for name in names]
        pairs = options.pairs or (5 if options.before is not None else 1)
        for number in range(pairs):
            for name, tree, runs in zip(names, trees, results, strict=True):
                setup = Setup(tree, options.examinees, options.batch, options.proctors, options.plans, options.managers)
                runs.append(uvloop.run(PARTS[options.part](setup)))
                _progress(f"{number + 1} of {pairs}: {name}: {_summary(runs[-1])}")
    *before, after = results
    if options.json:
        print(json.dumps({"before": before[0] if before else [], "after": after}))
        return
    _print_table(comparison.rows(before[0] if before else [], after), compared=bool(before))


def _print_table(rows: list[tuple[str, ...]], *, compared: bool) -> None:
    head = ("event", "CPU µs, or figure", "before", "after", "ratio", "after: spread") if compared else (
        "event", "CPU µs, or figure", "median", "spread"
    )  # fmt: skip
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _summary(figures: Figures) -> str:
    costs = {event: sum(cost for role, cost in values.items() if role in ROLES) for event, values in figures.items()}
    return ", ".join(f"{event} {cost:.0f} µs" for event, cost in costs.items() if cost)


@contextmanager
def _tree(name: str) -> Iterator[Path | None]:
    """Yield the directory of a tree: the directory itself, or a temporary copy of a revision. `None` for Node."""
    if name == NODE or Path(name).is_dir():
        yield None if name == NODE else Path(name).resolve()
        return
    copy = Path(tempfile.mkdtemp(prefix="examwire-tree-"))
    try:
        archive = subprocess.run(
            ["git", "archive", name, "actors", "cli", "protocol"], cwd=HERE, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", str(copy)], input=archive.stdout, check=True)
        yield copy
    finally:
        shutil.rmtree(copy)


def _progress(text: str) -> None:
    print(f"speed: {text} (load average {os.getloadavg()[0]:.1f}, {psutil.cpu_count()} cores)", file=sys.stderr)


if __name__ == "__main__":
    main()
