"""The contract of the provider adapters: everything that the receiver knows about a provider.

An adapter is a class without arguments. `tests/contract/test_providers.py` runs the same cases for
every adapter; docs/adding-a-provider.md explains how to add one.
"""

# ruff: noqa: PLC0414 - `as` exports the names that adapters of other packages may import from here
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from marshmallow import Schema

from receiver.environment import Setting
from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.providers.fields import checked as checked
from receiver.providers.fields import cleaned
from receiver.providers.fields import decode as decode
from receiver.providers.fields import faults as faults
from receiver.providers.fields import text as text
from receiver.providers.outputs import entries as entries
from receiver.providers.outputs import expires_at as expires_at
from receiver.providers.outputs import url_in as url_in
from receiver.tasks import Status

HOUR = 3_600_000  # ms
DAY = 24 * HOUR


class Verification(Protocol):
    """Verifies that callbacks were sent by one provider.

    `headers` have names in lower case. The methods make no requests and read no files: keys that
    the provider publishes, such as a JWKS, are the value of `setting`.
    """

    # The secrets or public keys as the operator sets them. Its `read` returns a tuple of strings,
    # whose format only this class knows; an empty tuple means that nothing can be verified.
    setting: Setting[tuple[str, ...]]
    # Whether a proof covers every byte of the body. A secret that the provider repeats in a header
    # does not: such callbacks are only as trustworthy as those with a valid token in the URL, and
    # require that token as well.
    covers_body: bool
    # Whether the provider signs every callback, so that one without a signature is rejected.
    is_mandatory: bool

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request claims a proof. Called before the body is read."""
        ...

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Raise BadSignature unless one of the secrets proves who sent these bytes.

        `body` is as received, before decoding its Content-Encoding. `secrets` is a value of
        `setting`, and not empty. `now` is in Unix seconds by the clock of this machine. Secrets are
        compared in constant time. The error's kind is `stale_signature` if only its time is wrong,
        and otherwise `wrong_signature`.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReferenceClock:
    """A server of the provider whose clock has to agree with ours.

    `receiver doctor` reads the Date header of a response that needs no key.
    """

    url: str
    setting: str  # the environment variable that replaces the URL, if it is set


class Provider(Protocol):
    """A provider adapter of the receiver: verifies the provider's messages and parses them.

    Adapters inherit the default values below.
    """

    name: str  # an identifier in lower case: in URLs, options, and names of settings
    has_callbacks: bool  # if False, results are only fetched by queries
    # Whether callbacks use the same task id as the response to the create request. If this is not
    # documented, set it to False: the two kinds of ids are then stored separately, never compared.
    shares_ids: bool
    statuses: Mapping[str, Status]  # by the provider's spelling, in lower case
    results_kept_for: int  # ms from the end of a task until its results are deleted
    # Of its callbacks; /openapi.json shows them under the names of their classes.
    schemas: tuple[type[Schema], ...] = ()
    # None: callbacks are trusted by the token in their URL alone.
    verification: Verification | None = None
    # The fields of its messages that contain secrets, such as `config.webhook.secret`: keys from
    # the outermost object, joined by dots. Their values are never stored.
    secret_fields: tuple[str, ...] = ()
    clock: ReferenceClock | None = None  # for a provider that compares times with its own clock

    def parse(self, callback: Callback) -> Event:
        """Return the meaning of a callback, or of the response to a create request or a query.

        The body is plain: `receiver.providers.parse` has decoded its Content-Encoding. Pure, so
        that a stored message can be parsed again. A success without any `media` means that the
        result has to be fetched by a query. The response to a refused create request is a failure
        with an empty `provider_task_id`; a refused query raises NotTheProtocol.

        Raises NotJson, or NotTheProtocol naming each field of the identity or the status that is
        wrong. Any other field that cannot be used is left out and named in `Event.dropped`, and in
        `Event.lost_outputs` as well if an output is missing because of it.
        """
        ...


def refusal(provider: str, callback: Callback, message: str) -> Event:
    """Return the failure that a refused create request means for its task.

    A refused query says nothing about the task: raises NotTheProtocol.
    """
    if callback.source is not Source.CREATE:
        raise NotTheProtocol(f"the query was refused: {cleaned(message)}")
    return Event(
        provider=provider,
        provider_task_id="",
        status=Status.FAILED,
        occurred_at=callback.received_at,
        reason=f"refused: {cleaned(message)}",
    )
