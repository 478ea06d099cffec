"""Checks arguments and handles output errors, so that no command ends with a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper


def not_utf8(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is not UTF-8, in a printable form; None if there is none."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return None


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
    """Discard what is left in the buffer, because Python would report it as an error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
