"""What every command does with its arguments and its output, so that none ends in a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # its encoding may lack characters of the record
            stream.reconfigure(errors="backslashreplace")
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
