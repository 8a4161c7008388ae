"""The README's examples work, its picture is small, and the Korean README has every command of the English one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from actors.runtime.config.settings import load_settings
from actors.runtime.config.tokens import TokenVerifier
from actors.web_server.pages import PAGES

ROOT = Path(__file__).parents[3]
ENGLISH, KOREAN = (ROOT / "README.md").read_text(), (ROOT / "README.ko.md").read_text()
BLOCK = re.compile(r"^```\w*\n.+?^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """The blocks of code, without comments, which are translated."""
    return [re.sub(r" +# .+", "", block) for block in BLOCK.findall(text)]


def code_in_text(text: str) -> set[str]:
    """What stands in `backticks`, in tables and sentences; a name in them may be broken over two lines."""
    return {re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text))}


def test_the_korean_readme_has_every_command_example_and_setting_of_the_english_one() -> None:
    assert len(blocks(ENGLISH)) > 8
    assert blocks(KOREAN) == blocks(ENGLISH)
    assert {"examwire plans archive P001 P001.zip", "-o json", "socket.origins"} <= code_in_text(ENGLISH)
    assert code_in_text(ENGLISH) - code_in_text(KOREAN) == set(), "README.ko.md lacks these"
    assert code_in_text(KOREAN) - code_in_text(ENGLISH) == set(), "only README.ko.md has these"
    for shape in (r"^## ", r"^\|", r"^- \*\*", r"\]\(docs/"):
        assert len(re.findall(shape, KOREAN, re.MULTILINE)) == len(re.findall(shape, ENGLISH, re.MULTILINE)), shape


def test_the_token_of_the_readme_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "the exam platform and the roles share it"
    monkeypatch.setenv("EXAMWIRE_SECRET", secret)
    example = re.search(r"<!-- sign a token -->\n```python\n(.+?)```", ENGLISH, re.DOTALL)
    assert example is not None
    names: dict[str, Any] = {}
    exec(example[1], names)
    page, _, token = names["exam_link"]("P001", "E0042").partition("#token=")
    assert page.removeprefix("https://exam.example") in PAGES
    claims = TokenVerifier(load_settings(secret=secret)).verify(token)
    assert claims.is_examinee("P001", "E0042")


@pytest.mark.parametrize("picture", ["wall.png", "wall.ko.png"])
def test_the_pictures_of_the_wall_are_small(picture: str) -> None:
    path = ROOT / "docs" / "images" / picture
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.format == "PNG"


REWRITTEN = (
    "휴대전화",
    "At the same time",
    "and nothing else |",
    "happenings",
    "is tried again in",
    "named otherwise",
    "process of ours",
)
"""What people had to read twice, or in two words for one thing."""


def test_what_was_read_twice_does_not_come_back() -> None:
    words = [part for phrase in REWRITTEN for part in ("-e", phrase)]
    command = ["git", "grep", "-nFI", *words, "--", "*.md", "actors", "cli", "protocol"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""
    assert found.returncode == 1, found.stderr
