"""The gRPC server: its services, its health, its reflection, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from connectors.errors import ConfigError
from control.pb.cdc.v1 import cdc_pb2
from control.server.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A whole waxtap.yaml fits, and a page of messages.
_MAX_MESSAGE = 16 * 1024 * 1024
# Of one connection, and of all of them.
_MAX_STREAMS = 256
_MAX_CALLS = 2048
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class ControlServer:
    """A gRPC server of this package's services.

    Args:
        address: `host:port` to listen on; port 0 takes a free one.
        register: Each adds a service to the server.
        interceptors: Asked before the services, in this order.
        credentials: None: plaintext.

    Raises:
        ConfigError: The address is in use, or none of this machine.
    """

    def __init__(
        self,
        address: str,
        register: Sequence[Callable[[grpc.aio.Server], None]],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=(*interceptors, Faults()),
            # Beyond it a call is refused with RESOURCE_EXHAUSTED instead of waiting in memory.
            maximum_concurrent_rpcs=_MAX_CALLS,
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.max_send_message_length", _MAX_MESSAGE),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.so_reuseport", 0),
            ],
        )
        for add in register:
            add(self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in cdc_pb2.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection(
            [*names, _HEALTH, reflection.SERVICE_NAME], self._server
        )
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ConfigError(
                "control.address",
                f"{address} cannot be listened on",
                where="--listen",
                cure="name an address of this machine whose port is free",
            ) from error

    async def start(self) -> None:
        """Begin to answer; not ready yet, as far as the health service tells."""
        await self._server.start()
        await self.ready(is_ready=False)

    async def ready(self, *, is_ready: bool) -> None:
        """Tell the health service's callers whether flows can run."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if is_ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        await self._health.set("", status)

    async def stop(self, grace: float) -> None:
        """End calls, those under way after `grace` seconds."""
        await self._server.stop(grace)
