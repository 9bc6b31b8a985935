"""Which role each method needs. A viewer reads, an operator runs, an admin configures.

Whoever configures may read what the service may read, its environment included, since a reference
can name anything there, and whoever tests a connection makes the service connect where they like:
both are for admins. Messages and dead letters show rows, so a viewer sees data.
"""

from __future__ import annotations

from control.server.callers import Role

_CONFIG = "/cdc.v1.ConfigService"
_FLOWS = "/cdc.v1.FlowService"
_MESSAGES = "/cdc.v1.MessageService"
_OFFSETS = "/cdc.v1.OffsetService"
_SCHEMAS = "/cdc.v1.SchemaService"
_BACKFILLS = "/cdc.v1.BackfillService"
_LETTERS = "/cdc.v1.DeadLetterService"

ROLES: dict[str, Role] = {
    f"{_CONFIG}/CreateSource": Role.ADMIN,
    f"{_CONFIG}/GetSource": Role.VIEWER,
    f"{_CONFIG}/ListSources": Role.VIEWER,
    f"{_CONFIG}/UpdateSource": Role.ADMIN,
    f"{_CONFIG}/DeleteSource": Role.ADMIN,
    f"{_CONFIG}/CreateSink": Role.ADMIN,
    f"{_CONFIG}/GetSink": Role.VIEWER,
    f"{_CONFIG}/ListSinks": Role.VIEWER,
    f"{_CONFIG}/UpdateSink": Role.ADMIN,
    f"{_CONFIG}/DeleteSink": Role.ADMIN,
    f"{_CONFIG}/CreatePipeline": Role.ADMIN,
    f"{_CONFIG}/GetPipeline": Role.VIEWER,
    f"{_CONFIG}/ListPipelines": Role.VIEWER,
    f"{_CONFIG}/UpdatePipeline": Role.ADMIN,
    f"{_CONFIG}/DeletePipeline": Role.ADMIN,
    f"{_CONFIG}/CreateTopic": Role.ADMIN,
    f"{_CONFIG}/GetTopic": Role.VIEWER,
    f"{_CONFIG}/ListTopics": Role.VIEWER,
    f"{_CONFIG}/UpdateTopic": Role.ADMIN,
    f"{_CONFIG}/DeleteTopic": Role.ADMIN,
    f"{_CONFIG}/TestConnection": Role.ADMIN,
    f"{_CONFIG}/Plan": Role.ADMIN,
    f"{_CONFIG}/Apply": Role.ADMIN,
    f"{_CONFIG}/ListRevisions": Role.VIEWER,
    f"{_CONFIG}/RollBack": Role.ADMIN,
    f"{_FLOWS}/GetFlow": Role.VIEWER,
    f"{_FLOWS}/ListFlows": Role.VIEWER,
    f"{_FLOWS}/WatchFlows": Role.VIEWER,
    f"{_FLOWS}/PauseFlow": Role.OPERATOR,
    f"{_FLOWS}/ResumeFlow": Role.OPERATOR,
    f"{_FLOWS}/RestartFlow": Role.OPERATOR,
    f"{_MESSAGES}/ListStoredTopics": Role.VIEWER,
    f"{_MESSAGES}/ListMessages": Role.VIEWER,
    f"{_MESSAGES}/GetMessage": Role.VIEWER,
    f"{_MESSAGES}/ReadMessagePayload": Role.VIEWER,
    f"{_MESSAGES}/TailMessages": Role.VIEWER,
    f"{_OFFSETS}/ListSinkOffsets": Role.VIEWER,
    f"{_OFFSETS}/ListSourceOffsets": Role.VIEWER,
    f"{_OFFSETS}/ResetSinkOffset": Role.OPERATOR,
    f"{_SCHEMAS}/ListSchemas": Role.VIEWER,
    f"{_SCHEMAS}/GetSchema": Role.VIEWER,
    # A condition needs more: see the service.
    f"{_BACKFILLS}/CreateBackfill": Role.OPERATOR,
    f"{_BACKFILLS}/GetBackfill": Role.VIEWER,
    f"{_BACKFILLS}/ListBackfills": Role.VIEWER,
    f"{_BACKFILLS}/UpdateBackfill": Role.OPERATOR,
    f"{_BACKFILLS}/PauseBackfill": Role.OPERATOR,
    f"{_BACKFILLS}/ResumeBackfill": Role.OPERATOR,
    f"{_BACKFILLS}/CancelBackfill": Role.OPERATOR,
    f"{_LETTERS}/ListDeadLetters": Role.VIEWER,
    f"{_LETTERS}/GetDeadLetter": Role.VIEWER,
    f"{_LETTERS}/ReadDeadLetterPayload": Role.VIEWER,
    f"{_LETTERS}/ReplayDeadLetters": Role.OPERATOR,
    f"{_LETTERS}/DiscardDeadLetters": Role.OPERATOR,
    # What the API looks like is no secret, but nobody without a name needs it.
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.VIEWER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
}
# Whether it runs, an orchestrator asks without a name; a stream that stays is for those with one.
OPEN = frozenset({"/grpc.health.v1.Health/Check"})
# Those that change nothing, whatever role they need.
_READING = frozenset({f"{_CONFIG}/TestConnection", f"{_CONFIG}/Plan"})


def changes(method: str) -> bool:
    """Whether a method changes anything."""
    return ROLES.get(method, Role.ADMIN) > Role.VIEWER and method not in _READING | OPEN
