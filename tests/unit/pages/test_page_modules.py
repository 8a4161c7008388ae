"""A page names all modules that it will load, so that the browser asks for them at once and not import by import."""

from __future__ import annotations

import re

import pytest

from actors.web_server.pages import DIRECTORY, PAGES

IMPORT = re.compile(r'^(?:import|export)\b[^;]*?\bfrom\s+"(\.{1,2}/[^"]+)"', re.MULTILINE)
SCRIPT = re.compile(r'<script type="module" src="/static/([^"]+)"></script>')
PRELOAD = re.compile(r'<link rel="modulepreload" href="/static/([^"]+)" />')


def loaded(module: str, known: set[str]) -> set[str]:
    """What a module of `static/` imports, with all that is imported there; paths within `static/`."""
    static = (DIRECTORY / "static").resolve()
    path = static / module
    for name in IMPORT.findall(path.read_text()):
        other = (path.parent / name).resolve().relative_to(static).as_posix()
        if other not in known:
            known.add(other)
            loaded(other, known)
    return known


@pytest.mark.parametrize("page", sorted(PAGES.values()))
def test_a_page_preloads_exactly_the_modules_that_it_imports(page: str) -> None:
    html = (DIRECTORY / page).read_text()
    entries = SCRIPT.findall(html)
    assert entries, "a page without a script"
    imported = set[str]().union(*(loaded(entry, set()) for entry in entries))
    named = PRELOAD.findall(html)
    assert len(named) == len(set(named)), "named twice"
    add = [f'<link rel="modulepreload" href="/static/{module}" />' for module in sorted(imported - set(named))]
    assert (add, sorted(set(named) - imported)) == ([], []), f"{page}: to be added, to be taken out"


def test_the_modules_that_a_page_imports_are_found_over_others() -> None:
    modules = loaded("proctor/wall.js", set())
    expected = {"examwire.js", "client/reconnect-rules.js", "common/i18n.js", "proctor/locales/ko.js"}
    assert expected | {"proctor/tiles/rows.js"} <= modules
    assert "proctor/wall.js" not in modules
