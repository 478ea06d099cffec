"""Decides how a failed attempt affects its endpoint and the retries of its delivery."""

from __future__ import annotations

from receiver.deliveries import Delivery
from receiver.endpoints import Endpoint, EndpointHealth
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    EndpointGone,
    PermanentFailure,
    RenderFailed,
    StoreUnavailable,
    TemporaryFailure,
    TimedOut,
)
from receiver.stores.base import Store

ABANDONED = "abandoned"  # the outcome of an attempt whose worker died or stalled
SAID_REPEATED = 100  # characters of a response that are repeated in the deliveries of other tasks
FILE_ERRORS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)


def endpoint_health(failure: DeliveryFailure) -> EndpointHealth | None:
    """Return the health of the endpoint after this failure; None if the failure has no effect.

    An endpoint that refuses one delivery permanently has answered, so it works. If an attempt made
    some of its files, or sent nothing, the endpoint counts neither as working nor as failing.
    """
    if isinstance(failure, EndpointGone):
        return EndpointHealth.GONE
    if isinstance(failure, ContentFailure | RenderFailed) or failure.files:
        return None
    return EndpointHealth.FAILS if isinstance(failure, TemporaryFailure) else EndpointHealth.WORKS


def unexpected(error: Exception, text: str) -> DeliveryFailure:
    """Return the failure for an exception that is not a DeliveryFailure.

    Network and operating system errors concern the endpoint, unless they are about a file that
    only this event needs. Any other exception is a bug in the hook that this event triggers, and
    must not delay other events.
    """
    if any("Timeout" in kind.__name__ for kind in type(error).__mro__):  # of any library
        return TimedOut(text)
    concerns_endpoint = isinstance(error, OSError) and not isinstance(error, FILE_ERRORS)
    return TemporaryFailure(text) if concerns_endpoint else ContentFailure(text)


def hook_disabled(endpoint: Endpoint) -> PermanentFailure:
    """Return the failure of an attempt whose hook is disabled."""
    # The text after a colon may concern another task.
    reason = endpoint.said.partition(": ")[0][:SAID_REPEATED]
    return PermanentFailure(
        f"nothing was sent: the hook is disabled, because {reason}; "
        f"correct the cause, then run: receiver endpoints resume {endpoint.hook}"
    )


def counted_attempts(store: Store, delivery: Delivery, outcome: str) -> int:
    """Return how many attempts count towards the retry limit, including the one that now ends.

    A single abandoned attempt is no evidence against its delivery, because another delivery may
    have killed the worker, but several in a row are. After a failed attempt, therefore, only failed
    attempts count; after an abandoned one, only the abandoned attempts directly before it.
    """
    total = delivery.attempts - delivery.retries_from
    try:
        attempts = store.queries.attempts([delivery]).get(delivery.id, ())
    except StoreUnavailable:  # storing the outcome is tried several times
        return total
    abandoned = [
        attempt.outcome == ABANDONED
        for attempt in attempts
        if delivery.retries_from < attempt.number < delivery.attempts
    ]
    if outcome != ABANDONED:
        return total - sum(abandoned)
    in_a_row = next((n for n, was in enumerate(reversed(abandoned)) if not was), len(abandoned))
    return 1 + in_a_row
