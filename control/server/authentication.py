"""Lets in whom the file of callers knows, for what their role allows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from typing_extensions import override

from control.server.callers import LOCAL, Caller, Role, caller
from control.server.roles import OPEN, ROLES
from control.server.statuses import ApiError, abort
from control.server.wrapped import Wrapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from control.server.tokens import Callers
    from control.server.wrapped import Around, Context

log = structlog.get_logger()

_BEARER = "bearer "


class Authentication(Wrapping):
    """An interceptor: tells who asks, and refuses who may not.

    Args:
        callers: Everybody who may ask; None: whoever gets here is `LOCAL`.
    """

    def __init__(self, callers: Callers | None) -> None:
        self._callers = callers

    @override
    def around(self, method: str) -> Around | None:
        return None if method in OPEN else partial(self._admit, method)

    @asynccontextmanager
    async def _admit(self, method: str, _request: object, context: Context) -> AsyncIterator[None]:
        try:
            who = self._allowed(method, context)
        except ApiError as error:
            log.warning("refused", method=method, peer=context.peer(), reason=error.message)
            await abort(context, error)
        # Each call runs in a context of its own.
        caller.set(who)
        yield

    def _allowed(self, method: str, context: Context) -> Caller:
        who, needed = self._who(context), ROLES.get(method, Role.ADMIN)
        if who.role < needed:
            raise ApiError(
                grpc.StatusCode.PERMISSION_DENIED,
                "control.role",
                f"{who.name} is {who.role.name.lower()}, {needed.name.lower()} is needed",
                cure="ask somebody who has that role",
            )
        return who

    def _who(self, context: Context) -> Caller:
        if self._callers is None:
            return LOCAL
        given = _token(context)
        if given:
            found = self._callers.of_token(given)
        else:
            found = self._callers.of_certificate(_names(context))
        if found is None:
            raise ApiError(
                grpc.StatusCode.UNAUTHENTICATED,
                "control.unknown_caller",
                "the token is not known" if given else "neither a token nor a known certificate",
                cure="send `authorization: Bearer <token>`",
            )
        return found


def _token(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if name == "authorization" and text[: len(_BEARER)].lower() == _BEARER:
            return text[len(_BEARER) :].strip()
    return ""


def _names(context: Context) -> list[str]:
    """Whom the verified certificate of a peer is for; nobody without one."""
    told = context.auth_context()
    found = [
        *told.get("x509_subject_alternative_name", ()), *told.get("x509_common_name", ())
    ]  # fmt: skip
    return [name.decode("utf-8", "replace") for name in found]
