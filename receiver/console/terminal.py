"""Checks arguments and handles output errors, so that no command ends with a traceback."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO

GLUE = "\0"  # replaces a space at which a line must not be broken
UNIT = re.compile(r"(?<=[0-9]) (?=(?:s|ms|min|h|d|bytes?|[kMG]B)\b)")


def not_utf8(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is not UTF-8, in a printable form; None if there is none."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None


def fitting(text: str, stream: TextIO, before: int = 0, indent: int = 2) -> str:
    """Return the text; if the stream is a terminal, broken between words to fit its width.

    `before` is the width of the text before it, and `indent` the indentation of all lines but the
    first. A number stays with its unit, and a text with a program in quotes is not broken, because
    it could not be pasted otherwise.
    """
    if not stream.isatty() or " -c " in text:
        return text
    width = max(shutil.get_terminal_size().columns, indent + 1)
    lines = textwrap.wrap(
        "x" * before + UNIT.sub(GLUE, text),  # spaces at the beginning would be removed
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace(GLUE, " ")[before:]


@contextmanager
def output(complain: Callable[[Iterable[str]], None], leave: Callable[[], None]) -> Iterator[None]:
    """Run a command; if standard output cannot be written, report that in one line and `leave`.

    A closed pipe is not reported: its reader has stopped reading.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # its encoding may lack characters of the record
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        leave()
    except OSError as error:
        complain([f"the output could not be written: {error.strerror}"])
        _discard_output()
        leave()


def _discard_output() -> None:
    """Discard the rest of the buffer, which Python would report as an error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
