"""The marks of what is whole already while a Redis that lost its state is being repaired: parts of the log, and plans.

They are fields of the hash `keys.STATE`, beside `run`, and hold the run id of the Redis process that they are about.
So one plan can be read while others are not whole yet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from protocol.log.partitions import PARTITIONS, part_of

_PLAN_PARTS = tuple(map(str, range(PARTITIONS)))


def part_mark(part: str) -> str:
    """Return the mark of a part of the log: all keys that its facts write are whole."""
    return f"part:{part}"


def plan_mark(plan_id: str) -> str:
    """Return the mark of a plan."""
    return f"plan:{plan_id}"


def live_mark(part: str) -> str:
    """Return the mark that all plans of a part that have live sessions are whole."""
    return f"live:{part}"


def needed_marks(read_keys: Collection[str]) -> list[str]:
    """Return what must be marked so that these keys can be read, each as alternatives: `plan:P001|part:3`.

    A plan's keys need their plan or its part; records of servers the part of the servers. The sockets of a server
    belong to live sessions of plans of any part. A key that every part writes needs all parts.
    """
    plans: set[str] = set()
    needed: set[str] = set()
    for key in read_keys:  # hundreds in one read: no more than needed is cut out of each
        if key.startswith("plan:"):
            end = key.find(":", 5)
            plans.add(key[5:end] if end > 0 else key[5:])
        elif key == "servers" or (key.startswith("SERVER_ID:") and key.endswith(":status")):
            needed.add(part_mark(part_of(None)))
        elif key.startswith("SERVER_ID:"):
            needed.update(f"{live_mark(part)}|{part_mark(part)}" for part in _PLAN_PARTS)
        else:
            needed.update(part_mark(part) for part in _PLAN_PARTS)
    needed.update(f"{plan_mark(plan_id)}|{part_mark(part_of(plan_id))}" for plan_id in plans)
    return sorted(needed)


@dataclass(slots=True)
class Whole:
    """What is whole in a Redis: everything, or these parts, plans, and live sessions of parts.

    Example::

        whole = await mark.whole_so_far()
        whole.plan("P001")
    """

    everything: bool = False
    marks: set[str] = field(default_factory=set)

    @property
    def being_repaired(self) -> bool:
        """Whether a repair of this Redis process has begun and is not over."""
        return not self.everything and any(mark.startswith("repair:") for mark in self.marks)

    @property
    def plans(self) -> int:
        """How many plans the repair has made whole."""
        return sum(mark.startswith("plan:") for mark in self.marks)

    def part(self, part: str) -> bool:
        """Return whether a part of the log is whole."""
        return self.everything or part_mark(part) in self.marks

    def live(self, part: str) -> bool:
        """Return whether the plans of a part that have live sessions are whole."""
        return live_mark(part) in self.marks or self.part(part)

    def plan(self, plan_id: str) -> bool:
        """Return whether a plan is whole."""
        return plan_mark(plan_id) in self.marks or self.part(part_of(plan_id))

    def servers(self) -> bool:
        """Return whether the records of the servers and the indexes of their sockets are whole."""
        return self.part(part_of(None)) and all(map(self.live, _PLAN_PARTS))
