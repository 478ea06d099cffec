"""Reads the body of `POST /api/tasks`, whose pictures are URLs or raw Base64, never paths."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.providers.json_body import decode_strictly
from submitter import metadata as own_data
from submitter.api.errors import InvalidRequest
from submitter.errors import InputError
from submitter.pictures import images
from submitter.pictures.garments import ClothPicture, combine_garments, select_garments
from submitter.pictures.inputs import (
    LONGEST_TEXT,
    TEXT,
    TryOnInputs,
    check_model,
    check_texts,
    without_blanks,
)
from submitter.providers import PROVIDERS, Provider
from submitter.settings import ACCOUNT, DEFAULT_ACCOUNT
from submitter.task_creation import check_once

T = TypeVar("T")
Fetch = Callable[[str, str], bytes]
LONGEST_NAME = 64  # characters of the name of a provider or an account
ACCEPTED = "an http(s) URL or the picture itself as raw Base64"
SHORTEST_PICTURE = 100  # characters of Base64; the smallest valid PNG has more
_METADATA = {
    # apispec passes on only what is below `anyOf` unchanged.
    "anyOf": [
        {
            "type": "object",
            "propertyNames": {"pattern": r"^[^\u0000]*$"},
            "additionalProperties": {"$ref": "#/components/schemas/JsonValue"},
        },
        {"type": "null"},
    ],
    "description": f"Your own data about the task, of up to {own_data.MAX_BYTES} bytes as compact "
    "JSON in UTF-8. Strings cannot contain NUL. Events, responses and hooks return it.",
}


def _picture(label: str = "") -> dict[str, Any]:
    """Return the JSON schema of a picture, which may have to begin with a label."""
    url = rf"^{label}https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{{1,4}})?(/[!-~]*)?$"
    base64_text = {
        "pattern": rf"^{label}[A-Za-z0-9+/]+={{0,2}}$",
        "minLength": SHORTEST_PICTURE,
        "contentEncoding": "base64",
        "format": "picture",
        "description": f"A JPEG or PNG of up to 10 MB, with at least {images.MIN_SIDE} px a side.",
    }
    forms = [{"pattern": url, "description": "A URL."}, base64_text]
    return {"type": "string", "anyOf": forms, "description": f"Give {ACCEPTED}."}


def _one_cloth() -> dict[str, Any]:
    picture = _picture("((upper|lower|dress):)?")
    return {"anyOf": [picture, {"type": "array", "items": picture, "minItems": 1, "maxItems": 1}]}


def _two_cloths() -> dict[str, Any]:
    kinds = [_picture(f"{kind}:") for kind in ("upper", "lower")]
    # apispec passes on only what is below `anyOf` unchanged.
    return {"anyOf": [{"type": "array", "prefixItems": kinds, "minItems": 2, "maxItems": 2}]}


class _Cloth(fields.Field[tuple[str, ...]]):
    """One picture, or a list of one or two."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, ...]:
        pictures = value if isinstance(value, list) else [value]
        if not 1 <= len(pictures) <= 2 or not all(isinstance(one, str) for one in pictures):
            raise ValidationError("Not a string, or a list of one or two strings.")
        return tuple(pictures)


class _Switch(fields.Boolean):
    """true or false; no other value, which marshmallow would convert."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Not true or false.")
        return value


class _Metadata(fields.Field[dict[str, Any]]):
    """The caller's own data about the task: a JSON object of up to 4 kB."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            return own_data.check(value)
        except InputError as error:
            raise ValidationError(error.message) from None


_text = partial(
    fields.String,
    load_default=None,
    allow_none=True,
    metadata={"pattern": TEXT, "minLength": 1, "maxLength": LONGEST_TEXT},
)


class NewTask(Schema):
    """A try-on: pictures as URLs or raw Base64."""

    class Meta:
        unknown = RAISE

    provider = fields.String(required=True, validate=validate.Length(1, LONGEST_NAME))
    human = fields.String(required=True, metadata=_picture())
    cloth = _Cloth(required=True, metadata=_one_cloth())
    reference = _text()
    model = _text()
    account = fields.String(
        load_default=DEFAULT_ACCOUNT,
        validate=validate.Length(1, LONGEST_NAME),
        metadata={"pattern": f"^{ACCOUNT.pattern}$"},
    )
    once = _Switch(
        load_default=False,
        metadata={"description": "Refuse (409) if the reference was submitted before."},
    )
    metadata = _Metadata(load_default=dict, allow_none=True, metadata=_METADATA)


def documented_schemas() -> tuple[type[Schema], ...]:
    """Return the schemas of the body: of one garment with and without a model, and of two.

    Each has a variant with `once`, which requires a reference.
    """
    with_model = [name for name, adapter in PROVIDERS.items() if adapter.default_model]
    without = [name for name in PROVIDERS if name not in with_model]
    combining = sorted({model for adapter in PROVIDERS.values() for model in adapter.combining})
    of_combining = [name for name, adapter in PROVIDERS.items() if adapter.combining]

    class NewTaskWithoutModel(NewTask):
        """A try-on at a provider without a choice of models."""

        provider = _one_of(without)
        once = _no_once()
        model = fields.String(metadata={"type": "null"})

    class NewTaskOfTwoGarments(NewTask):
        """A try-on of an upper and a lower garment, which are merged into one picture."""

        provider = _one_of(of_combining)
        once = _no_once()
        model = _one_of(combining)
        cloth = _Cloth(required=True, metadata=_two_cloths())

    class NewTaskOfOneGarment(NewTask):
        """A try-on of one garment."""

        provider = _one_of(with_model)
        once = _no_once()

    found = {NewTaskOfOneGarment: with_model, NewTaskWithoutModel: without}
    found[NewTaskOfTwoGarments] = combining
    schemas = [schema for schema, names in found.items() if names]
    return (*schemas, *map(_with_once, schemas))


