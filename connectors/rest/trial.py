"""What would keep a REST source that starts anew from starting; nothing is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from connectors.rest.api import Api
from connectors.trials import findings

if TYPE_CHECKING:
    from connectors.contracts.source import SourceContext
    from connectors.errors import WaxtapError
    from connectors.rest.spec import RestSourceSpec


def try_out(name: str, spec: RestSourceSpec, context: SourceContext) -> list[WaxtapError]:
    """The errors that a start would end with, each told once."""
    return findings(lambda: asyncio.run(_ask(name, spec)), context.state.names)


async def _ask(name: str, spec: RestSourceSpec) -> None:
    api = Api(name, spec)
    try:
        await api.try_first_page(spec.cursor.beginning if spec.cursor else "")
    finally:
        await api.close()
