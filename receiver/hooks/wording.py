"""What messages for people say of a notice: the same facts, whatever carries them."""

from __future__ import annotations

import re
from datetime import tzinfo

from receiver.deliveries import Notice
from receiver.events import Media
from receiver.text import display
from receiver.text.redaction import shortened

_BREAK = "\u200b"  # a zero-width space, which people do not see
# Where chat services begin a mention or a link, or one of their own elements.
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
    """One line: which task, and what became of it."""
    verb = VERBS.get(notice.status, notice.status)
    return f"{name(notice)} {verb}"


def name(notice: Notice) -> str:
    """What people call the task: its reference, else its id."""
    return one_line(notice.task.reference or "") or notice.task.id


def kind(media: Media) -> str:
    """Return the label of one output, such as `Image`."""
    return one_line(media.kind).capitalize() or "Output"


def facts(notice: Notice) -> list[tuple[str, str]]:
    """Pairs of a label and a value, each one line, with nothing escaped yet."""
    task, transition = notice.task, notice.transition
    found = [
        ("Task", task.id),
        ("Reference", task.reference),
        ("Provider", task.provider),
        ("Account", None if task.account == "default" else task.account),
        ("Duration", duration(transition.occurred_at - task.created_at)),
        ("Time", moment(transition.occurred_at, notice.zone)),
        ("Reason", task.reason if notice.status != "succeeded" else None),
        ("Note", "corrects an earlier report of this task" if transition.corrected else None),
    ]
    lines = [(label, one_line(value or "")) for label, value in found]
    return [(label, line) for label, line in lines if line]


def one_line(text: str) -> str:
    """The text without anything that could break a line, a header or (lone surrogates, which
    JSON may hold) an encoding.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def inert(text: str) -> str:
    """Return the text with mentions and links of chat services disabled by invisible spaces."""
    text = _MENTION.sub(f"@{_BREAK}", text)
    return _LINK.sub(lambda found: f"{_BREAK}{found[0]}", text)


def without_elements(text: str) -> str:
    """Return the text with elements such as `<at id="all">` disabled by invisible spaces."""
    return _ELEMENT.sub(lambda found: f"{found[0]}{_BREAK}", text)


def as_markdown(text: str) -> str:
    """Return Markdown that is rendered as exactly this text."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def markdown_link(url: str) -> str:
    """Return a Markdown link to this URL. No part of the URL is rendered as Markdown."""
    return f"<{url.replace('<', '%3C').replace('>', '%3E')}>"


def quoted(said: bytes | str, most: int, *, is_cut: bool = False) -> str:
    """Return a service's response as one short line. `is_cut`: `said` is only its beginning."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return shortened(one_line(text), most, is_cut=is_cut)


def duration(milliseconds: int) -> str:
    """`23 s`, `2 min 5 s`, `3 h 0 min`, `4 d 1 h`; a provider whose clock is behind took `0 s`."""
    left = max(milliseconds, 0) // 1000
    minutes, second = divmod(left, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"


def moment(instant: int, zone: tzinfo) -> str:
    """Integer milliseconds as a date and time that people read, and where it is that time."""
    return display.moment(instant, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def is_link(url: str) -> bool:
    """May this stand where people click? A provider's text could be `javascript:`."""
    return url.startswith(("https://", "http://")) and url.isprintable() and " " not in url
