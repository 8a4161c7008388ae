"""Mutation testing: `python -m tests.mutation protocol/rules` prints the changes of our code that no test notices.

The tests of a module are those of its room: those of `protocol/rules/history.py` are `tests/unit/protocol/rules`.
The exit code is 1 when a mutant survives that `accepted.toml` does not name, or when an entry there is out of date.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

from tests.mutation.forks import Outcome
from tests.mutation.mutants import Mutant
from tests.mutation.room import ROOT, Module, try_mutants

DEFAULT_PATHS = ["protocol/rules", "protocol/client", "protocol/log"]
ACCEPTED = Path(__file__).parent / "accepted.toml"

Key = tuple[str, str, str, str]
"""What names a mutant in `accepted.toml`: its path, its function, the source before and after."""


def main() -> int:
    arguments = _arguments()
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    rooms = defaultdict[Path, list[Module]](list)
    for path in arguments.paths:
        for file in sorted((ROOT / path).rglob("*.py") if (ROOT / path).is_dir() else [ROOT / path]):
            rooms[file.parent].append(Module.parse(file))
    if arguments.sample is not None:
        _keep_a_sample(rooms, arguments.sample, arguments.seed)
    accepted = _accepted()
    failed = False
    for room, modules in rooms.items():
        begin = time.monotonic()

        def print_survivor(mutant: Mutant, outcome: Outcome) -> None:
            if outcome is Outcome.SURVIVED and _key(mutant) not in accepted:
                print(mutant, flush=True)

        results = try_mutants(modules, _tests_of(room), arguments.jobs, print_survivor)
        failed |= _report(room, results, accepted, time.monotonic() - begin, whole=arguments.sample is None)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "paths", nargs="*", default=DEFAULT_PATHS, help="modules or folders, relative to the repository"
    )
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="mutants tried at a time")
    parser.add_argument("--sample", type=int, help="try so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    return parser.parse_args()


def _tests_of(room: Path) -> Path:
    """The folder of a room's unit tests: `tests/unit/protocol/rules`, or `tests/unit/state_manager` for an actor."""
    parts = room.relative_to(ROOT).parts
    return ROOT.joinpath("tests", "unit", *(parts[1:] if parts[0] == "actors" else parts))


def _keep_a_sample(rooms: dict[Path, list[Module]], size: int, seed: int) -> None:
    modules = [module for room in rooms.values() for module in room]
    places = [(module, place) for module in range(len(modules)) for place in range(len(modules[module].mutants))]
    kept = set(random.Random(seed).sample(places, min(size, len(places))))
    for number, module in enumerate(modules):
        module.mutants[:] = [mutant for place, mutant in enumerate(module.mutants) if (number, place) in kept]


def _accepted() -> dict[Key, str]:
    entries = tomllib.loads(ACCEPTED.read_text())["mutant"]
    return {(entry["path"], entry["function"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


def _report(
    room: Path, results: list[tuple[Mutant, Outcome]], accepted: dict[Key, str], seconds: float, *, whole: bool
) -> bool:
    """Print the figures of a room; return whether anything is wrong."""
    survivors = [mutant for mutant, outcome in results if outcome is Outcome.SURVIVED]
    unaccepted = [mutant for mutant in survivors if _key(mutant) not in accepted]
    paths = {mutant.path for mutant, _ in results}
    surviving = {_key(mutant) for mutant in survivors}
    outdated = [key for key in accepted if whole and key[0] in paths and key not in surviving]
    for key in outdated:
        print(f"accepted.toml: no such mutant survives any more: {' | '.join(key)}")
    timed_out = sum(outcome is Outcome.TIMED_OUT for _, outcome in results)
    print(
        f"{room.relative_to(ROOT)}: {len(results)} mutants, {len(results) - len(survivors)} killed"
        f" ({timed_out} by a time limit), {len(survivors) - len(unaccepted)} accepted,"
        f" {len(unaccepted)} survived; {seconds:.0f} s",
        flush=True,
    )
    return bool(unaccepted or outdated)


def _key(mutant: Mutant) -> Key:
    return mutant.path, mutant.function, mutant.before, mutant.after


if __name__ == "__main__":
    sys.exit(main())
