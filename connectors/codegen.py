"""Functions made at run time, as syntax trees: data gets into them as constants only."""

from __future__ import annotations

import ast


def define(names: dict[str, object], module: ast.Module) -> object:
    """Make the function `generated` of a module; it sees `names` and nothing else."""
    namespace = {**names, "__builtins__": {}}
    code = compile(ast.fix_missing_locations(module), "<generated>", "exec")
    exec(code, namespace)  # noqa: S102 - a tree in which all data are constants
    return namespace["generated"]


def fstring(parts: list[str | ast.expr]) -> ast.JoinedStr:
    """An f-string; strings among the parts are taken literally."""
    values: list[ast.expr] = []
    literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        if literal:
            values.append(ast.Constant(literal))
            literal = ""
        values.append(ast.FormattedValue(part, -1))
    if literal:
        values.append(ast.Constant(literal))
    return ast.JoinedStr(values)


def expression(source: str) -> ast.expr:
    """A template of ours, filled in with names of our own making."""
    return ast.parse(source, mode="eval").body


def call(function: ast.expr, argument: ast.expr) -> ast.Call:
    """`function(argument)`."""
    return ast.Call(function, [argument], [])
