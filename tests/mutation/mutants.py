"""Mutants of a Python module: its syntax tree with one node replaced, a change that some test must notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
FUNCTIONS = {"max": "min", "min": "max", "any": "all", "all": "any", "sorted": "list", "reversed": "list"}
CONDITIONS = (ast.If, ast.IfExp, ast.While, ast.comprehension, ast.match_case)
FUNCTION_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Replacement = tuple[ast.AST, str, str]
"""A new node, and what is printed: the source before and after."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `setattr(owner, field, value)` on the tree that the mutant was made from.

    `function`: the qualified name of the outermost function around it, "" outside of functions. `in_body`: the change
    is in that function's body, so a new code object for the function is enough to apply it.
    """

    path: str
    line: int
    function: str
    in_body: bool
    before: str
    after: str
    owner: ast.AST
    field: str
    value: Any

    def apply(self) -> None:
        """Change the tree. There is no way back, so do this in a forked process."""
        setattr(self.owner, self.field, self.value)

    def __str__(self) -> str:
        before, after = (text if len(text) <= 100 else f"{text[:97]}..." for text in (self.before, self.after))
        return f"{self.path}:{self.line} {self.function or '(module)'}: {before}  ->  {after}"


def mutants_of(source: Path, name: str) -> tuple[ast.Module, list[Mutant]]:
    """Parse a module and return its tree and its mutants by line; `name` is the path that is printed.

    Not mutated: annotations, decorators, docstrings, assertions, log lines and names of loggers, the arguments of
    `raise`, the fixed text of f-strings.
    """
    tree = ast.parse(source.read_text(), str(source))
    return tree, sorted(_mutants_below(tree, name, (), "", in_body=False), key=lambda mutant: mutant.line)


def _mutants_below(
    owner: ast.AST, path: str, classes: tuple[str, ...], function: str, *, in_body: bool
) -> Iterator[Mutant]:
    for field, value in ast.iter_fields(owner):
        if field in ("annotation", "returns", "decorator_list", "format_spec", "exc", "pattern", "type_params"):
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _has_no_behaviour(child):
                continue
            line = getattr(child, "lineno", getattr(owner, "lineno", 0))
            for new, before, after in _replacements(child, owner, field):
                new_value = [*value[:index], new, *value[index + 1 :]] if isinstance(value, list) else new
                yield Mutant(path, line, function, in_body, before, after, owner, field, new_value)
            if isinstance(child, ast.ClassDef):
                yield from _mutants_below(child, path, (*classes, child.name), function, in_body=in_body)
            elif isinstance(child, FUNCTION_DEFINITIONS) and not in_body:
                name = ".".join([*classes, child.name])
                yield from _mutants_below(child.args, path, classes, name, in_body=False)
                body = ast.Module(child.body, [])
                for mutant in _mutants_below(body, path, classes, name, in_body=True):
                    yield replace(mutant, owner=child) if mutant.owner is body else mutant
            else:
                yield from _mutants_below(child, path, classes, function, in_body=in_body)


def _has_no_behaviour(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.Assign(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logging"), attr="getLogger"))):
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.Assign(value=ast.Subscript()):  # an alias of a type
            return True
        case ast.Assign(value=ast.BinOp(op=ast.BitOr(), right=right)) if _is_type(right):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec" | "NewType"))):
            return True
    return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


def _replacements(node: ast.AST, owner: ast.AST, field: str) -> Iterator[Replacement]:
    """The nodes that may stand in the place of `node`, which is in `field` of `owner`."""
    if isinstance(node, ast.stmt):
        yield from _statement_replacements(node)
    elif isinstance(node, ast.expr):
        if isinstance(owner, CONDITIONS) and field in ("test", "ifs", "guard"):
            for forced in (False,) if isinstance(owner, ast.While) else (True, False):
                yield _replacement(node, ast.Constant(forced), "if ")
        yield from _expression_replacements(node, owner, field)


def _replacement(node: ast.AST, new: ast.AST, prefix: str = "") -> Replacement:
    return new, prefix + ast.unparse(node), prefix + ast.unparse(ast.fix_missing_locations(new))


def _statement_replacements(node: ast.stmt) -> Iterator[Replacement]:
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete():
            yield _replacement(node, ast.Pass())
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() | ast.Tuple()]):
            yield _replacement(node, ast.Pass())
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield _replacement(node, ast.Return(ast.Constant(None)))
        case ast.Match(cases=cases) if len(cases) > 1:
            for index, case in enumerate(cases):
                others = [*cases[:index], *cases[index + 1 :]]
                yield ast.Match(node.subject, others), f"case {ast.unparse(case.pattern)}", "(dropped)"
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield _replacement(node, ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))


def _expression_replacements(node: ast.expr, owner: ast.AST, field: str) -> Iterator[Replacement]:
    match node:
        case ast.Compare(ops=ops):
            for index, operator in enumerate(ops):
                for other in COMPARISONS[type(operator)]:
                    changed = [*ops[:index], other(), *ops[index + 1 :]]
                    yield _replacement(node, ast.Compare(node.left, changed, node.comparators))
        case ast.BoolOp(op=operator, values=values):
            yield _replacement(node, ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
            for index in range(len(values)):
                others = [*values[:index], *values[index + 1 :]]
                yield _replacement(node, others[0] if len(others) == 1 else ast.BoolOp(operator, others))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield _replacement(node, operand)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right) if _is_type(right):  # `isinstance(x, A | B)`
            yield _replacement(node, left)
            yield _replacement(node, right)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC:
            yield _replacement(node, ast.BinOp(left, ARITHMETIC[type(operator)](), right))
        case ast.Constant(value=value):
            if not isinstance(owner, ast.JoinedStr) and not (value is None and isinstance(owner, ast.Compare)):
                for constant in _other_constants(value):
                    yield _replacement(node, ast.Constant(constant))
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name[0].isupper() and attribute.isupper():
            if not isinstance(owner, ast.Compare | ast.Tuple | ast.Set | ast.List | ast.Dict):
                yield _replacement(node, ast.Constant(None))  # a member of an enumeration
        case ast.Call():
            yield from _call_replacements(node)
        case (
            ast.Tuple(elts=elements, ctx=ast.Load()) | ast.List(elts=elements, ctx=ast.Load()) | ast.Set(elts=elements)
        ):
            of_a_type = isinstance(owner, ast.Subscript)
            unpacked = isinstance(owner, ast.Assign) and isinstance(owner.targets[0], ast.Tuple)
            for index, element in enumerate(elements if not of_a_type and not unpacked else ()):
                others = [*elements[:index], *elements[index + 1 :]]
                fewer = ast.List(others, ast.Load()) if isinstance(node, ast.List) else ast.Tuple(others, ast.Load())
                yield fewer, f"{ast.unparse(element)} of {ast.unparse(node)}", "(dropped)"
        case ast.Dict(keys=keys, values=values):
            for index, key in enumerate(keys):
                fewer_keys, fewer_values = [*keys[:index], *keys[index + 1 :]], [*values[:index], *values[index + 1 :]]
                entry = f"{'**' if key is None else ast.unparse(key) + ': '}{ast.unparse(values[index])}"
                yield ast.Dict(fewer_keys, fewer_values), entry, "(dropped)"


def _call_replacements(node: ast.Call) -> Iterator[Replacement]:
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        other = ast.Name(FUNCTIONS[node.func.id], ast.Load())
        keywords = [] if other.id == "list" else node.keywords
        yield _replacement(node, ast.Call(other, node.args, keywords))
    for index, keyword in enumerate(node.keywords):
        others = [*node.keywords[:index], *node.keywords[index + 1 :]]
        argument = f"{keyword.arg or '**'}={ast.unparse(keyword.value)}"
        yield ast.Call(node.func, node.args, others), f"{ast.unparse(node.func)}({argument})", "(dropped)"


def _other_constants(value: object) -> Iterator[bool | int | float | str | bytes]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield "mutant" + value
        case bytes():
            yield b"mutant" + value
        case None:
            yield "mutant"


def _is_type(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return (name[:1].isupper() and not name.isupper()) or name in ("str", "int", "float", "bool", "bytes")
