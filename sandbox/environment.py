"""The settings that point the receiver and the submitter at a sandbox."""

from __future__ import annotations

PORT = 8900
SMTP_PORT = 8925


def settings(url: str, smtp_host: str, smtp_port: int) -> dict[str, str]:
    from sandbox.providers import appypie, kling_auth, modellix  # noqa: PLC0415 - slow

    return {
        "KLING_BASE_URL": url,
        "KLING_ACCESS_KEY": kling_auth.ACCESS_KEY,
        "KLING_SECRET_KEY": kling_auth.SECRET_KEY,
        "MODELLIX_BASE_URL": url,
        "MODELLIX_API_KEY": modellix.API_KEY,
        "APPYPIE_BASE_URL": url,
        "APPYPIE_SUBSCRIPTION_KEY": appypie.SUBSCRIPTION_KEY,
        "SANDBOX_SMTP_HOST": smtp_host,
        "SANDBOX_SMTP_PORT": str(smtp_port),
        "SANDBOX_SLACK_URL": f"{url}/_sandbox/slack/inbox",
    }


def lines(values: dict[str, str]) -> list[str]:
    """Return `NAME=value` lines.

    The static API key is a comment: one kind of credential is enough.
    """
    from sandbox.providers import kling_auth  # noqa: PLC0415 - as above

    named = [f"{name}={value}" for name, value in values.items()]
    return [*named, f"# instead of the two keys: KLING_API_KEY={kling_auth.API_KEY}"]
