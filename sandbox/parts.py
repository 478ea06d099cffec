"""What a running sandbox is made of, within reach of its routes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from sandbox.engine import Engine
    from sandbox.gallery import Gallery
    from sandbox.ledger import Ledger
    from sandbox.mail import Mailbox
    from sandbox.modellix_limit import Limit
    from sandbox.scenarios import Queue
    from sandbox.slack import SlackInbox


@dataclass(frozen=True)
class Parts:
    url: str
    environment: dict[str, str]
    engine: Engine
    ledger: Ledger
    gallery: Gallery
    queue: Queue
    mailbox: Mailbox
    slack: SlackInbox
    modellix_limit: Limit
    stopping: threading.Event = field(default_factory=threading.Event)


def parts() -> Parts:
    """Return the parts of the sandbox that serves the current request."""
    return cast("Parts", current_app.extensions["sandbox"])
