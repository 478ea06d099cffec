"""The gunicorn settings for `--config python:receiver.web.gunicorn`."""

from receiver.web.server.gunicorn import *  # noqa: F403
