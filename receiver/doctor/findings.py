"""The result of one check: its verdict, what was found, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The result of a check in one word."""

    OK = "ok"
    WARNING = "warning"  # works, or could not be checked; an operator should look at it
    FAILED = "failed"  # something will not work


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. The names are those of the JSON output."""

    check: str  # what was checked, such as "disk"
    verdict: Verdict
    said: str  # what was found
    todo: str = ""  # what to do; empty if nothing is to be done

    def as_json(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


def ok(check: str, found: str) -> Finding:
    return Finding(check, Verdict.OK, found)


def warning(check: str, found: str, todo: str) -> Finding:
    return Finding(check, Verdict.WARNING, found, todo)


def failed(check: str, found: str, todo: str = "") -> Finding:
    return Finding(check, Verdict.FAILED, found, todo)
