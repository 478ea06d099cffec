"""Our gunicorn settings for apps that have no record to check: same worker class, same threads."""

from receiver.web.gunicorn import *  # noqa: F403


def on_starting(_: object) -> None:  # type: ignore[no-redef]
    """Nothing is checked."""
