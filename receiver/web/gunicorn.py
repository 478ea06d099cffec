"""gunicorn's settings by the name that commands give: `--config python:receiver.web.gunicorn`."""

from receiver.web.server.gunicorn import *  # noqa: F403
