"""The pages' scripts in node's test runner: the client library against the Python rules, and what needs no browser."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from actors.web_server.pages import DIRECTORY, EMBEDDABLE
from tests.unit.support.reconnect_vectors import vectors

SCRIPTS = sorted(Path(__file__).parent.rglob("*.test.js"))
OLDEST = (20, 19)  # takes a .js file with imports for a module


def node_binary() -> str | None:
    """node: the one on the PATH, else the one that Playwright brings."""
    spec = importlib.util.find_spec("playwright")
    bundled = [Path(place) / "driver" / "node" for place in (spec.submodule_search_locations or ())] if spec else []
    return shutil.which("node") or next((str(path) for path in bundled if path.is_file()), None)


@functools.cache
def why_no_node() -> str | None:
    """Why the scripts cannot be run here; `None` when they can."""
    binary = node_binary()
    if binary is None:
        return "no node: neither on the PATH nor with Playwright"
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    match = re.match(r"v(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        return f"node {version} is older than v{OLDEST[0]}.{OLDEST[1]}"
    return None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name.removesuffix(".test.js"))
def test_script(script: Path, tmp_path: Path) -> None:
    if (reason := why_no_node()) is not None:
        pytest.skip(reason)
    environment = {**os.environ, "NO_COLOR": "1"}
    if script.name == "parity.test.js":
        path = tmp_path / "vectors.json"
        path.write_text(json.dumps(vectors(seed=2026)))
        environment["EXAMWIRE_VECTORS"] = str(path)
    command = [str(node_binary()), "--test", "--test-reporter=tap", str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    counts = {
        name: int(count) for name, count in re.findall(r"^# (pass|skipped|todo) (\d+)$", ran.stdout, re.MULTILINE)
    }
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert counts["pass"] > 0, ran.stdout
    assert (counts["skipped"], counts["todo"]) == (0, 0), ran.stdout


def test_there_are_scripts() -> None:
    assert {"parity.test.js", "client.test.js"} <= {path.name for path in SCRIPTS}


# -- how the library is built ------------------------------------------------------------------------------


def imports(module: str) -> set[str]:
    """The modules that one of `static/` imports, its types aside."""
    code = (DIRECTORY / "static" / module).read_text()
    assert not re.search(r"\bimport\(\s*[\"'`]", re.sub(r"/\*\*.*?\*/", "", code, flags=re.DOTALL)), "imported late"
    names = re.findall(r'^(?:import|export)\b[^;]*?\bfrom\s+"(\.{1,2}/[^"]+)"', code, re.MULTILINE)
    return {posixpath.normpath(posixpath.join(posixpath.dirname(module), name)) for name in names}


def test_the_rules_and_the_plan_import_nothing() -> None:
    for module in ("client/reconnect-rules.js", "client/plan-view.js"):
        assert imports(module) == set()


def test_no_module_of_the_library_imports_itself_over_others_and_all_belong_to_it() -> None:
    visited: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        visited.add(module)
        for other in imports(module):
            follow(other, (*path, module))

    follow("examwire-badge.js", ())
    assert visited == EMBEDDABLE
