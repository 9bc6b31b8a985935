"""The frame of the functions that are generated for a table."""

from __future__ import annotations

import ast


def function(parameters: list[str], variables: list[str], result: ast.expr) -> ast.Module:
    """`def generated(parameters): [variables] = pieces; return result`.

    Parameters and variables are names of the caller's making, never data.
    """
    module = ast.parse(
        f"def generated({', '.join(parameters)}):\n"
        f"    [{', '.join(variables)}] = pieces\n"
        "    return None\n"
    )
    returned = next(node for node in ast.walk(module) if isinstance(node, ast.Return))
    returned.value = result
    return module
