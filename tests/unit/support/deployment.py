"""compose.yaml and the Dockerfile as data, with variables put in as Compose puts them in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
OWN_IMAGE = "examwire:"

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?:(?P<sign>:-|:\?)(?P<rest>[^}]*))?\}")


class Missing(Exception):
    """A variable that must be set is not."""


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with `variables` put in. Raises `Missing` as Compose would complain."""

    def value(match: re.Match[str]) -> str:
        name, sign, default = match["name"], match["sign"], match["rest"]
        if variables.get(name):
            return variables[name]
        if sign == ":?":
            raise Missing(name)
        return default or ""

    # A comment is nobody's value.
    lines = [line for line in COMPOSE.read_text().splitlines() if not line.lstrip().startswith("#")]
    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, "\n".join(lines)))
    for service in loaded["services"].values():  # what a process gets is text
        service["environment"] = {name: str(text) for name, text in service.get("environment", {}).items()}
    return loaded


def required() -> set[str]:
    """The variables that must be set."""
    return {match["name"] for match in _VARIABLE.finditer(COMPOSE.read_text()) if match["sign"] == ":?"}


def secrets() -> dict[str, str]:
    """A value for each of them."""
    return {name: "x" + hashlib.sha256(name.encode()).hexdigest() for name in sorted(required())}


def roles(file: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of our own image that run a role."""
    own = {name: service for name, service in file["services"].items() if service["image"].startswith(OWN_IMAGE)}
    return {name: service for name, service in own.items() if service["command"][0] == "run"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """A line of the Dockerfile: `COPY` and the rest of it."""

    word: str
    text: str

    @property
    def argv(self) -> list[str]:
        """The exec form. Raises `ValueError` when it is a shell's."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


def dockerfile() -> Iterator[Instruction]:
    """Its instructions, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    for line in joined.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, text = line.strip().partition(" ")
            yield Instruction(word, text.strip())


def image_environment() -> dict[str, str]:
    """What the last stage sets."""
    variables: dict[str, str] = {}
    for instruction in dockerfile():
        if instruction.word == "FROM":
            variables = {}
        if instruction.word == "ENV":
            for pair in instruction.text.split():
                name, _, value = pair.partition("=")
                variables[name] = value
    return variables


def health_command() -> list[str]:
    """The health check of a role's container."""
    (check,) = [instruction for instruction in dockerfile() if instruction.word == "HEALTHCHECK"]
    return check.argv
