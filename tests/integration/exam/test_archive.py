"""The archive of a plan: whole, with hashes, and never half-written under its name."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from actors.runtime.broker.connection import Bus, Outgoing
from actors.runtime.config.settings import Settings
from cli.plans import archive as archive_module
from protocol.access.roster import read_roster
from protocol.broker import subjects
from protocol.messages.facts import Enrol
from protocol.messages.plan_facts import PlanSchedule
from protocol.records import keys
from protocol.times import format_time
from tests.integration.support.command_line import Invoke
from tests.integration.support.system import System, eventually

CAPTURE_ID = "0a" * 32


async def test_an_archive_holds_everything_with_hashes_and_is_named_by_the_purge(
    bus: Bus, settings: Settings, invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "P001.zip"
    async with System(settings) as system:
        now = format_time(bus.clock.now())
        facts = [
            PlanSchedule(plan_id="P001", by="kim", timestamp=now, name="Maths"),
            Enrol(plan_id="P001", examinee_id="E001", name="=1+1", timestamp=now),
        ]
        await bus.publish(Outgoing.of(subjects.status_plan("P001", subjects.OPERATOR), *facts))
        examinee = await system.examinee("E001")
        examinee.abort()
        await system.status("E001", "DISCONNECTED")
        pictures = settings.data_dir / "captures" / "P001" / "E001"
        pictures.mkdir(parents=True)
        (pictures / f"{CAPTURE_ID}.jpg").write_bytes(b"a picture")

        told = json.loads((await invoke("plans", "archive", "P001", str(path), "-o", "json")).stdout)

        assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            manifest = json.loads(archive.read("manifest.json"))
            for entry in manifest["files"]:
                assert entry["sha256"] == hashlib.sha256(archive.read(entry["name"])).hexdigest()
            assert {entry["name"] for entry in manifest["files"]} == set(archive.namelist()) - {"manifest.json"}
            assert archive.read(f"pictures/E001/{CAPTURE_ID}.jpg") == b"a picture"
            types = [json.loads(line)["type"] for line in archive.read("facts.jsonl").splitlines()]
            assert {"plan_schedule", "enrol", "connection_status"} <= set(types)
            entries = [json.loads(line)["what"] for line in archive.read("timeline.jsonl").splitlines()]
            assert "LOST" in " ".join(entries) or "DISCONNECTED" in " ".join(entries)
            (entry,) = read_roster(archive.read("roster.csv")).entries
            assert (entry.examinee_id, entry.name) == ("E001", "=1+1")
            (row,) = csv.DictReader(io.StringIO(archive.read("report.csv").decode("utf-8-sig")))
            assert (row["examineeId"], row["outages"]) == ("E001", "1")
        again = await invoke("plans", "archive", "P001", str(path))
        assert (again.exit_code, "exists already" in again.stderr) == (2, True)
        assert (await invoke("plans", "archive", "P404", str(tmp_path / "x.zip"))).exit_code == 3

        refused = await invoke("plans", "purge", "P001", "--yes")
        assert (refused.exit_code, "is not closed" in refused.stderr) == (1, True)
        wrong = await invoke("plans", "purge", "P002", "--archive", str(path), "--yes")
        assert (wrong.exit_code, "not of P002" in wrong.stderr) == (2, True)
        purged = await invoke("plans", "purge", "P001", "--archive", str(path), "--yes", "--force", "-o", "json")
        assert (purged.exit_code, json.loads(purged.stdout)["records"] > 0) == (0, True)
        note = await bus.last_message("STATUS", subjects.status_plan("P001", subjects.PURGE))
        assert note is not None
        assert json.loads(note.payload)["data"]["archiveSha256"] == told["sha256"]
        assert (await invoke("plans", "purge", "P001", "--yes")).exit_code == 3
        await eventually(lambda: _is_empty(system), "no key")


async def _is_empty(system: System) -> bool:
    return not await system.store.raw_keys(f"{keys.plan('P001')}*")


def test_a_half_written_archive_never_has_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "P001.zip"
    with suppress(ZeroDivisionError), archive_module._new_file(path) as file:
        file.write(b"%d" % (1 // 0))
    assert not list(tmp_path.iterdir())
    with pytest.raises(archive_module.NotArchived, match="has appeared"), archive_module._new_file(path):
        path.write_bytes(b"of somebody else")
    assert [entry.name for entry in tmp_path.iterdir()] == ["P001.zip"]
    assert path.read_bytes() == b"of somebody else"
