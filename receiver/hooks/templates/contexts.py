"""The contexts of templates: how values are escaped, and how the rendered text is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum

ONE_LINE = "use | one_line to replace line breaks in a value"
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")


class Context(StrEnum):
    """The format of a text, which decides how values are escaped and how the result is checked."""

    TEXT = "text"  # nothing is escaped
    LINE = "line"  # a subject: text without line breaks
    HEADER = "header"  # the value of an HTTP header
    HTML = "html"
    JSON = "json"
    FORM = "form"  # application/x-www-form-urlencoded
    SLACK = "slack"  # Slack's mrkdwn
    SLACK_JSON = "slack_json"  # JSON in which strings are mrkdwn, unless their key ends with `url`


class TemplateError(Exception):
    """A template is invalid, or cannot be rendered; `problems` has one line for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def at_line(line: int | None, problem: str) -> str:
    """Return the problem with the line of the template, if the line is known."""
    return f"line {line}: {problem}" if line else problem


def context_of(content_type: str) -> Context:
    """Return how to escape values in a body with this Content-Type."""
    media_type = content_type.partition(";")[0].strip().lower()
    subtype = media_type.partition("/")[2]
    if subtype == "json" or subtype.endswith("+json"):
        return Context.JSON
    if subtype in ("html", "xml") or subtype.endswith("+xml"):
        return Context.HTML
    return Context.FORM if subtype == "x-www-form-urlencoded" else Context.TEXT


def check_result(text: str, context: Context) -> None:
    """Raise TemplateError if the rendered text is not valid in its context."""
    check = _CHECKS.get(context)
    problem = check(text) if check else None
    if problem:
        raise TemplateError(problem)


def _line_problem(text: str) -> str | None:
    return f"contains a line break; {ONE_LINE}" if len(f"{text}.".splitlines()) > 1 else None


def _header_problem(text: str) -> str | None:
    if _HEADER_VALUE.match(text):
        return None
    if problem := _line_problem(text):
        return problem
    wrong = next(character for character in text if not _HEADER_VALUE.match(character))
    return f"contains U+{ord(wrong):04X}, but a header is ASCII; use | urlencode for such values"


def _json_problem(text: str) -> str | None:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return "is JSON that is nested too deeply"
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except ValueError as error:
        return f"is not JSON: {error}"
    return None


def _blocks_problem(text: str) -> str | None:
    if problem := _json_problem(text):
        return problem
    return None if text.lstrip().startswith("[") else "is not a list of blocks; use [ … ]"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it contains {name}")


_CHECKS: Mapping[Context, Callable[[str], str | None]] = {
    Context.LINE: _line_problem,
    Context.HEADER: _header_problem,
    Context.JSON: _json_problem,
    Context.SLACK_JSON: _blocks_problem,
}
