"""What would keep a webhook source that starts anew from starting; nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from connectors.trials import findings
from connectors.webhook.endpoint import check_size
from connectors.webhook.http_server import PortInUseError, check_address, check_certificate
from connectors.webhook.identity import identify, listens
from connectors.webhook.reader import stored_columns

if TYPE_CHECKING:
    from connectors.contracts.inbox import InboxPreview
    from connectors.contracts.source import SourceContext
    from connectors.webhook.source_spec import SourceSpec


def try_out(name: str, spec: SourceSpec, context: SourceContext) -> list[WaxtapError]:
    """The errors that a start would end with, each told once.

    What already listens at the address is none where it is an endpoint of the same source.
    """
    preview: InboxPreview | None = None
    found: list[WaxtapError] = []
    try:
        preview = context.inbox.preview()
        if not spec.columns:
            stored_columns(context.state)
    except WaxtapError as error:
        found.append(error)
    if not spec.serve:
        return found
    if preview is not None:
        most = preview.max_body
        found += findings(lambda: check_size(spec, most))
    return found + findings(
        lambda: check_certificate(spec),
        lambda: _try_address(name, spec, preview),
    )


def _try_address(name: str, spec: SourceSpec, preview: InboxPreview | None) -> None:
    try:
        check_address(spec)
    except PortInUseError:
        if preview is None:
            # Whose endpoint it is cannot be told: that the inbox is away is a finding already.
            return
        if not preview.created or not listens(spec, identify(name, preview.created)):
            raise
