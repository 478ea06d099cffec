"""Creates try-on tasks at providers: `from submitter import submit`.

The function is imported when it is used, because its imports take long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from submitter.errors import (
    AlreadySubmitted,
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

if TYPE_CHECKING:
    from submitter.library import submit

__all__ = [
    "AlreadySubmitted",
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


def __getattr__(name: str) -> Any:
    if name != "submit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from submitter import library  # noqa: PLC0415 - see above

    return library.submit