def _with_once(schema: type[NewTask]) -> type[Schema]:
    limits = {"pattern": TEXT, "minLength": 1, "maxLength": LONGEST_TEXT}
    members = {
        "__doc__": f"{schema.__doc__} A reference that was submitted before is refused.",
        "reference": fields.String(required=True, metadata=limits),
        "once": fields.Boolean(required=True, metadata={"enum": [True]}),
    }
    return type(f"{schema.__name__}Once", (schema,), members)


def _no_once() -> _Switch:
    return _Switch(load_default=False, metadata={"enum": [False]})


def _one_of(names: Sequence[str]) -> fields.String:
    return fields.String(required=True, validate=validate.OneOf(names))


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A valid body whose pictures have not been checked yet."""

    provider: str
    human: str
    cloth: tuple[str, ...]
    reference: str | None
    model: str | None
    account: str
    metadata: Mapping[str, Any] | None = None
    once: bool = False


def read_request(body: bytes) -> TaskRequest:
    """Parse a body. Raises NotJson, and InvalidRequest with the problem of each field."""
    try:
        return TaskRequest(**NewTask().load(decode_strictly(body)))
    except NotTheProtocol as error:
        raise InvalidRequest({"body": str(error)}) from None
    except ValidationError as error:
        messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
        problems = {name[:80]: " ".join(map(str, texts)) for name, texts in messages.items()}
        raise InvalidRequest(problems) from None


def inputs_of(adapter: Provider, request: TaskRequest, fetch_seconds: float) -> TryOnInputs:
    """Check the request for this provider and return its inputs.

    Garments to be merged are fetched within `fetch_seconds`. Raises InvalidRequest with all
    problems.
    """
    ends_at = time.monotonic() + fetch_seconds

    def fetch(field: str, url: str) -> bytes:
        return images.fetch(field, url, within=max(ends_at - time.monotonic(), 0.001))

    problems: dict[str, str] = {}
    _collect(problems, lambda: check_texts(request.reference, None))
    _collect(problems, lambda: check_texts(None, request.model))
    _collect(problems, lambda: check_model(adapter, request.model))
    if request.once:
        _collect(problems, lambda: check_once(without_blanks(request.reference)))
    human = _collect(problems, lambda: _prepare("human", request.human))
    cloth = _collect(problems, lambda: _prepare_cloth(adapter, request, fetch))
    if human is not None:
        _collect(problems, lambda: adapter.pictures.check("human", human))
    if cloth is not None:
        _collect(problems, lambda: adapter.pictures.check("cloth", cloth.cloth))
    if human is None or cloth is None or problems:
        raise InvalidRequest(problems)
    return TryOnInputs(
        human,
        cloth.cloth,
        without_blanks(request.reference),
        request.model,
        cloth.merged,
        request.metadata or {},
    )


def _prepare_cloth(adapter: Provider, request: TaskRequest, fetch: Fetch) -> ClothPicture:
    garments = select_garments(request.cloth, adapter, request.model or adapter.default_model)
    pictures = [garment.picture for garment in garments]
    if len(pictures) == 1:
        return ClothPicture(_prepare("cloth", pictures[0]))
    # Base64 is checked first, so that nothing is fetched for a request that is invalid anyway.
    contents = {given: _decode("cloth", given) for given in pictures if not _is_url(given)}
    for url in pictures:
        if url not in contents:
            contents[url] = images.load("cloth", url, fetch)
    upper, lower = (contents[given] for given in pictures)
    return combine_garments(upper, lower)


def _prepare(field: str, given: str) -> str:
    if _is_url(given):
        return images.prepare(field, given)
    return base64.b64encode(_decode(field, given)).decode("ascii")


def _is_url(given: str) -> bool:
    """Return whether the text is meant as a URL, which may be invalid. Base64 has no colon."""
    return re.match(r"[^:/]{0,20}://", given) is not None


def _decode(field: str, given: str) -> bytes:
    """Decode a picture from raw Base64 and check it. Raises InputError."""
    if given[:5].lower() == "data:":
        raise InputError(
            field, f"is a data: URL; give {ACCEPTED}, without the part up to the comma"
        )
    try:
        content = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(
            field, f"is neither a URL nor Base64; give {ACCEPTED}, without line breaks"
        ) from None
    if not content:
        raise InputError(field, f"is empty; give {ACCEPTED}")
    images.check(field, content)
    return content


def _collect(problems: dict[str, str], check: Callable[[], T]) -> T | None:
    """Return the result of `check`, or store its problem by field and return None."""
    try:
        return check()
    except InputError as error:
        problems.setdefault(error.field, error.message)
        return None
