"""`${VAR}`, `${VAR:-default}` and `${file:/path}` in a configuration.

Secrets stay references in the file; they are resolved in memory when a flow is built, and end up in
`SecretStr` fields. `$${` stands for a literal `${`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$(\$\{)|\$\{(?:file:(?P<file>[^}]+)|(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?)\}"
)
_OPENED = re.compile(r"(?<!\$)\$\{[^}]*\}?")


def resolve(tree: object, environment: Mapping[str, str], path: str = "") -> object:
    """Return `tree` with every reference in its strings replaced.

    Args:
        tree: What a YAML document holds: mappings, lists and scalars.
        environment: Where `${VAR}` is looked up.
        path: Where `tree` stands in the document, for messages (`sinks.warehouse.dsn`).

    Raises:
        ConfigError: A variable is not set, a file cannot be read, or a reference is malformed.
    """
    if isinstance(tree, dict):
        return {
            key: resolve(value, environment, f"{path}.{key}" if path else str(key))
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [resolve(value, environment, f"{path}[{i}]") for i, value in enumerate(tree)]
    if not isinstance(tree, str) or "${" not in tree:
        return tree
    rest = _REFERENCE.sub("", tree)
    if _OPENED.search(rest):
        # What follows may be a part of a secret.
        raise ConfigError(
            "config.bad_reference",
            "a `${` begins no reference",
            where=path,
            cure="write ${NAME}, ${NAME:-default} or ${file:/path}; a literal ${ is $${",
        )

    def value(found: re.Match[str]) -> str:
        if found.group(1):
            return "${"
        if name := found.group("file"):
            return _file(name, path)
        name, default = found.group("name"), found.group("default")
        if name in environment:
            return environment[name]
        if default is not None:
            return default
        raise ConfigError(
            "config.unset_variable",
            f"the environment variable {name} is not set",
            where=path,
            cure=f"set {name}, or write ${{{name}:-default}}",
        )

    return _REFERENCE.sub(value, tree)


def _file(name: str, path: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            "config.unreadable_file",
            f"the file {name} cannot be read: {reason}",
            where=path,
            cure="check the path and that this user may read it",
        ) from error
