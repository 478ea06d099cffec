"""Faults of a result, of the response to a create request, of an e-mail and of a Slack message."""

from __future__ import annotations

from enum import Enum, auto


class ResultFault(Enum):
    """The response of a result's URL."""

    EXPIRED = auto()  # 403, like CloudFront and Aliyun for an expired signature
    EXPIRED_400 = auto()  # like Google Cloud Storage
    EXPIRED_401 = auto()
    GONE = auto()  # 410
    SIGN_IN = auto()  # redirects to a page
    SECOND_MISSING = auto()  # two outputs; the second is EXPIRED
    MISSING = auto()
    SLOW = auto()
    HUGE = auto()
    NOT_A_PICTURE = auto()
    HALF = auto()  # 206
    CUT_SHORT = auto()  # the connection is closed
    OVERLOADED = auto()  # 503
    PROXIED = auto()  # 203; the picture is complete
    RANGE = auto()  # 206; the picture is complete
    RAW_REDIRECT = auto()  # redirects to the picture; Location is raw UTF-8 with spaces around it
    # The response is 200 with a body that is not a plain PNG.
    AVIF = auto()
    BMP = auto()
    TIFF = auto()
    HEIC = auto()
    UNKNOWN_FORMAT = auto()
    TWO_PICTURES = auto()  # a camera's JPEG
    METADATA = auto()  # a PNG with large and broken metadata
    ERROR_CODE = auto()
    JSON = auto()
    SVG = auto()
    UTF_16 = auto()
    BROKEN = auto()  # the end is missing, though the response is complete
    SHORT = auto()

    @property
    def is_healed_by_a_query(self) -> bool:
        """Whether a query returns fresh URLs that work."""
        return self in _HEALED_BY_A_QUERY


_HEALED_BY_A_QUERY = frozenset(
    {
        ResultFault.EXPIRED,
        ResultFault.EXPIRED_400,
        ResultFault.EXPIRED_401,
        ResultFault.GONE,
        ResultFault.SIGN_IN,
        ResultFault.SECOND_MISSING,
    }
)


class AnswerFault(Enum):
    """The response to a create request whose task runs nevertheless (except for BUSY)."""

    BUSY = auto()  # refused: too many running tasks
    ERROR = auto()  # the provider's gateway returns 502
    LOST = auto()  # the connection is closed without a response


class MailFault(Enum):
    """The reason why the mail server rejects the next e-mail until a smaller version is sent."""

    # announced in the response to EHLO; a preview is within the limit, the result is not
    SIZE_LIMIT = auto()
    TOO_LARGE = auto()  # not announced: 552 at the end of DATA for every mail with a picture


class SlackFault(Enum):
    """The reason why Slack rejects the next message until another version is sent."""

    BLOCKS = auto()  # `invalid_blocks`, as for a WebP or a picture that it cannot fetch
