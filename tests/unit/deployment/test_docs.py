"""Paths and links on the pages of the repository exist; the diagram and the tree are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.queue_server.topology import topology_streams
from actors.runtime.config.settings import load_settings, unknown_variables
from cli import run
from cli.main import COMMANDS, CommandGroup, app
from protocol.broker.streams import GIB, MIB

ROOT = Path(__file__).parents[3]
PAGES = [
    "README.md",
    "README.ko.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/backup.md",
    "docs/capacity.md",
    "docs/decisions.md",
    "docs/protocol.md",
    "docs/runbook.md",
    "docs/upgrade.md",
]
PATH = re.compile(r"(?<![\w/.:{-])(?:actors|protocol|cli|tests|docs|nats)/[\w./-]*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^```\w*\n(.+?)^```$", re.MULTILINE | re.DOTALL)
TREE_LINE = re.compile(r"^( *)([a-z_]+)/ +\S")


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def paths_on(page: str) -> set[str]:
    return {path.rstrip(".") for path in PATH.findall(text_of(page))}


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text())]
    return {heading.replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_exists(page: str) -> None:
    missing = sorted(path for path in paths_on(page) if not (ROOT / path).exists())
    assert not missing, f"{page} names files that are not there: {missing}"


def test_paths_are_found() -> None:
    assert "actors/state_manager/manager.py" in paths_on("docs/architecture.md")
    assert len(paths_on("docs/architecture.md")) > 60


@pytest.mark.parametrize("page", PAGES)
def test_every_link_on_a_page_leads_somewhere(page: str) -> None:
    for target in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert linked.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors_of(linked), f"{page} links to {target}"


def diagrams() -> list[str]:
    return re.findall(r"```mermaid\n(.+?)\n```", text_of("docs/architecture.md"), re.DOTALL)


SHAPE = r"(?:\[\[\"[^\"]+\"\]\]|\[\(\"[^\"]+\"\)\]|\(\[\"[^\"]+\"\]\)|\[\"[^\"]+\"\])"
NODE = re.compile(rf"^(\w+){SHAPE}$")
SUBGRAPH = re.compile(r"^subgraph (\w+)\[\"[^\"]+\"\]$")
ARROW = re.compile(r"^(\w+) (?:-->|==>|-\.->|<-->)(?:\|[^|\"\[\](){}]+\|)? (\w+)$")


def test_the_diagram_is_well_formed_and_uses_every_node() -> None:
    (diagram,) = diagrams()
    first, *lines = [line.strip() for line in diagram.splitlines() if line.strip()]
    assert first == "flowchart LR"
    nodes: set[str] = set()
    groups: set[str] = set()
    ends: list[str] = []
    depth = 0
    for line in lines:
        if (group := SUBGRAPH.match(line)) is not None:
            assert group[1] not in groups, f"{group[1]} is declared twice"
            groups.add(group[1])
            depth += 1
        elif line == "end":
            depth -= 1
            assert depth >= 0, "an end without its subgraph"
        elif (node := NODE.match(line)) is not None:
            assert node[1] not in nodes, f"{node[1]} is declared twice"
            nodes.add(node[1])
        else:
            arrow = ARROW.match(line)
            assert arrow is not None, f"neither a node nor an arrow: {line}"
            ends += arrow.groups()
    assert depth == 0
    assert set(ends) == nodes, "an arrow to what is not declared, or a node without an arrow"
    assert not groups & nodes


def test_the_table_of_actors_names_every_actor_and_its_file() -> None:
    section = text_of("docs/architecture.md").partition("\n## Actors\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (\w+) \|.* \| `([\w/.]+)` \|$", section, re.MULTILINE))
    actors: dict[str, str] = {}
    for path in sorted((ROOT / "actors").rglob("*.py")):
        for name in re.findall(
            r"^class (\w+)\([\w, ]+\):(?:\n(?!class ).*)*?\n    kind = \"", path.read_text(), re.MULTILINE
        ):
            actors[name] = path.relative_to(ROOT).as_posix()
    assert rows == actors


def test_the_table_of_streams_has_their_bounds() -> None:
    rows = [
        line.strip("| ").split(" | ") for line in text_of("docs/architecture.md").splitlines() if line.startswith("| ")
    ]
    bounds = {row[0]: (row[4].split(" (")[0], row[5]) for row in rows if len(row) == 6}
    for stream in topology_streams(load_settings(captures={"store": "nats"})):
        size = f"{stream.max_bytes // GIB} GiB" if stream.max_bytes >= GIB else f"{stream.max_bytes // MIB} MiB"
        assert bounds[stream.name][0] == size
        assert bounds[stream.name][1].startswith((stream.at_bound, "never"))


def test_the_tree_names_every_room_and_no_other() -> None:
    section = text_of("docs/architecture.md").partition("\n## Rooms\n")[2]
    tree = re.search(r"```\n(.+?)\n```", section, re.DOTALL)
    assert tree is not None
    named: set[str] = set()
    parents: list[str] = []
    for line in tree[1].splitlines():
        match = TREE_LINE.match(line)
        assert match is not None, f"no folder with a word about it: {line}"
        parents = [*parents[: len(match[1]) // 2], match[2]]
        named.add("/".join(parents))
    assert named == rooms()


def rooms() -> set[str]:
    """The folders with code, to the depth that the tree has."""
    command = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "cli",
        "actors",
        "protocol",
        "tests",
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {parent for name in listed if (ROOT / name).is_file() for parent in Path(name).parents}
    depths = {"cli": 2, "actors": 3, "protocol": 2, "tests": 2}
    return {str(folder) for folder in folders if folder.parts and len(folder.parts) <= depths[folder.parts[0]]}


def test_decisions_have_numbers_of_their_own_and_stand_in_the_table_of_contents() -> None:
    page = text_of("docs/decisions.md")
    numbers = [int(number) for number in re.findall(r"^### (\d+)\. ", page, re.MULTILINE)]
    contents = [
        int(number)
        for line in re.findall(r"^- \[.+\]\(#.+\): (.+)$", page, re.MULTILINE)
        for number in line.split(", ")
    ]
    assert len(numbers) > 50
    assert sorted(contents) == sorted(set(numbers)) == sorted(numbers)


def test_a_decision_that_is_referred_to_exists() -> None:
    page = text_of("docs/decisions.md")
    merged = [number for line in re.findall(r"\(Includes\s+([^)]+)\)", page) for number in re.findall(r"\d+", line)]
    numbers = {*merged, *re.findall(r"^### (\d+)\. ", page, re.MULTILINE)}
    references = subprocess.run(
        ["git", "grep", "-hoE", "decision [0-9]+"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    referred = {line.rpartition(" ")[2] for line in references.splitlines()}
    assert referred <= numbers, f"docs/decisions.md has no {referred - numbers}"


def test_the_readme_lists_every_command_and_no_other() -> None:
    listed: dict[str, set[str]] = {}
    for command, parts in re.findall(r"^\| `examwire ([a-z-]+) ?([a-z|\\-]*)", text_of("README.md"), re.MULTILINE):
        listed.setdefault(command, set()).update(part for part in parts.split("\\|") if part)
    assert listed.keys() == COMMANDS.keys()
    for command, place in COMMANDS.items():
        if isinstance(place, CommandGroup):
            assert listed[command] == place.commands.keys()


def commands_on(page: str) -> list[str]:
    """The `examwire ...` lines of a page's blocks of code, without comments and pipes."""
    lines = "".join(CODE.findall(text_of(page))).replace("\\\n", " ").splitlines()
    found = [re.match(r"(?:\.venv/bin/)?examwire ([a-z].*)", line) for line in lines]
    return [re.split(r" +(?:#|>|\|) *", match[1])[0] for match in found if match is not None]


def test_commands_are_found() -> None:
    assert "actors stop state-manager.sm-1" in commands_on("docs/upgrade.md")
    assert "plans show P001" in commands_on("docs/runbook.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_exists_with_its_options(page: str) -> None:
    for command in commands_on(page):
        result = CliRunner().invoke(app, [*shlex.split(command), "--help"])
        assert result.exit_code == 0, f"{page}: examwire {command}: {result.output}"


def test_the_order_of_an_upgrade_has_every_role() -> None:
    order = re.findall(r"^\| \d \| `([a-z-]+)` \|", text_of("docs/upgrade.md"), re.MULTILINE)
    assert sorted(order) == sorted(str(command.name) for command in run.app.registered_commands)


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_on_a_page_is_a_setting(page: str) -> None:
    variables = set(re.findall(r"EXAMWIRE_[A-Z_]*[A-Z]", text_of(page)))
    assert unknown_variables(dict.fromkeys(variables, "")) == {}
