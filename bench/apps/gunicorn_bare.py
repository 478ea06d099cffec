"""Our gunicorn settings for Flask apps without a record, on gunicorn's own threads."""

from receiver.web.gunicorn import *  # noqa: F403

worker_class = "gthread"


def on_starting(_: object) -> None:  # type: ignore[no-redef]
    """Check nothing."""
