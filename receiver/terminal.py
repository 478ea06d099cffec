"""What every command does with its arguments and its output, so that none ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# What steers a terminal, though JSON allows it: C1 controls, and what turns the direction of text.
STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def json_text(document: Any, indent: int | None = 2) -> str:
    """JSON that steers no terminal; letters of other scripts stay readable."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    safe = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return safe.encode("utf-8", "backslashreplace").decode()  # half a character: \udc80


def not_utf8(arguments: Sequence[str]) -> str | None:
    """The first argument that is no text, as it can be shown; None if all are."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None


@contextmanager
def output(complain: Callable[[Iterable[str]], None], leave: Callable[[], None]) -> Iterator[None]:
    """Around a command: a standard output that cannot be written is one line, and `leave`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has seen enough
        _write_no_more()
        leave()
    except OSError as error:
        complain([f"could not write what was found: {error.strerror}"])
        _write_no_more()
        leave()


def _write_no_more() -> None:
    """What is left in the buffer cannot be written either: Python would say so at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
