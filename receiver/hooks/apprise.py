"""Any of apprise's services: title, text and picture; needs apprise, an extra.

apprise makes its requests by itself. They are kept from internal addresses (see `connects`) and
follow no redirect; the deadline ends our waiting, not a request that hangs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from marshmallow import fields

from receiver.deliveries import Notice
from receiver.endpoints import Alert, AlertKind
from receiver.errors import (
    ContentFailure,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.hooks import wording
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, seconds
from receiver.outgoing import http
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.socket_guard import public_only

INSTALL = "apprise is not installed: pip install 'apprise>=2.2'"
# They reach no network, but this machine; hooks of type command do that.
LOCAL = frozenset({"dbus", "exec", "file", "glib", "gnome", "kde", "macosx", "qt", "syslog"})
MOST_OUTPUTS = 10  # of one task
STATUS = re.compile(r"\berror=([0-9]{3})\b")  # as apprise's plugins log a response
# Programs read these messages: the text stays as it is.
EXACT = frozenset({"amqp", "amqps", "form", "forms", "json", "jsons", "mqtt", "mqtts"})
EXACT |= {"apprise", "apprises", "xml", "xmls"}
# Services that render Markdown in messages that apprise sends as plain text.
RENDERING = frozenset({"discord", "fluxer", "guilded", "mmost", "mmosts", "nctalk", "nctalks"})
RENDERING |= {"ryver", "workflow", "workflows", "zulip"}
PLAIN_TITLES = frozenset({"zulip"})
# apprise's types, which services show as a colour or an icon. All other statuses are "info".
TYPES = {
    "succeeded": "success",
    "failed": "failure",
    "given_up": "warning",
    AlertKind.PAUSED: "warning",
    AlertKind.RECOVERED: "success",
    AlertKind.DISABLED: "failure",
}


class AppriseOptions(Options):
    """The keys of a hook of type apprise."""

    url = fields.String(required=True)
    pictures = fields.Boolean(load_default=True)
    deadline = seconds(30)
    allow_private = fields.Boolean(load_default=False)


class Apprise:
    """Sends notifications to one service. It has no idempotency keys: the text names the task.

    Text from outside, such as a reference or a reason, is escaped as the service requires, and its
    mentions and links are disabled.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(AppriseOptions(), options)
        self._service = service(self._options["url"])
        self._called = str(self._service.service_name)
        scheme = self._options["url"].partition("://")[0].lower()
        self._is_exact = scheme in EXACT
        self._is_markdown = scheme in RENDERING or _is_markdown(self._service)
        # apprise puts the title into the body for services that have no titles.
        has_titles = getattr(self._service, "title_maxlen", 0) > 0
        is_plain = has_titles and self._is_markdown and scheme not in RENDERING
        self._renders_titles = not is_plain and scheme not in PLAIN_TITLES
        if hasattr(self._service, "ping_payload") and hasattr(self._service, "_send"):
            _allow_no_mentions(self._service)

    def send(self, notice: Notice) -> Done:
        lines = [f"{label}: {self._literal(value)}" for label, value in wording.facts(notice)]
        pictures: list[str] = []
        for media in notice.media[:MOST_OUTPUTS]:
            file = notice.file_of(media)
            if self._options["pictures"] and file is not None and Path(file.url).is_file():
                pictures.append(file.url)
            elif wording.is_link(media.url):
                lines.append(f"{self._literal(wording.kind(media))}: {self._link(media.url)}")
        type_ = TYPES.get(notice.status, "info")
        self._send(type_, self._title(wording.title(notice)), "\n".join(lines), pictures)
        return Done(f"{self._called} took it")

    def alert(self, alert: Alert) -> None:
        """Tell of another hook's endpoint. Raises DeliveryFailure."""
        lines = [self._literal(line) for line in alert.text.splitlines()]
        self._send(TYPES[alert.kind], self._title(alert.title), "\n".join(lines), [])

    def _send(self, type_: str, title: str, text: str, pictures: list[str]) -> None:
        """Send one message; if the service refuses it, send it again without the pictures."""
        import apprise  # noqa: PLC0415 - an extra, see `service`

        message = {
            "body": text,
            "title": title,
            "notify_type": apprise.NotifyType(type_),
            "body_format": apprise.NotifyFormat("markdown" if self._is_markdown else "text"),
        }
        said: Any = apprise.LogCapture(  # type: ignore[no-untyped-call]
            level=logging.WARNING, fmt="%(message)s"
        )

        def work() -> str | None:
            """None if the service took it; else what apprise's log says of it."""
            with said as lines, self._guard() as refused:
                attached = apprise.AppriseAttachment(pictures) if pictures else None
                took = self._service.notify(**message, attach=attached)
                if not took and pictures and _concerns_message(lines.getvalue()):
                    took = self._service.notify(**message)
            if refused:
                raise PermanentFailure(
                    f"{self._called} is not at a public address; "
                    "allow_private = true lets this hook reach internal ones"
                )
            return None if took else wording.one_line(lines.getvalue()) or "it does not say why"

        if problem := self._in_time(work):
            failure = ContentFailure if _concerns_message(problem) else TemporaryFailure
            raise failure(f"{self._called} did not accept the message: {problem}")

    def _literal(self, text: str) -> str:
        """Return the text so that the service shows it as it is."""
        if self._is_exact:
            return text
        inert = wording.without_elements(wording.inert(text))
        return wording.as_markdown(inert) if self._is_markdown else inert

    def _title(self, title: str) -> str:
        if self._renders_titles:
            return self._literal(title)
        return wording.without_elements(wording.inert(title))

    def _link(self, url: str) -> str:
        return wording.markdown_link(url) if self._is_markdown else url

    def _guard(self) -> AbstractContextManager[Sequence[str]]:
        return nullcontext([]) if self._options["allow_private"] else public_only()

    def _in_time(self, work: Callable[[], str | None]) -> str | None:
        limit = self._options["deadline"]
        with Deadline(limit) as clock:
            try:
                outcome = clock.run(lambda: _outcome(work))
            except TimeoutError:
                raise TimedOut(f"{self._called}: no answer within {limit:g} s") from None
        if isinstance(outcome, PermanentFailure):
            raise outcome
        return outcome


