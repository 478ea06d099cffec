"""Creates try-on tasks at providers: `from submitter import submit`."""

from __future__ import annotations

from submitter.errors import (
    ConfigurationError,
    InputError,
    NeverReached,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    SubmitterError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.submission import submit

__all__ = [
    "ConfigurationError",
    "InputError",
    "NeverReached",
    "NotFoundAtProvider",
    "OutcomeUnknown",
    "ProviderError",
    "SubmitterError",
    "TryLater",
    "UnexpectedAnswer",
    "WrongAccount",
    "WrongInput",
    "submit",
]
