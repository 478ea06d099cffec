"""Formats events as CloudEvents 1.0, with the attributes as JSON members or as HTTP headers.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from marshmallow import ValidationError

SOURCE = "/callback-receiver"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
DATA_TYPE = "application/json"
HEADER_PREFIX = "ce-"
# All other characters are percent-encoded in a header: a space, `"`, `%`, and everything that is
# not printable ASCII.
SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
LONGEST_SOURCE = 500  # characters


def check_source(value: str) -> None:
    """Validate the URI reference that identifies the sender of the events."""
    try:
        urlsplit(value)
    except ValueError:
        value = ""
    if len(value) > LONGEST_SOURCE or not _URI_REFERENCE.fullmatch(value):
        raise ValidationError("is not a URI; use one like https://callbacks.shop.example")


def envelope(document: Mapping[str, Any], subject: str, source: str | None) -> dict[str, str]:
    """Return the CloudEvents attributes of an event or an alert, without the data."""
    return {
        "specversion": "1.0",
        "id": document["id"],
        "source": source or SOURCE,
        "type": document["type"],
        "subject": subject,
        "time": document["occurred_at"],
        "datacontenttype": DATA_TYPE,
    }


def headers(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for the binary mode, in which the body contains only the data."""
    encoded = {
        f"{HEADER_PREFIX}{name}": quote(value, safe=SAFE, errors="replace")
        for name, value in attributes.items()
        if name != "datacontenttype"
    }
    return {"Content-Type": attributes["datacontenttype"], **encoded}