def service(url: str) -> Any:
    """apprise's object for this URL. Raises SettingsError; it never shows the URL, a secret."""
    try:
        import apprise  # noqa: PLC0415 - an extra; without it the other hooks work
    except ImportError:
        raise SettingsError([f"type: {INSTALL}"]) from None
    schema = url.partition("://")[0].lower()
    if schema in LOCAL:
        raise SettingsError([f"url: {schema} stays on this machine; use a hook of type command"])
    asset = apprise.AppriseAsset(http_redirects=False, plugin_paths=[])
    found = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if found is None:
        raise SettingsError(["url: is not a URL of apprise's; see its list of services"])
    return found


def _is_markdown(service: Any) -> bool:
    """Return whether the service, or the hook's URL, wants a plain text as Markdown."""
    import apprise  # noqa: PLC0415 - an extra, see `service`

    resolve = getattr(service, "resolve_format", str)
    return bool(resolve(apprise.NotifyFormat.TEXT) == apprise.NotifyFormat.MARKDOWN)


def _allow_no_mentions(discord: Any) -> None:
    """Let messages of Discord, and of services like it, notify only whom the hook's URL names.

    apprise looks for more mentions in the text, and misspells `allowed_mentions`.
    """
    send = discord._send  # noqa: SLF001 - apprise has no option for it
    pinged = discord.ping_payload(" ".join(discord.ping))
    allowed = pinged.get("allow_mentions", {"parse": []})

    def send_quietly(payload: Mapping[str, Any], *args: Any, **more: Any) -> Any:
        return send({**payload, "allowed_mentions": allowed}, *args, **more)

    discord._send = send_quietly  # noqa: SLF001
    discord.ping_payload = lambda *_: dict(pinged)


def _concerns_message(log: str) -> bool:
    """Return whether the service refused this message: every status in the log says so."""
    statuses = {int(status) for status in STATUS.findall(log)}
    return bool(statuses) and all(
        400 <= status < 500 and status not in http.TEMPORARY_STATUSES for status in statuses
    )


def _outcome(work: Callable[[], str | None]) -> str | PermanentFailure | None:
    """Whatever a plugin of apprise raises is a service that did not take it."""
    try:
        return work()
    except PermanentFailure as failure:
        return failure
    except Exception as error:  # noqa: BLE001 - hundreds of plugins, by as many hands
        return type(error).__name__
