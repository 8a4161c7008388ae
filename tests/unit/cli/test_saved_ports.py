"""The ports that `up` had before: asked for again, unless somebody else has them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.local.engines import free_port
from cli.local.saved_ports import SavedPorts

HOST = "127.0.0.1"


def test_saved_ports_are_used_again_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    port = free_port()
    assert SavedPorts(path).get("SOCK001", HOST) == 0
    SavedPorts(path).save({"SOCK001": port})
    assert SavedPorts(path).get("SOCK001", HOST) == port
    assert SavedPorts(path).get("SOCK002", HOST) == 0


def test_a_port_taken_by_another_process_is_not_used_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ports.json"
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        SavedPorts(path).save({"web-server": port})
        assert SavedPorts(path).get("web-server", HOST) == 0
    assert f"port {port} of web-server is taken now" in caplog.text


@pytest.mark.parametrize("damaged", ["", "[]", '{"SOCK001": "no port"}', '{"SOCK001": 70000}'])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "ports.json"
    path.write_text(damaged)
    assert SavedPorts(path).get("SOCK001", HOST) == 0
