"""What a repaired record is: by the log, and by what it held that the log does not say. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors.status_log.projection import Line, Projection
from actors.status_log.status_log import Extent
from protocol.errors import StateDamaged
from protocol.log.version import floor_version
from protocol.records.kinds import RecordKind
from protocol.records.placement import VersionedMessage
from protocol.rules.history import History, compact, fold, insert

log = logging.getLogger("examwire.state_repair")


def restored(line: Line, found: History[Any, Any] | None, projection: Projection) -> History[Any, Any] | None:
    """A record by the log, with what it holds beyond the log's replayed part; `None`: it is ahead of that part.

    What the log has forgotten is taken from the record.
    """
    log_alone = line.history(projection.floor)
    if found is None:
        return in_flight(log_alone, projection.extent)
    if found.floor > projection.end:
        return None
    if 0 < found.first_version < projection.beginning:
        items = [VersionedMessage(version, fact) for version, fact in line.facts]
        return in_flight(with_facts(found, line.kind, items, found.floor), projection.extent)
    newer = [VersionedMessage(version, fact) for version, fact in found.facts if version > projection.end]
    history = with_facts(log_alone, line.kind, newer, 0)
    # Decided on what was not so: what proctors were told last may not be so either.
    wrong = line.kind.visible_part(fold(found, line.kind.rule)) != line.kind.visible_part(line.state_of(found))
    history = in_flight(history, projection.extent)
    newest_event = max(history.newest_event, found.newest_event)
    restatement_due = history.restatement_due or found.restatement_due or wrong
    return replace(history, newest_event=newest_event, restatement_due=restatement_due)


def with_facts(
    history: History[Any, Any] | None, kind: RecordKind[Any, Any], items: Sequence[VersionedMessage], settled: int
) -> History[Any, Any]:
    """A history with these facts in it, in their places."""
    grown = compact(history if history is not None else kind.empty(), kind.rule, settled)
    for item in items:
        grown = insert(grown, kind.rule, item.version, item.message, kind.visible_part).history
    return grown


def holds(history: History[Any, Any] | None, version: int) -> bool:
    """Whether a fact has its place in a history."""
    return history is not None and (version <= history.floor or any(version == known for known, _ in history.facts))


def in_flight(history: History[Any, Any], extent: Extent) -> History[Any, Any]:
    """Of several facts that are at work nobody knows in which order they were told: that was in the lost record.

    Each of them asks again for all that may have followed from it. And if the last of them tells nothing, something
    untrue may have been told by it, which nothing newer puts right: the state is told anew.
    """
    least, most = floor_version(extent.acknowledged), floor_version(extent.delivered)
    at_work = [version for version, _ in history.facts if least < version <= most]
    if len(at_work) < 2:
        return history
    late = tuple(sorted({*history.late, *at_work[:-1]}))
    return replace(history, late=late, restatement_due=history.restatement_due or history.newest_event < at_work[-1])


def readable(kind: RecordKind[Any, Any], key: str, there: dict[str, str] | StateDamaged) -> History[Any, Any] | None:
    """The history in a record; `None` when there is none that can be read."""
    if isinstance(there, StateDamaged):
        log.warning("%s", there)
        return None
    if "history" not in there:
        return None
    try:
        return kind.read(there["history"])
    except ValueError as error:
        log.warning("%s: %s", key, error)
        return None


def heard_since(fields: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """What leases have added to the record of the same socket or the same process, which is not in the log."""
    if fields.get("liveSocketId") and all(fields[name] == known.get(name) for name in ("liveSocketId", "since")):
        return {"lastActiveTime": max(fields["lastActiveTime"], known.get("lastActiveTime", ""))}
    if fields.get("incarnation") and fields["incarnation"] == known.get("incarnation"):
        return {name: known[name] for name in ("cpuUsage", "memoryUsage", "networkStatus") if known.get(name)}
    return {}
