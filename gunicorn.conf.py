"""gunicorn's settings for `gunicorn wsgi:app`; `receiver.web.server.gunicorn` explains them."""

from receiver.web.gunicorn import *  # noqa: F403
