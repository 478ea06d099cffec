"""Read by a bare `gunicorn wsgi:app`; the settings and their reasons are in the package."""

from receiver.web.gunicorn import *  # noqa: F403
