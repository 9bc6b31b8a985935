"""Fixtures that several modules here use; each stands beside what it is made of."""

from __future__ import annotations

from tests.integration.control_registered import control, control_nats
from tests.integration.rest_api import api, polled
from tests.integration.streams import consume, mortal_nats, nats, publisher
from tests.integration.webhook_endpoint import endpoint
from tests.integration.webhook_site import site

__all__ = [
    "api", "consume", "control", "control_nats", "endpoint", "mortal_nats", "nats", "polled",
    "publisher", "site",
]  # fmt: skip
