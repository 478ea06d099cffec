"""A Slack incoming webhook with Slack's limits, which keeps the newest messages."""

from __future__ import annotations

import itertools
import json
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.bounded_store import BoundedStore
from sandbox.clock import now_ms
from sandbox.scenarios.faults import SlackFault

KEPT = 200
HEAVIEST = 32 * 1024 * 1024
# Slack API reference: chat.postMessage and "Reference: blocks".
MOST_TEXT = 40_000
MOST_BLOCKS = 50
MOST_SECTION_TEXT = 3_000
MOST_FIELDS, MOST_FIELD_TEXT = 10, 2_000
MOST_HEADER_TEXT = 150
MOST_IMAGE_URL, MOST_ALT_TEXT = 3_000, 2_000
MOST_ELEMENTS = {"context": 10, "actions": 25}


class SlackRefusalError(ValueError):
    """Slack would reject the message. The text is Slack's error code."""


@dataclass(frozen=True)
class SlackMessage:
    number: int
    received_at: int  # Unix milliseconds
    webhook: str
    payload: dict[str, Any]
    size: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class SlackInbox:
    def __init__(self) -> None:
        self._messages: BoundedStore[int, SlackMessage] = BoundedStore(
            KEPT, HEAVIEST, lambda kept: kept.size
        )
        self._numbers = itertools.count(1)
        self._faults: deque[SlackFault] = deque(maxlen=KEPT)

    def refuse(self, fault: SlackFault) -> None:
        """Apply this fault to one more message, until another version of it is accepted."""
        self._faults.append(fault)

    def messages(self) -> list[SlackMessage]:
        """Return the stored messages, oldest first."""
        return self._messages.values()

    def post(self, webhook: str, body: bytes) -> SlackMessage:
        """Store the message; raise SlackRefusalError if Slack would reject it."""
        payload = read(body)
        if self._faults and payload.get("blocks"):
            raise SlackRefusalError("invalid_blocks")
        if self._faults:
            self._faults.popleft()
        message = SlackMessage(next(self._numbers), now_ms(), webhook, payload, len(body))
        self._messages.put(message.number, message)
        return message


def read(body: bytes) -> dict[str, Any]:
    """Return the parsed payload; raise SlackRefusalError if Slack would reject it."""
    try:
        payload = json.loads(body)
    except ValueError:
        raise SlackRefusalError("invalid_payload") from None
    if not isinstance(payload, dict):
        raise SlackRefusalError("invalid_payload")
    _check(payload)
    return payload


def _check(payload: dict[str, Any]) -> None:
    text, blocks = payload.get("text"), payload.get("blocks", [])
    if not text and not blocks and not payload.get("attachments"):
        raise SlackRefusalError("no_text")
    if text is not None and not _fits(text, MOST_TEXT):
        raise SlackRefusalError("msg_too_long" if isinstance(text, str) else "invalid_payload")
    if not isinstance(blocks, list) or len(blocks) > MOST_BLOCKS:
        raise SlackRefusalError("invalid_blocks")
    if not all(isinstance(block, dict) and is_valid_block(block) for block in blocks):
        raise SlackRefusalError("invalid_blocks")


def is_valid_block(block: dict[str, Any]) -> bool:
    """Return whether Slack accepts this block."""
    match block.get("type"):
        case "section":
            return _is_section(block)
        case "header":
            return _is_text(block.get("text"), MOST_HEADER_TEXT, ("plain_text",))
        case "image":
            return _is_image(block)
        case "context" | "actions" as kind:
            elements = block.get("elements")
            return isinstance(elements, list) and 1 <= len(elements) <= MOST_ELEMENTS[kind]
        case kind:
            return kind == "divider"


def _is_section(block: dict[str, Any]) -> bool:
    text, fields = block.get("text"), block.get("fields", [])
    if not isinstance(fields, list) or len(fields) > MOST_FIELDS or (text is None and not fields):
        return False
    text_fits = text is None or _is_text(text, MOST_SECTION_TEXT)
    accessory = block.get("accessory")
    accessory_fits = not _is_kind(accessory, "image") or _is_image(accessory)
    return text_fits and accessory_fits and all(_is_text(f, MOST_FIELD_TEXT) for f in fields)


def _is_image(image: Any) -> bool:
    has_source = _fits(image.get("image_url"), MOST_IMAGE_URL) or "slack_file" in image
    return has_source and _fits(image.get("alt_text"), MOST_ALT_TEXT)


def _is_kind(element: Any, kind: str) -> bool:
    return isinstance(element, dict) and element.get("type") == kind


def _is_text(text: Any, most: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> bool:
    return isinstance(text, dict) and text.get("type") in kinds and _fits(text.get("text"), most)


def _fits(value: Any, most: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= most
