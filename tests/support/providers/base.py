"""Samples of a provider's messages, with which the contract suites test its adapters.

Each provider has a module in this folder, whose `SAMPLES` is one of these. The suites read
everything else from the adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from submitter.client import Client
from submitter.providers import Provider

REASON = "no human in the picture"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response of the provider; `body` is JSON, as bytes or as a document."""

    status: int
    body: Any


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Messages of one provider. All bodies without a status are of responses with HTTP 200."""

    open: Callable[[Client], Provider]  # the account whose key is scripted_provider.TOKEN
    repeats_creates: bool = True  # after a response that rejects them for now
    created: bytes  # the response to a create request
    created_id: str  # the provider's id in it
    queried: tuple[bytes, ...]  # the responses to the requests of one query
    queried_id: str
    succeeded: bytes  # the body that `fetch` returns for a task with one image
    refused: bytes  # the body of a refused create request; its reason is REASON
    callback: bytes | None = None  # about a success with one image; None: there are no callbacks
    # A success whose result has to be fetched: a callback, or else the body of a query.
    without_result: bytes
    wrong_input: Reply
    wrong_key: Reply
    limited: Reply
    server_error: Reply
    unknown_id: Reply
    empty_list: Any = None  # the response to a list without tasks; None: the provider has no list
    # If it has a verification: returns the headers (in lower case) of a callback with this body,
    # sent at this time (Unix seconds), and a value of the setting that verifies them.
    sign: Callable[[bytes, int], Mapping[str, str]] | None = None
    secrets: str = ""
    has_signing_time: bool = True  # whether the signature is valid for a limited time
    secret: str = ""  # the value of its `secret_fields`, in `callback` and in `created`


def samples_of(provider: str) -> Samples:
    """Return the samples of a provider. Raises ModuleNotFoundError if it has none."""
    samples: Samples = import_module(f"tests.support.providers.{provider}").SAMPLES
    return samples
