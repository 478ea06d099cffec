"""The WSGI application of the web process: `gunicorn wsgi:app`."""

import sys

from receiver.config import settings
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.observability import logs
from receiver.processes.current_hooks import known_secrets
from receiver.text.display import hiding
from receiver.web import create_app, problems
from receiver.web.server import booting
from submitter import api

APP_FAILED_TO_LOAD = 4  # gunicorn stops at this status instead of starting the worker again

logs.configure(form=settings.log_format())
for error_of_api, status in api.STATUS.items():
    problems.register(error_of_api, status)
try:
    chosen = settings.load()
    logs.configure(hiding(known_secrets(chosen)), settings.log_format())
    booting.report_missing_settings()
    app = create_app(chosen, more=[api.blueprint])
except CallbackReceiverError as error:
    lines = error.problems if isinstance(error, SettingsError) else (str(error),)
    sys.stderr.write("".join(f"receiver: {line}\n" for line in lines))
    sys.exit(APP_FAILED_TO_LOAD)
