"""What `POST /api/tasks` is sent, checked: pictures as URLs or raw Base64, never paths."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.providers.json_body import decode_strictly
from submitter import garments, images, orders
from submitter.errors import InputError
from submitter.garments import Sent
from submitter.orders import Order
from submitter.providers import Provider
from submitter.refusals import InvalidRequest
from submitter.settings import DEFAULT_ACCOUNT

T = TypeVar("T")
LONGEST_NAME = 64  # characters of a provider's or an account's name
USE = "give an http(s) URL or the picture itself as raw Base64"


class _Cloth(fields.Field[tuple[str, ...]]):
    """One picture, or a list of at most two."""

    def __init__(self) -> None:
        several = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}
        super().__init__(required=True, metadata={"anyOf": [{"type": "string"}, several]})

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        given = value if isinstance(value, list) else [value]
        if not 1 <= len(given) <= 2 or not all(isinstance(one, str) for one in given):
            raise ValidationError("Not a string, or a list of one or two strings.")
        return tuple(given)


class NewTask(Schema):
    """A try-on: pictures as URLs or raw Base64."""

    class Meta:
        unknown = RAISE

    provider = fields.String(required=True, validate=validate.Length(1, LONGEST_NAME))
    human = fields.String(required=True)
    cloth = _Cloth()
    reference = fields.String(load_default=None, allow_none=True)
    model = fields.String(load_default=None, allow_none=True)
    account = fields.String(load_default=DEFAULT_ACCOUNT, validate=validate.Length(1, LONGEST_NAME))


@dataclass(frozen=True, slots=True)
class Upload:
    """A request whose shape is right; its pictures are not looked at yet."""

    provider: str
    human: str
    cloth: tuple[str, ...]
    reference: str | None
    model: str | None
    account: str


def read(body: bytes) -> Upload:
    """The request in a body. Raises NotJson, and InvalidRequest naming each field's fault."""
    try:
        return Upload(**NewTask().load(decode_strictly(body)))
    except NotTheProtocol as error:
        raise InvalidRequest({"body": str(error)}) from None
    except ValidationError as error:
        messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
        faults = {name[:80]: " ".join(map(str, texts)) for name, texts in messages.items()}
        raise InvalidRequest(faults) from None


def order(room: Provider, upload: Upload, within: float) -> Order:
    """The order for this provider, its pictures checked as files are.

    Pictures that have to be fetched, to be merged, are so within that many seconds. Raises
    InvalidRequest with all that is wrong.
    """
    ends_at = time.monotonic() + within

    def fetch(field: str, url: str) -> bytes:
        return images.fetch(field, url, within=max(ends_at - time.monotonic(), 0.001))

    faults: dict[str, str] = {}
    _tried(faults, lambda: orders.check_texts(upload.reference, None))
    _tried(faults, lambda: _check_model(room, upload.model))
    human = _tried(faults, lambda: _sendable("human", upload.human))
    cloth = _tried(faults, lambda: _cloth(room, upload, fetch))
    if human is not None:
        _tried(faults, lambda: room.pictures.check("human", human))
    if cloth is not None:
        _tried(faults, lambda: room.pictures.check("cloth", cloth.cloth))
    if human is None or cloth is None or faults:
        raise InvalidRequest(faults)
    return Order(human, cloth.cloth, upload.reference, upload.model, cloth.merged)


def _check_model(room: Provider, model: str | None) -> None:
    orders.check_texts(None, model)
    if model is not None and room.default_model is None:
        raise InputError("model", f"{room.name} takes no model; leave it off")


def _cloth(room: Provider, upload: Upload, fetch: Callable[[str, str], bytes]) -> Sent:
    chosen = garments.chosen(upload.cloth, room, upload.model or room.default_model)
    if len(chosen) == 1:
        return Sent(_sendable("cloth", chosen[0].picture))
    upper, lower = _loaded([garment.picture for garment in chosen], fetch)
    return garments.together(upper, lower)


def _loaded(pictures: Sequence[str], fetch: Callable[[str, str], bytes]) -> list[bytes]:
    """The bytes of both garments; those that can be checked without fetching come first."""
    contents = [None if _is_url(given) else _decoded("cloth", given) for given in pictures]
    for position, given in enumerate(pictures):
        if _is_url(given):
            contents[position] = images.load("cloth", given, fetch)
    return [content for content in contents if content is not None]


def _sendable(field: str, given: str) -> str:
    if _is_url(given):
        return images.prepare(field, given)
    return base64.b64encode(_decoded(field, given)).decode("ascii")


def _is_url(given: str) -> bool:
    """Is it meant as one? Base64 has no colon; whether it can be used is looked at later."""
    return re.match(r"[^:/]{0,20}://", given) is not None


def _decoded(field: str, given: str) -> bytes:
    """The picture in raw Base64, checked as a file would be. Raises InputError."""
    if given[:5].lower() == "data:":
        raise InputError(field, f"is a data: URL; {USE}, without the part before the comma")
    try:
        content = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(field, f"is neither; {USE}, without line breaks") from None
    if not content:
        raise InputError(field, f"is empty; {USE}")
    images.check(field, content)
    return content


def _tried(faults: dict[str, str], read: Callable[[], T]) -> T | None:
    """What `read` returns; or None, and the fault is noted by its field."""
    try:
        return read()
    except InputError as error:
        faults[error.field] = error.message
        return None
