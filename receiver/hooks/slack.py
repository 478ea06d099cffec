"""Posts a message with pictures to an incoming webhook of Slack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from marshmallow import fields

from receiver import outgoing as http  # its functions are imported when they are used
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import ContentFailure, DeliveryFailure, EndpointGone
from receiver.events import Media
from receiver.hooks import wording
from receiver.hooks.base import Done, Preview
from receiver.hooks.options import Options, checked, http_url, seconds
from receiver.hooks.templates import Context, TemplateField
from receiver.text.display import json_readable, one_line

# https://docs.slack.dev/reference/block-kit/blocks (2026-11), in characters
HEADER_LIMIT, TEXT_LIMIT, FIELD_LIMIT, FIELDS_LIMIT = 150, 3000, 2000, 10
IMAGE_URL_LIMIT = 3000
FACT_LIMIT = 500  # in a message without blocks, of which Slack accepts 40,000
QUOTED = 200  # characters of Slack's response
MAX_OUTPUTS = 10  # of one task; Slack would accept 50 blocks

# Slack's errors: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
# The webhook can post no message until its configuration in Slack is changed.
GONE = frozenset(
    {
        *("account_inactive", "invalid_token", "token_expired", "token_revoked", "user_not_found"),
        *("no_team", "team_access_not_granted", "team_disabled", "team_not_found"),
        *("channel_is_archived", "channel_not_found", "is_archived", "not_in_channel"),
        *("action_prohibited", "posting_to_general_channel_denied", "restricted_action"),
        *("no_active_hooks", "no_service", "no_service_id"),
    }
)
# Slack refuses this message, independent of the status.
MESSAGE = frozenset(
    {
        *("block_mismatch", "invalid_blocks", "invalid_blocks_format", "too_many_blocks"),
        *("attachment_payload_limit_exceeded", "invalid_attachments", "too_many_attachments"),
        *("invalid_payload", "missing_text_or_fallback_or_attachments", "no_text"),
        *("msg_blocks_too_long", "msg_too_long"),
    }
)
MESSAGE_STATUSES = frozenset({400, 413, 422})

ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class SlackOptions(Options):
    """The keys of a hook of type slack."""

    url = fields.String(required=True, validate=http_url)
    text = TemplateField(Context.SLACK)
    blocks = TemplateField(Context.SLACK_JSON)
    pictures = fields.Boolean(load_default=True)
    deadline = seconds(15)
    allow_private = fields.Boolean(load_default=False)


class Slack:
    """Posts to a channel. Slack has no idempotency keys, but the text names the task."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(SlackOptions(), options)

    def send(self, notice: Notice) -> Done:
        return Done(self._send(*self._messages(notice)))

    def preview(self, notice: Notice) -> Preview:
        """Return the first request that `send` would make. Raises RenderFailed."""
        message, _ = self._messages(notice)
        url = http.without_path(self._options["url"])
        headers = {"Content-Type": "application/json"}
        return Preview(f"POST {url}", headers, json_readable(message))

    def _messages(self, notice: Notice) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """Return the message, and if it has blocks, also a message without them.

        Raises RenderFailed.
        """
        text, blocks = self._options["text"], self._options["blocks"]
        message = compose(notice, pictures=self._options["pictures"])
        without_blocks = compose_text(notice)
        if text is not None:
            without_blocks = {"text": text.render(notice, hook=self.name, key="text")}
            message = {**message, **without_blocks}
        if blocks is not None:
            rendered = blocks.render(notice, hook=self.name, key="blocks")
            message = {**message, "blocks": json.loads(rendered)}
        elif text is not None:
            return without_blocks, None
        return message, without_blocks

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint. Raises DeliveryFailure."""
        title = escaped(wording.inert(alert.title), TEXT_LIMIT)
        blocks = [
            {"type": "header", "text": _plain(escaped(alert.title, HEADER_LIMIT))},
            {"type": "section", "text": _markdown(escaped(alert.text, TEXT_LIMIT))},
        ]
        self._send(
            {"text": title, "blocks": blocks},
            {"text": f"*{title}*\n{escaped(wording.inert(alert.text), TEXT_LIMIT)}"},
        )

    def _send(self, message: Mapping[str, Any], text: Mapping[str, Any] | None) -> str:
        """Post the message. If Slack refuses it and there is a `text` message, post that one.

        Returns a description of Slack's response. Raises DeliveryFailure.
        """
        response, description = self._post(message)
        if _is_accepted(response):
            return f"Slack answered {description}"
        if text is None or not _concerns_message(response):
            raise _failure(response, description)
        # Slack fetches the pictures before it answers. If it cannot fetch one, or one is a WebP,
        # the only error is `invalid_blocks` (slackapi/python-slack-sdk#1782, 2025-11).
        refusal = description
        response, description = self._post(text)
        if _is_accepted(response):
            return f"Slack answered {description} to the text; it refused the blocks: {refusal}"
        raise _failure(response, description)

    def _post(self, message: Mapping[str, Any]) -> tuple[http.Response, str]:
        """Send one request; return the response, and a one-line description of it."""
        response = http.post(
            self._options["url"],
            json=message,
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
        )
        return response, f"{response.status} {wording.quoted(response.body, QUOTED)}"


def _is_accepted(response: http.Response) -> bool:
    return 200 <= response.status < 300 and b'"ok":false' not in response.body.replace(b" ", b"")


def _error_names(response: http.Response) -> frozenset[str]:
    """Return the names of errors in a response, which is JSON or text such as `invalid_blocks`."""
    return frozenset(re.findall(r"[a-z]+(?:_[a-z]+)*", response.body.decode("utf-8", "replace")))


def _is_gone(response: http.Response) -> bool:
    """Return whether Slack refuses every message from now on."""
    return response.status == HTTPStatus.GONE or bool(_error_names(response) & GONE)


def _concerns_message(response: http.Response) -> bool:
    """Return whether Slack refuses only this message."""
    if _is_gone(response):
        return False
    return response.status in MESSAGE_STATUSES or bool(_error_names(response) & MESSAGE)


def _failure(response: http.Response, description: str) -> DeliveryFailure:
    text = f"Slack answered {description}"
    if _is_gone(response):
        return EndpointGone(text)
    if _concerns_message(response):
        return ContentFailure(text)
    return http.failure(response.status, response.headers, text)


def compose(notice: Notice, *, pictures: bool = True) -> dict[str, Any]:
    """Return the message. All text is escaped, and shortened to Slack's limits."""
    title = wording.title(notice)
    blocks = [
        {"type": "header", "text": _plain(escaped(title, HEADER_LIMIT))},
        {"type": "section", "fields": _fields(notice)},
        *_outputs(notice, pictures=pictures),
    ]
    text = escaped(wording.inert(f"{title} ({notice.task.provider})"), TEXT_LIMIT)
    return {"text": text, "blocks": blocks}


