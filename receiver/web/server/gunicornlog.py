"""Formats gunicorn's own log lines like those of the application, without secrets."""

from __future__ import annotations

import sys
from typing import Any

from gunicorn.glogging import Logger

from receiver.config import settings
from receiver.observability import logs


class RedactedLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's logger with our formatter, unless `--log-config` sets another."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        if cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json:
            return
        formatter = logs.formatter(form=settings.log_format())
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(formatter)
            if getattr(handler, "stream", None) is sys.stderr:
                handler.setStream(logs.STDERR)
