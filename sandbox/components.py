"""The components of a running sandbox, for its routes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from sandbox.engine import Engine
    from sandbox.inboxes.mail import Mailbox
    from sandbox.inboxes.slack import SlackInbox
    from sandbox.ledger import Ledger
    from sandbox.rate_limit import RateLimit
    from sandbox.result_pictures import ResultPictures
    from sandbox.scenarios.scenario import Queue


@dataclass(frozen=True)
class Components:
    url: str
    environment: dict[str, str]
    engine: Engine
    ledger: Ledger
    gallery: ResultPictures
    queue: Queue
    mailbox: Mailbox
    slack: SlackInbox
    modellix_limit: RateLimit
    allow_private: bool = False  # also fetch input pictures from private addresses
    stopping: threading.Event = field(default_factory=threading.Event)


def components() -> Components:
    """Return the components of the sandbox that serves the current request."""
    return cast("Components", current_app.extensions["sandbox"])
