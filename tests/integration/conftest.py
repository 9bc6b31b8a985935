"""Fixtures that several modules here use; each stands beside what it is made of."""

from __future__ import annotations

from tests.integration.rest_api import api, polled
from tests.integration.webhook_endpoint import endpoint
from tests.integration.webhook_site import site

__all__ = ["api", "endpoint", "polled", "site"]
