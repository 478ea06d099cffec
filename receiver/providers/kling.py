"""Kling itself: its API with both dialects, signed callbacks, and a clock to compare with ours."""

from __future__ import annotations

from receiver.providers.base import ReferenceClock
from receiver.providers.kling_api import KlingApi, KlingCallback, LegacyCallback
from receiver.providers.verification import StandardWebhooks
from receiver.signing import standard_webhooks


class Kling(KlingApi):
    """Kling, and every reseller that serves Kling's API under its own paths."""

    name = "kling"
    shares_ids = True
    verification = StandardWebhooks(
        "KLING_WEBHOOK_SECRETS",
        "The secrets of Kling's signed callbacks, from its console; at least "
        f"{standard_webhooks.SHORTEST_KEY} bytes each.",
    )
    clock = ReferenceClock("https://api-singapore.klingai.com", "KLING_BASE_URL")
    schemas = (KlingCallback, LegacyCallback)
