"""Which plan is meant when one does not exist."""

from __future__ import annotations

import pytest

from cli.shared.suggestions import not_found


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("hall-a", "did you mean HALL-A?"),
        ("HALLA", "did you mean HALL-A?"),
        ("Mathe_1", "did you mean MATHE-1 or mathe1?"),
        ("HALL-B", "list them"),
        ("", "list them"),
    ],
)
def test_a_name_that_differs_only_in_case_and_hyphens_is_suggested(name: str, end: str) -> None:
    error = not_found("plan", name, ["HALL-A", "mathe1", "MATHE-1"], "list them")
    assert str(error) == f"plan {name} is unknown: {end}"
