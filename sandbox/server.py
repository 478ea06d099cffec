"""Starts and stops a complete sandbox."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from sandbox import environment
from sandbox.callback_sender import CallbackSender, Persistence
from sandbox.components import Components
from sandbox.engine import Engine
from sandbox.inboxes.mail import Mailbox, MailServer
from sandbox.inboxes.slack import SlackInbox
from sandbox.ledger import Ledger
from sandbox.providers import appypie, kling, kling_callbacks, modellix
from sandbox.providers.standard_webhooks import Signer
from sandbox.rate_limit import RateLimit
from sandbox.result_pictures import ResultPictures
from sandbox.scenarios.chaos import Chaos
from sandbox.scenarios.scenario import Queue
from sandbox.web.app import create_app

if TYPE_CHECKING:
    from sandbox.engine import CreateRequest, Task
    from sandbox.inboxes.mail import Mail
    from sandbox.inboxes.slack import SlackMessage
    from sandbox.scenarios.scenario import Scenario

BACKLOG = 128
# The address at which this machine reaches a server that listens on all addresses.
REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here


@dataclass(frozen=True)
class Behaviour:
    """The behaviour of the providers. `pace`: seconds between two status changes of a task.

    Raises SecretError for a webhook secret that cannot be used.
    """

    pace: float = 1.0
    max_running: int = 20  # running tasks of each provider; Modellix allows about 3
    callbacks: bool = True  # False: no provider sends callbacks
    webhook_secret: str | None = None  # signs Kling's callbacks
    requests_a_minute: int = 100  # Modellix's rate limit of each key
    persistence: Persistence = field(default_factory=Persistence)
    allow_private: bool = False  # also fetch input pictures from private addresses
    url: str | None = None  # at which clients reach the sandbox, unless it is the address it binds
    # Percentages by scenario, for tasks without one of their own.
    chaos: dict[str, float] | None = None
    chaos_seed: int | None = None

    def __post_init__(self) -> None:
        if self.webhook_secret is not None:
            Signer(self.webhook_secret)


class QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the ledger and the pages show what happened."""


class Sandbox:
    """A context manager that serves a sandbox on loopback. Port 0 chooses a free port.

    `pace` (seconds) is a short form of `behaviour`. Raises OSError if a port is in use.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        smtp_port: int = 0,
        *,
        pace: float | None = None,
        behaviour: Behaviour | None = None,
    ) -> None:
        behaviour = self._behaviour = behaviour or Behaviour()
        self._web_socket = _listen(host, port)
        try:
            self._smtp_socket = _listen(host, smtp_port)
        except OSError:
            self._web_socket.close()
            raise
        self.smtp_port: int = self._smtp_socket.getsockname()[1]
        self._host = REACHED_AT.get(host, host)
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self.port: int = self._web_socket.getsockname()[1]
        self.url = behaviour.url or f"http://{bracketed}:{self.port}"
        self.ledger = Ledger()
        pace = behaviour.pace if pace is None else pace
        self._callback_sender = CallbackSender(self.ledger, behaviour.persistence, pace)
        self._parts = self._assemble(behaviour, pace)
        self._mail_server = MailServer(self._parts.mailbox, self._smtp_socket)
        self._web = _web_server(self._parts, self._web_socket)
        self._thread = threading.Thread(target=self._web.serve_forever, args=(0.05,), daemon=True)

    def _assemble(self, behaviour: Behaviour, pace: float) -> Components:
        chaos = Chaos(behaviour.chaos, behaviour.chaos_seed) if behaviour.chaos else None
        queue = Queue(chaos, signs=behaviour.webhook_secret is not None)
        gallery = ResultPictures(self.url)
        engine = Engine(
            queue, self._callback_sender, gallery, pace=pace, max_running=behaviour.max_running
        )
        engine.calls_back = behaviour.callbacks
        engine.speak(kling.NAME, kling_callbacks.KlingCallbacks(behaviour.webhook_secret))
        engine.speak(appypie.NAME, appypie.AppyPieCallbacks())
        engine.speak(modellix.NAME, None)
        mailbox, slack = Mailbox(), SlackInbox()

        def apply_inbox_faults(scenario: Scenario) -> None:
            if scenario.mail is not None:
                mailbox.refuse(scenario.mail)
            if scenario.slack is not None:
                slack.refuse(scenario.slack)

        engine.on_create = apply_inbox_faults
        return Components(
            url=self.url,
            environment=self.env(),
            engine=engine,
            ledger=self.ledger,
            gallery=gallery,
            queue=queue,
            mailbox=mailbox,
            slack=slack,
            modellix_limit=RateLimit(behaviour.requests_a_minute),
            allow_private=behaviour.allow_private,
        )

    def __enter__(self) -> Self:
        self._callback_sender.start()
        self._parts.engine.start()
        self._mail_server.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.stopping.set()
        self._web.shutdown()
        self._thread.join()
        self._parts.engine.stop()
        self._callback_sender.stop()
        self._mail_server.stop()
        self._web_socket.close()
        self._smtp_socket.close()

    def env(self) -> dict[str, str]:
        """Return the settings that point the other programs to this sandbox."""
        secret = self._behaviour.webhook_secret
        signing = {"KLING_WEBHOOK_SECRETS": secret} if secret else {}
        return environment.settings(self.url, self._host, self.smtp_port) | signing

    def next(self, provider: str, scenario: str, count: int = 1) -> None:
        """Let the next `count` tasks of `provider` play `scenario`."""
        self._parts.queue.add(provider, scenario, count)

    def play(self, order: CreateRequest, scenario: str) -> Task:
        """Create a task without a request, and let it play this scenario."""
        self.next(order.provider, scenario)
        return self._parts.engine.submit(order)

    def is_quiet(self, task_id: str) -> bool:
        """Return whether the task has ended and no callback of any task is left to send."""
        return self._parts.engine.is_over(task_id) and self._callback_sender.is_idle

    def mails(self) -> list[Mail]:
        return self._parts.mailbox.mails()

    def slack_messages(self) -> list[SlackMessage]:
        return self._parts.slack.messages()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _web_server(parts: Components, listening: socket.socket) -> BaseWSGIServer:
    # With a socket, werkzeug does not bind itself, and so does not exit the process on failure.
    host, port = listening.getsockname()[:2]
    return make_server(
        host,
        port,
        create_app(parts),
        threaded=True,
        request_handler=QuietHandler,
        fd=listening.fileno(),
    )
