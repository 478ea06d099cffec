"""Slack: one JSON POST to an incoming webhook, with the picture's URL in a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import fields

from receiver import outgoing
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import TemporaryFailure
from receiver.events import Media
from receiver.hooks import wording
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, http_url, seconds

# https://docs.slack.dev/reference/block-kit/blocks (2026-11), in characters
HEADER_LIMIT, TEXT_LIMIT, FIELD_LIMIT, FIELDS_LIMIT = 150, 3000, 2000, 10
IMAGE_URL_LIMIT = 3000
MOST_OUTPUTS = 10  # of one task; Slack takes 50 blocks, people fewer

ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class SlackOptions(Options):
    """The keys of a hook of type slack."""

    url = fields.String(required=True, validate=http_url)
    pictures = fields.Boolean(load_default=True)
    deadline = seconds(15)
    allow_private = fields.Boolean(load_default=False)


class Slack:
    """Tells a channel. Slack knows no idempotency key: the text names the task, for people."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(SlackOptions(), options)

    def send(self, notice: Notice) -> Done:
        message = compose(notice, pictures=self._options["pictures"])
        answer = outgoing.post(
            self._options["url"],
            json=message,
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
        )
        said = f"{answer.status} {wording.one_line(answer.body.decode('utf-8', 'replace'))[:200]}"
        if answer.status == 200:
            return Done(f"Slack answered {said}")
        has_picture = any(block["type"] == "image" for block in message["blocks"])
        if "invalid_blocks" in said and has_picture:
            # Slack fetches the picture before it answers, and where that fails says no more
            # than this; it heals by itself (slackapi/python-slack-sdk#1782, 2025-11). A second
            # POST without the picture would hide the reason and could show the message twice.
            raise TemporaryFailure(
                f"Slack answered {said}: it may be unable to fetch the picture; "
                "pictures = false leaves it out"
            )
        raise outgoing.failure(answer.status, answer.headers, f"Slack answered {said}")

    def alert(self, alert: Alert) -> None:
        """Tell the channel of another hook's endpoint. Raises DeliveryFailure."""
        blocks = [
            {"type": "header", "text": _plain(escaped(alert.title, HEADER_LIMIT))},
            {"type": "section", "text": _markdown(escaped(alert.text, TEXT_LIMIT))},
        ]
        answer = outgoing.post(
            self._options["url"],
            json={"text": escaped(alert.title, TEXT_LIMIT), "blocks": blocks},
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
        )
        if answer.status != 200:
            said = f"Slack answered {answer.status}"
            raise outgoing.failure(answer.status, answer.headers, said)


def compose(notice: Notice, *, pictures: bool = True) -> dict[str, Any]:
    """The message; everything of the notice is escaped, and cut to Slack's limits."""
    title = wording.title(notice)
    blocks = [
        {"type": "header", "text": _plain(escaped(title, HEADER_LIMIT))},
        {"type": "section", "fields": _fields(notice)},
        *_outputs(notice, pictures=pictures),
    ]
    return {"text": escaped(f"{title} ({notice.task.provider})", TEXT_LIMIT), "blocks": blocks}


def escaped(text: str, limit: int) -> str:
    """The text as Slack wants it, at most `limit` long, never cut within an escape."""
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
    # Slack does not say what it counts; UTF-16 units, as browsers do, are never fewer.
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
    for media in notice.media[:MOST_OUTPUTS]:
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
    """A link in Slack's spelling; `|` and `>` would end the address early."""
    address = media.url.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E")
    link = f"<{address.replace('|', '%7C')}|{escaped(wording.one_line(media.kind), 40)}>"
    return link if _length(link) <= TEXT_LIMIT else None
