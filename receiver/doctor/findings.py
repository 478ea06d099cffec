"""What a check found: how it stands, in one line, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a thing stands."""

    OK = "ok"
    WARNING = "warning"  # it works, or cannot be told; somebody should look
    FAILED = "failed"  # something will not work


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `todo` is empty where nothing is to be done."""

    check: str  # what was looked at, such as "disk"
    verdict: Verdict
    said: str
    todo: str = ""

    def as_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


def ok(check: str, said: str) -> Finding:
    return Finding(check, Verdict.OK, said)


def warning(check: str, said: str, todo: str) -> Finding:
    return Finding(check, Verdict.WARNING, said, todo)


def failed(check: str, said: str, todo: str = "") -> Finding:
    return Finding(check, Verdict.FAILED, said, todo)
