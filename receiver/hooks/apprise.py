"""Sends title, text and pictures through one of apprise's services. Needs apprise, an extra.

apprise makes its requests itself. `public_only` refuses internal addresses, and redirects are not
followed. The deadline ends only our waiting, not the request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import nullcontext
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
from receiver.hooks.base import Done, Preview
from receiver.hooks.options import Options, checked, seconds
from receiver.outgoing import http
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.socket_guard import public_only
from receiver.text.display import one_line

INSTALL = "apprise is not installed: pip install 'apprise>=2.2'"
# These services act on this machine, not on the network; hooks of type command do that.
LOCAL = frozenset({"dbus", "exec", "file", "glib", "gnome", "kde", "macosx", "qt", "syslog"})
MAX_OUTPUTS = 10  # of one task
STATUS = re.compile(r"\berror=([0-9]{3})\b")  # as apprise's plugins log a response
# Services that programs read get the exact text.
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
    """Sends notifications to one service. There are no idempotency keys; the text names the task.

    Text from outside, such as a reference or a reason, is escaped as the service requires, and its
    mentions and links are disabled.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(AppriseOptions(), options)
        self._service = open_service(self._options["url"])
        self._service_name = str(self._service.service_name)
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
        text, pictures = self._content(notice)
        type_ = TYPES.get(notice.status, "info")
        self._send(type_, self._title(wording.title(notice)), text, pictures)
        return Done(f"{self._service_name} accepted the message")

    def preview(self, notice: Notice) -> Preview:
        """Return the title and the text that `send` would send, and the names of the pictures."""
        text, pictures = self._content(notice)
        headers = {
            "type": TYPES.get(notice.status, "info"),
            "title": self._title(wording.title(notice)),
            **{f"picture {n}": picture for n, picture in enumerate(pictures, 1)},
        }
        return Preview(self._service_name, headers, text)

    def _content(self, notice: Notice) -> tuple[str, list[str]]:
        """Return the text, and the paths of the pictures to attach."""
        lines = [f"{label}: {self._literal(value)}" for label, value in wording.facts(notice)]
        pictures: list[str] = []
        for media in notice.media[:MAX_OUTPUTS]:
            file = notice.file_of(media)
            if self._options["pictures"] and file is not None and Path(file.url).is_file():
                pictures.append(file.url)
            elif wording.is_link(media.url):
                lines.append(f"{self._literal(wording.kind(media))}: {self._link(media.url)}")
        return "\n".join(lines), pictures

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint. Raises DeliveryFailure."""
        lines = [self._literal(line) for line in alert.text.splitlines()]
        self._send(TYPES[alert.kind], self._title(alert.title), "\n".join(lines), [])

    def _send(self, type_: str, title: str, text: str, pictures: list[str]) -> None:
        """Send one message; if the service refuses it, send it again without the pictures."""
        import apprise  # noqa: PLC0415 - an extra, see `open_service`

        message = {
            "body": text,
            "title": title,
            "notify_type": apprise.NotifyType(type_),
            "body_format": apprise.NotifyFormat("markdown" if self._is_markdown else "text"),
        }
        capture: Any = apprise.LogCapture(  # type: ignore[no-untyped-call]
            level=logging.WARNING, fmt="%(message)s"
        )

        allow_private = self._options["allow_private"]
        guard = nullcontext(list[str]()) if allow_private else public_only()

        def notify() -> str | None:
            """Return None if the service accepted the message, or else apprise's log lines."""
            try:
                with capture as lines, guard as refused:
                    attached = apprise.AppriseAttachment(pictures) if pictures else None
                    accepted = self._service.notify(**message, attach=attached)
                    if not accepted and pictures and _concerns_message(lines.getvalue()):
                        accepted = self._service.notify(**message)
            except Exception as error:  # noqa: BLE001 - there are hundreds of plugins
                return type(error).__name__
            if refused:
                where = f"{self._service_name} is not at a public address"
                raise PermanentFailure(f"{where}; {http.ALLOW_PRIVATE}")
            return None if accepted else one_line(lines.getvalue()) or "no reason is given"

        limit = self._options["deadline"]
        with Deadline(limit) as clock:
            try:
                problem = clock.run(notify)
            except TimeoutError:
                raise TimedOut(f"{self._service_name}: no answer within {limit:g} s") from None
        if problem:
            failure = ContentFailure if _concerns_message(problem) else TemporaryFailure
            raise failure(f"{self._service_name} did not accept the message: {problem}")

    def _literal(self, text: str) -> str:
        """Return the text in the form that the service shows unchanged."""
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


def open_service(url: str) -> Any:
    """Return apprise's object for this URL. Raises SettingsError without the URL, a secret."""
    try:
        import apprise  # noqa: PLC0415 - an extra; without it the other hooks work
    except ImportError:
        raise SettingsError([f"type: {INSTALL}"]) from None
    schema = url.partition("://")[0].lower()
    if schema in LOCAL:
        raise SettingsError(
            [f"url: {schema} acts only on this machine; use a hook of type command"]
        )
    asset = apprise.AppriseAsset(http_redirects=False, plugin_paths=[])
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        raise SettingsError(["url: is not one of apprise's URLs; see apprise's list of services"])
    return service


def _is_markdown(service: Any) -> bool:
    """Return whether the service, or the hook's URL, requires plain text in Markdown."""
    import apprise  # noqa: PLC0415 - an extra, see `open_service`

    resolve = getattr(service, "resolve_format", str)
    return bool(resolve(apprise.NotifyFormat.TEXT) == apprise.NotifyFormat.MARKDOWN)


def _allow_no_mentions(discord: Any) -> None:
    """Let messages to Discord, and to similar services, notify only the people in the hook's URL.

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
    """Return whether the service refused this message, according to every status in the log."""
    statuses = {int(status) for status in STATUS.findall(log)}
    return bool(statuses) and all(
        400 <= status < 500 and status not in http.TEMPORARY_STATUSES for status in statuses
    )
