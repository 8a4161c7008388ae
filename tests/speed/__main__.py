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
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

import tests.speed
from cli.load.workers import raise_file_limit
from tests.speed import comparison, socket_server, state_manager
from tests.speed.system import Figures, Setup

HERE = Path(__file__).parents[2]
PARTS = {"state-manager": state_manager.measure, "socket-server": socket_server.measure}


def main() -> None:
    """Measure one or two trees and print a table."""
    parser = argparse.ArgumentParser(
        "python -m tests.speed", description=tests.speed.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--before", metavar="REV|DIR", help="compare with this revision or directory")
    parser.add_argument("--after", metavar="REV|DIR", default=str(HERE), help="what is measured [this tree]")
    parser.add_argument("--pairs", type=int, metavar="N", help="number of runs of each [5 with --before, else 1]")
    parser.add_argument("--examinees", type=int, default=4000, metavar="N", help="[4000]")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="facts or events in a payload [64]")
    parser.add_argument("--proctors", type=int, default=1, metavar="N", help="proctors of the plan [1]")
    parser.add_argument("--json", action="store_true", help="print the figures of all runs as JSON")
    options = parser.parse_args()
    raise_file_limit()
    with _tree(options.after) as after, _tree(options.before) as before:
        assert after is not None
        pairs = options.pairs or (5 if before is not None else 1)
        results: dict[Path, list[Figures]] = {tree: [] for tree in (before, after) if tree is not None}
        for number in range(pairs):
            for tree, runs in results.items():
                setup = Setup(tree, options.examinees, options.batch, options.proctors)
                runs.append(uvloop.run(PARTS[options.part](setup)))
                _progress(f"{number + 1} of {pairs}: {tree}: {_summary(runs[-1])}")
    if options.json:
        print(json.dumps({"before": results.get(before, []) if before else [], "after": results[after]}))
        return
    _print_table(comparison.rows(results[before] if before else [], results[after]), compared=before is not None)


def _print_table(rows: list[tuple[str, ...]], *, compared: bool) -> None:
    head = ("event", "CPU µs", "before", "after", "ratio", "after: spread") if compared else (
        "event", "CPU µs", "median", "spread"
    )  # fmt: skip
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _summary(figures: Figures) -> str:
    return ", ".join(f"{event} {sum(costs.values()):.0f}" for event, costs in figures.items() if event != "idle")


@contextmanager
def _tree(name: str | None) -> Iterator[Path | None]:
    """Yield the directory of a tree: the directory itself, or a temporary copy of a revision."""
    if name is None or Path(name).is_dir():
        yield Path(name).resolve() if name is not None else None
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
