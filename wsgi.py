"""The web process, for any WSGI server: `gunicorn wsgi:app`."""

import sys

from receiver import logs, settings
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.web import create_app, problems
from submitter import api

APP_FAILED_TO_LOAD = 4  # gunicorn stops at this status instead of starting the worker again

logs.configure(form=settings.log_format())
for error_of_api, status in api.STATUS.items():
    problems.register(error_of_api, status)
try:
    app = create_app(more=[api.blueprint])
except CallbackReceiverError as error:
    lines = error.problems if isinstance(error, SettingsError) else (str(error),)
    sys.stderr.write("".join(f"receiver: {line}\n" for line in lines))
    sys.exit(APP_FAILED_TO_LOAD)
