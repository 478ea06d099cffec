"""The title and the facts of a notification, the same in every service."""

from __future__ import annotations

import re
from datetime import tzinfo

from receiver.deliveries import Notice
from receiver.events import Media
from receiver.text import display, html_page
from receiver.text.display import one_line

_BREAK = "\u200b"  # a zero-width space
# The beginnings of mentions and links in chat services, and of their own elements.
_MENTION = re.compile(r"(?<!\w)@(?=\S)|@(?=everyone|here|channel|all\b|room)", re.IGNORECASE)
_LINK = re.compile(r"(?<=:)//|(?<=www)\.|(?<=\w)\.(?=[^\W\d_]{2})", re.IGNORECASE)
_ELEMENT = re.compile(r"<(?=\S)|\[(?=CQ:)")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()<>#+\-.!|~=&:$^]")
VERBS = {
    "submitted": "was submitted",
    "processing": "is being processed",
    "succeeded": "succeeded",
    "failed": "failed",
    "given_up": "was given up on",
}


def title(notice: Notice) -> str:
    """Return one line: the name of the task, and its status."""
    verb = VERBS.get(notice.status, notice.status)
    return f"{name(notice)} {verb}"


def name(notice: Notice) -> str:
    """Return the name of the task for people: its reference, or its id if it has none."""
    return one_line(notice.task.reference or "") or notice.task.id


def kind(media: Media) -> str:
    """Return the label of one output, such as `Image`."""
    return one_line(media.kind).capitalize() or "Output"


def facts(notice: Notice) -> list[tuple[str, str]]:
    """Return pairs of a label and a value. Each is one line; nothing is escaped."""
    task, transition = notice.task, notice.transition
    pairs = [
        ("Task", task.id),
        ("Reference", task.reference),
        ("Provider", task.provider),
        ("Account", None if task.account == "default" else task.account),
        ("Duration", duration(transition.occurred_at - task.created_at)),
        ("Time", moment(transition.occurred_at, notice.zone)),
        ("Reason", task.reason if notice.status != "succeeded" else None),
        ("Note", "corrects an earlier report of this task" if transition.corrected else None),
    ]
    lines = [(label, one_line(value or "")) for label, value in pairs]
    return [(label, line) for label, line in lines if line]


def inert(text: str) -> str:
    """Return the text with mentions and links of chat services disabled by invisible spaces."""
    text = _MENTION.sub(f"@{_BREAK}", text)
    return _LINK.sub(lambda link: f"{_BREAK}{link[0]}", text)


def without_elements(text: str) -> str:
    """Return the text with elements such as `<at id="all">` disabled by invisible spaces."""
    return _ELEMENT.sub(lambda start: f"{start[0]}{_BREAK}", text)


def as_markdown(text: str) -> str:
    """Return Markdown that is rendered as exactly this text."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def markdown_link(url: str) -> str:
    """Return a Markdown link to this URL. No part of the URL is rendered as Markdown."""
    return f"<{url.replace('<', '%3C').replace('>', '%3E')}>"


def quoted(response: bytes | str, most: int, *, is_cut: bool = False) -> str:
    """Return a response, or the text of an HTML page, as one line of at most `most` characters.

    `is_cut`: `response` is only the beginning of the whole response.
    """
    text = response.decode("utf-8", "replace") if isinstance(response, bytes) else response
    return one_line(html_page.readable(text), most, is_cut=is_cut)


def duration(milliseconds: int) -> str:
    """Return a duration such as `23 s`, `2 min 5 s`, `3 h 0 min` or `4 d 1 h`.

    A negative duration, of a provider whose clock is behind ours, is `0 s`.
    """
    minutes, second = divmod(max(milliseconds, 0) // 1000, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"


def moment(instant: int, zone: tzinfo) -> str:
    """Return integer milliseconds UTC as a date and time for people, with the time zone."""
    return display.moment(instant, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def is_link(url: str) -> bool:
    """Return whether people may click on this URL; a provider could send `javascript:`."""
    return url.startswith(("https://", "http://")) and url.isprintable() and " " not in url
