"""The examples in docstrings: calls fit the signatures, and examples that need nothing else run."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"^Example::\n\n((?:    .*\n|\n)+)", re.MULTILINE)
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class DocstringExample:
    """An example, and the module whose docstring or whose class's docstring has it."""

    module: str
    code: str

    def namespace(self) -> dict[str, Any]:
        """Return the names of the module."""
        return dict(vars(importlib.import_module(self.module)))


def examples() -> Iterator[Any]:
    """Yield the examples of all packages, each as a parameter with the name of what it documents."""
    for path in sorted(path for room in ("actors", "cli", "protocol") for path in (ROOT / room).rglob("*.py")):
        text = path.read_text()
        if "Example::" not in text:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Documented) and (match := EXAMPLE.search((ast.get_docstring(node) or "") + "\n")):
                name = "" if isinstance(node, ast.Module) else node.name
                yield pytest.param(DocstringExample(module, textwrap.dedent(match[1])), id=f"{module}:{name}")


EXAMPLES = list(examples())


def callable_of(function: ast.expr, names: dict[str, Any], types: dict[str, type]) -> Any:
    """Return the function, class or method that a call names; `None` when that cannot be known without running it."""
    if isinstance(function, ast.Name):
        return names.get(function.id)
    if not isinstance(function, ast.Attribute):
        return None
    if isinstance(function.value, ast.Name):
        owner = types.get(function.value.id) or names.get(function.value.id)
        return getattr(owner, function.attr) if inspect.isclass(owner) or inspect.ismodule(owner) else None
    if isinstance(function.value, ast.Call):
        made = callable_of(function.value.func, names, types)
        return getattr(made, function.attr) if inspect.isclass(made) else None
    return None


def is_method(function: ast.expr, called: Any, names: dict[str, Any]) -> bool:
    """Return whether a call leaves out `self`: a plain function that is reached through an object."""
    through_object = isinstance(function, ast.Attribute) and not (
        isinstance(function.value, ast.Name) and function.value.id in names
    )
    return through_object and inspect.isfunction(called)


@pytest.mark.parametrize("example", EXAMPLES)
def test_calls_of_an_example_fit_their_signatures(example: DocstringExample) -> None:
    names, types = example.namespace(), dict[str, type]()
    nodes = list(ast.walk(ast.parse(example.code)))
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            call = node.value.value if isinstance(node.value, ast.Await) else node.value
            made = names.get(call.func.id) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None
            if inspect.isclass(made):
                types[node.targets[0].id] = made
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in types:
            assert has_attribute(types[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
    for node in nodes:
        if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
            continue
        called = callable_of(node.func, names, types)
        if called is None or called in vars(builtins).values():
            continue
        arguments: list[object] = [None] * (len(node.args) + is_method(node.func, called, names))
        inspect.signature(called).bind(*arguments, **dict.fromkeys(str(keyword.arg) for keyword in node.keywords))


def has_attribute(owner: type, name: str) -> bool:
    """Return whether a class has an attribute, also one that its methods set."""
    bases = [base for base in owner.__mro__ if base.__module__.startswith(("actors.", "cli.", "protocol."))]
    declared = set[str]().union(*(inspect.get_annotations(base) for base in bases))
    assigned = re.compile(rf"self\.{name}\b")
    return hasattr(owner, name) or name in declared or any(assigned.search(inspect.getsource(base)) for base in bases)


def free_names(code: str) -> set[str]:
    """Return the names that a text reads and does not set."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    return {node.id for node in nodes} - {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def runs_alone(example: DocstringExample) -> bool:
    """Return whether an example needs nothing but its module, and says what comes out."""
    known = {*example.namespace(), *vars(builtins)}
    return "await" not in example.code and "  # " in example.code and free_names(example.code) <= known


@pytest.mark.parametrize("example", [one for one in EXAMPLES if runs_alone(one.values[0])])
def test_an_example_has_the_results_that_it_shows(example: DocstringExample) -> None:
    names = example.namespace()
    for line in example.code.splitlines():
        code, _, shown = line.partition("  # ")
        try:
            result = eval(code, names)
        except SyntaxError:  # a statement
            exec(code, names)
            continue
        try:
            expected = eval(shown or "None", names)
        except SyntaxError:  # a sentence
            continue
        assert result == expected or not shown, line