def compose_text(notice: Notice) -> dict[str, Any]:
    """Return the message without blocks: the same facts, and a link to each output."""
    title = escaped(wording.inert(wording.title(notice)), HEADER_LIMIT)
    facts = [
        f"{label}: {escaped(wording.inert(value), FACT_LIMIT)}"
        for label, value in wording.facts(notice)[:FIELDS_LIMIT]
    ]
    media = [one for one in notice.media[:MAX_OUTPUTS] if wording.is_link(one.url)]
    links = [link for one in media if (link := _link(one)) is not None]
    return {"text": "\n".join([f"*{title}*", *facts, *links])}


def escaped(text: str, limit: int) -> str:
    """Return the text as Slack requires it, at most `limit` long, never cut within an escape."""
    pieces: list[str] = []
    length = 0
    for character in text:
        pieces.append(ESCAPES.get(character, character))
        length += _length(pieces[-1])
        if length > limit:
            break
    else:
        return "".join(pieces)
    while length > limit - 1:
        length -= _length(pieces.pop())
    return "".join(pieces) + "…"


def _length(text: str) -> int:
    # Slack does not document how it counts characters. There are never fewer UTF-16 units than
    # characters.
    return len(text.encode("utf-16-le")) // 2


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _fields(notice: Notice) -> list[dict[str, Any]]:
    return [
        _markdown(f"*{label}*\n" + escaped(value, FIELD_LIMIT - len(label) - 3))
        for label, value in wording.facts(notice)[:FIELDS_LIMIT]
    ]


def _outputs(notice: Notice, *, pictures: bool) -> Iterator[dict[str, Any]]:
    for media in notice.media[:MAX_OUTPUTS]:
        if not wording.is_link(media.url):
            continue
        if media.kind == "image" and pictures and len(media.url) <= IMAGE_URL_LIMIT:
            yield {
                "type": "image",
                "image_url": media.url,
                "alt_text": f"Result of task {notice.task.id}",
            }
        elif (link := _link(media)) is not None:
            yield {"type": "section", "text": _markdown(link)}


def _link(media: Media) -> str | None:
    """Return a link in Slack's syntax, in which `|` and `>` end the URL; None if it is too long."""
    address = media.url.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E")
    link = f"<{address.replace('|', '%7C')}|{escaped(one_line(media.kind), 40)}>"
    return link if _length(link) <= TEXT_LIMIT else None
