"""Why a figure is missing from the table."""

from __future__ import annotations


class BenchError(Exception):
    """A figure could not be taken; the text says why, for the reader of the table."""


class UnavailableError(BenchError):
    """This machine lacks what the figure needs; everything else can still be measured."""


class FailedError(BenchError):
    """A benchmark was started and went wrong."""
