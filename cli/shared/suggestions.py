"""Errors about plans and examinees that do not exist, with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from cli.shared.output import NotFound


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that differ from `name` only in case, hyphens and underscores.

    Other similar names are none: P002 is not meant when P003 is typed.
    """
    return sorted(candidate for candidate in known if _folded(candidate) == _folded(name))


def not_found(what: str, name: str, known: Iterable[str], advice: str) -> NotFound:
    """Return the error that `what` with a name does not exist: with what was probably meant, else with the advice.

    Example::

        raise not_found("plan", "hall-a", ["HALL-A"], "`examwire plans ls` lists the plans")
    """
    similar = similar_names(name, known)
    question = f"did you mean {' or '.join(similar)}?"
    return NotFound(f"{what} {name} is unknown: {question if similar else advice}")


def _folded(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
