"""A filter or a transform that cannot work on a change."""

from __future__ import annotations

import msgspec

# What decoding raises for values that are JSON to their source and not to us: numbers beyond the
# range of a double, halves of surrogate pairs, arrays a thousand levels deep.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class StepError(Exception):
    """Why a step cannot work on a change; what happens to it then is the owner's choice.

    Args:
        code: Stable dotted identifier, such as `filter.no_such_field`.
        message: What is wrong, without the row's values: it is stored and logged.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def unreadable() -> StepError:
    """What a value that cannot be decoded means to a step."""
    return StepError("step.unreadable_value", "a value cannot be decoded")


def too_many() -> StepError:
    """What a change that becomes more than can be stored together means to a step."""
    return StepError("step.too_many_changes", "more than 100 changes are made of one")
