"""The REST source: a list of records behind an HTTP API, asked again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import GapError
from connectors.rest.http import tls_context
from connectors.rest.ledger import Ledger
from connectors.rest.names import parse
from connectors.rest.question import question
from connectors.rest.reader import RestReader
from connectors.rest.trial import try_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.source import Checkpoint, SourceContext
    from connectors.errors import WaxtapError
    from connectors.rest.names import PollName
    from connectors.rest.spec import RestSourceSpec


class RestSource:
    """Implements `contracts.Source`.

    Args:
        name: The source's name in the configuration.
        spec: Its configuration.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        context: Where it is kept what polls have found.

    Raises:
        ConfigError: `rest.tls`: a certificate cannot be read.
    """

    def __init__(
        self, name: str, spec: RestSourceSpec, accept: Collection[str], context: SourceContext
    ) -> None:
        self._name, self._spec = name, spec
        self._accept, self._context = accept, context
        # Told before anything runs, not by a poll behind what earlier ones have found.
        tls_context(spec)

    def open(self, resume: Checkpoint | None) -> RestReader:
        """Go on behind `resume`; without one, with the first poll.

        Raises:
            ConfigError: The API refuses, or its answers do not fit the configuration.
            GapError: `rest.state_lost`, `rest.too_many_deletions`.
            RetryableError: The API does not answer, and nothing is known of it yet; or the state
                cannot be read.
        """
        if resume is not None and not resume.position and not resume.state:
            resume = None
        last = _outcome(resume)
        ledger = Ledger(self._name, self._context.state, self._spec.mode, question(self._spec))
        try:
            goal = self._context.past
            if goal is None:
                ledger.open(last, self._accept)
            elif (wanted := _outcome(goal)) is not None:
                ledger.open_past(last, wanted)
            reader = RestReader(self._name, self._spec, self._accept, self._context, ledger, resume)
        except BaseException:
            ledger.close()
            raise
        reader.start()
        return reader

    def check(self) -> list[WaxtapError]:
        """What would keep the source from starting anew; asks for the first page, stores nothing.

        Returns:
            One clear error for each thing that was found.
        """
        return try_out(self._name, self._spec, self._context)

    def owned(self) -> list[str]:
        """What polls have found."""
        return ["files of state"]

    def drop(self) -> list[str]:
        """Remove what polls have found; the API itself knows nothing of the source.

        Returns:
            How many files that were.

        Raises:
            RetryableError: The state cannot be reached.
        """
        names = self._context.state.names()
        for name in names:
            self._context.state.remove(name)
        return [f"{len(names)} files of state"] if names else []


def _outcome(checkpoint: Checkpoint | None) -> PollName | None:
    if checkpoint is None:
        return None
    name = parse(checkpoint.state.get("poll", ""))
    if name is None:
        raise GapError(
            "rest.foreign_checkpoint",
            "the stream's checkpoint is not that of a REST source",
            where="type",
            cure="give the source another name, or delete the stream",
        )
    return name
