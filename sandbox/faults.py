"""What may be wrong with a result, and with the answer to a create."""

from __future__ import annotations

from enum import Enum, auto


class ResultFault(Enum):
    """What the URL of a result gives."""

    EXPIRED = auto()  # as told by the callback; a query tells a fresh URL that works
    MISSING = auto()
    SLOW = auto()
    HUGE = auto()
    NOT_A_PICTURE = auto()


class AnswerFault(Enum):
    """What the caller of a create gets, though the task runs (but for BUSY)."""

    BUSY = auto()  # refused: too many tasks run
    ERROR = auto()  # the provider's gateway answers 502
    LOST = auto()  # the connection is closed without an answer
