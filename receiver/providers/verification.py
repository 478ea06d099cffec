"""The Standard Webhooks scheme as a verification that adapters can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.environment import Setting, readers
from receiver.providers.base import Verification
from receiver.signing import standard_webhooks


class StandardWebhooks(Verification):
    """Verifies signatures of the Standard Webhooks scheme with the secrets of a setting."""

    covers_body = True

    def __init__(self, setting: str, summary: str, *, is_mandatory: bool = False) -> None:
        self.setting = Setting(
            name=setting,
            read=read_secrets,
            default=(),
            summary=summary,
            details="They are comma-separated; give two during a rotation.",
            example="whsec_…",
            is_secret=True,
        )
        self.is_mandatory = is_mandatory

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        return standard_webhooks.is_signed(headers)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        standard_webhooks.verify(secrets, headers, body, now)


def read_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets in the text of a setting, separated by commas.

    Raises ValueError with the rest of a sentence that begins with the value; it shows no secret.
    """
    secrets = readers.parts(text)
    if not secrets:
        raise ValueError("contains no secret; copy one from the provider's console")
    for number, secret in enumerate(secrets, 1):
        try:
            standard_webhooks.key_of(secret)
        except ValueError as error:
            raise ValueError(
                f"cannot be used, because secret {number} {error}; copy it from the provider's "
                "console, or create a new one there. For a sender of your own, make one with: "
                f"{standard_webhooks.MAKE_ONE}"
            ) from None
    return secrets
