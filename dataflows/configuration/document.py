"""A YAML file, read without ever showing what it says: that may be a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# A word out of the file; what the parser calls by a name of its own stands in angle brackets.
_QUOTED = re.compile(r"""(?:'|")((?<=')[^']*|(?<=")[^"]*)(?:'|")""")

# No configuration is deeper, or has more values once its aliases are followed.
_DEEPEST, _MOST_VALUES = 50, 1_000_000


def read(path: Path) -> object:
    """What a file says.

    Raises:
        ConfigError: It cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            "config.unreadable",
            f"the configuration cannot be read: {reason}",
            where=str(path),
            cure="set WAXTAP_CONFIG to the path of your waxtap.yaml",
        ) from error
    return parse_text(text, str(path))


def parse_text(text: str, name: str) -> object:
    """What the text of a file of this name says.

    Raises:
        ConfigError: It is not YAML; or it is nested too deeply, or its aliases make it endless.
    """
    try:
        tree: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, see below
    except yaml.YAMLError as error:
        raise ConfigError("config.not_yaml", _told(error), where=name) from None
    except RecursionError:
        raise _unbounded("it is nested too deeply", name) from None
    _check_bounds(tree, name)
    return tree


def _check_bounds(tree: object, name: str) -> None:
    """Refuse what aliases (`*name`) make endless, or so large that nobody can have meant it."""
    values, left = 0, [(tree, 0)]
    while left:
        value, depth = left.pop()
        values += 1
        if depth > _DEEPEST or values > _MOST_VALUES:
            raise _unbounded("its aliases make it endless, or nested too deeply", name)
        if isinstance(value, dict):
            left += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list):
            left += [(one, depth + 1) for one in value]


def _unbounded(problem: str, name: str) -> ConfigError:
    return ConfigError(
        "config.unbounded",
        problem,
        where=name,
        cure="write out what an alias (`*name`) stands for, above all inside of itself",
    )


def _told(error: yaml.YAMLError) -> str:
    """What is wrong and where, without what the file says there: it may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    problem = error.problem or "it is not YAML"
    if not isinstance(error, _WrittenTwiceError):
        problem = _QUOTED.sub(_masked, problem)
    mark = error.problem_mark
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def _masked(quoted: re.Match[str]) -> str:
    word = quoted[1]
    return quoted[0] if len(word) < 2 or word.startswith("<") else "…"


class _WrittenTwiceError(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping."""


if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:
    # libyaml's, where PyYAML was built with it: five times as fast.
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_SafeLoader):
    """A SafeLoader that refuses a key written twice instead of letting the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise _WrittenTwiceError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
