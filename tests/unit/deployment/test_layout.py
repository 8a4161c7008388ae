"""Rooms of a readable size, no circle between them, and tests that mirror them: what the layout promises."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from cli.local.engines import nats_server_binary

ROOT = Path(__file__).parents[3]
PACKAGES = ("protocol", "actors", "cli")
MOST_ENTRIES = {"protocol": 13, "actors": 13, "cli": 13, "tests": 15}
NOT_COUNTED = {"__init__.py", "py.typed"}
TESTS_OF_NO_ROOM = {"deployment", "pages", "support"}
"""Folders of `tests/unit` that mirror no room: files that are deployed, the JavaScript of the pages, the fakes."""


def tracked(*folders: str) -> list[Path]:
    """The files of these folders that git knows or would add; paths relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [Path(name) for name in listed if (ROOT / name).is_file()]


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports() -> Iterator[tuple[str, str]]:
    """Every import of one of our modules by another one, as their dotted names."""
    files = [path for path in tracked(*PACKAGES) if path.suffix == ".py"]
    modules = {module_of(path) for path in files}
    for path in files:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in modules else node.module for name in names]
            yield from ((module_of(path), name) for name in names if name in modules)


def room_of(module: str, depth: int) -> tuple[str, ...]:
    return tuple(module.split(".")[:-1][:depth])


def circles(arrows: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """Pairs of rooms that reach one another. A room and one inside it are no pair: they are one house."""

    def reached(start: tuple[str, ...]) -> set[tuple[str, ...]]:
        visited: set[tuple[str, ...]] = set()
        waiting = [start]
        while waiting:
            for room in arrows.get(waiting.pop(), set()) - visited:
                visited.add(room)
                waiting.append(room)
        return visited

    reach = {room: reached(room) for room in arrows}
    return [
        f"{'/'.join(one)} <-> {'/'.join(other)}"
        for one, other in itertools.combinations(sorted(arrows), 2)
        if other in reach[one] and one in reach[other] and other[: len(one)] != one
    ]


def test_no_folder_holds_more_than_can_be_read_at_a_glance() -> None:
    entries = defaultdict[Path, set[str]](set)
    for path in tracked(*MOST_ENTRIES):
        for parent in list(path.parents)[:-1]:
            entries[parent].add(path.relative_to(parent).parts[0])
    crowded = {
        str(folder): len(names - NOT_COUNTED)
        for folder, names in entries.items()
        if len(names - NOT_COUNTED) > MOST_ENTRIES[folder.parts[0]]
    }
    assert crowded == {}


@pytest.mark.parametrize("depth", [2, 3])
def test_no_two_rooms_import_from_one_another(depth: int) -> None:
    arrows = defaultdict[tuple[str, ...], set[tuple[str, ...]]](set)
    for importer, imported in imports():
        from_room, to_room = room_of(importer, depth), room_of(imported, depth)
        inside = from_room[: len(to_room)] == to_room or to_room[: len(from_room)] == from_room
        if not inside:
            arrows[from_room].add(to_room)
    assert len(arrows) > 20, "the imports were not found"
    assert circles(arrows) == []


def test_circles_are_found() -> None:
    arrows: dict[tuple[str, ...], set[tuple[str, ...]]]
    arrows = {("a", "x"): {("a", "y")}, ("a", "y"): {("a", "z")}, ("a", "z"): {("a", "x")}, ("a",): {("a", "x")}}
    assert circles(arrows) == ["a/x <-> a/y", "a/x <-> a/z", "a/y <-> a/z"]


def test_every_room_stands_on_a_floor_that_import_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = {
        container: {name for layer in contract["layers"] for name in re.split(r"\s*[|:]\s*", layer)}
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract.get("containers", ())
    }
    for container in (*PACKAGES, "actors.runtime"):
        folder = ROOT / container.replace(".", "/")
        rooms = {path.name for path in folder.iterdir() if any(path.glob("*.py"))} - {"pages"}
        assert rooms <= floors[container], f"{container}: {rooms - floors[container]} is on no floor"


def test_unit_tests_mirror_the_rooms() -> None:
    rooms = {path.parent.relative_to("actors") for path in tracked("actors") if path.suffix == ".py"}
    rooms |= {path.parent for path in tracked("protocol", "cli") if path.suffix == ".py"}
    for path in tracked("tests/unit"):
        folder = path.parent.relative_to("tests/unit")
        if path.suffix == ".py" and folder.parts and folder.parts[0] not in TESTS_OF_NO_ROOM:
            assert folder in rooms, f"{path} mirrors no room"


def test_the_folder_nats_holds_no_python_for_it_would_join_the_package_of_nats_py() -> None:
    assert list((ROOT / "nats").rglob("*.py")) == []
    assert nats.__file__ is not None
    assert Path(nats.__file__).is_file()
    assert ROOT not in Path(nats.__file__).parents or ".venv" in nats.__file__


def test_the_broker_accepts_its_configuration() -> None:
    command = [str(nats_server_binary()), "-t", "-c", "single.conf"]
    result = subprocess.run(command, cwd=ROOT / "nats", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"<!-- test command -->\n```\n(.+?)\n```\n<!-- end -->", readme, re.DOTALL)
    assert command is not None
    assert "pytest" in command[1]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_text_file_is_opened_with_an_encoding() -> None:
    """Else it is that of the machine's locale: in EUC-KR the web server could not read its own pages."""
    without = []
    for path in tracked("protocol", "actors", "cli"):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            encodings = [keyword for keyword in node.keywords if keyword.arg == "encoding"]
            reads = name.endswith((".read_text", ".write_text"))
            opens = name in ("open", "os.fdopen", "io.open") and not any("b" in str(text)[:3] for text in texts[-1:])
            if (opens or reads) and not encodings and not (reads and "utf-8" in texts):
                without.append(f"{path}:{node.lineno}")
    assert without == []
