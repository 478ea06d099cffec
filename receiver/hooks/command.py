"""Runs a command with the event as JSON on standard input, without a shell, until a deadline.

Exit status 0 is success, and 65 (EX_DATAERR) is a permanent failure. The exit statuses 69
(EX_UNAVAILABLE) and 75 (EX_TEMPFAIL), a signal, the deadline and a missing command are temporary
failures, which the circuit breaker counts. Any other exit status is a content failure: the event is
retried, and other events are not delayed.

A JSON object on standard output is the output for the hooks that wait for this one.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from marshmallow import ValidationError, fields, validate

from receiver.deliveries import Notice
from receiver.errors import ContentFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks import returned_json, wording
from receiver.hooks.base import Done, Preview
from receiver.hooks.options import Options, checked, seconds
from receiver.hooks.returned_json import MAX_PRINTED
from receiver.text.display import encodable, json_ascii, one_line

# sysexits.h
UNACCEPTABLE = 65  # EX_DATAERR
UNAVAILABLE = frozenset({69, 75})  # EX_UNAVAILABLE, EX_TEMPFAIL
MAX_OUTPUT = 2 * 1024  # bytes of standard output and standard error together
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")  # without our secrets
PR_SET_PDEATHSIG = 1  # prctl(2)


def _check_no_nul(value: str) -> None:
    if "\0" in value:
        raise ValidationError("contains a NUL, which no argument can contain")


class CommandOptions(Options):
    """The keys of a hook of type command."""

    command = fields.List(
        fields.String(validate=_check_no_nul),
        required=True,
        validate=validate.Length(min=1, error='is empty; use a list such as ["/opt/shop/done"]'),
    )
    env = fields.Dict(
        keys=fields.String(
            validate=validate.Regexp(r"[A-Za-z_][A-Za-z0-9_]*\Z", error="is not a variable's name")
        ),
        values=fields.String(validate=_check_no_nul),
        load_default=dict,
    )
    cwd = fields.String(load_default=None, validate=_check_no_nul)
    deadline = seconds(60)


class Command:
    """Runs the command once for each attempt; `CALLBACK_EVENT_ID` is the same for all of them."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(CommandOptions(), options)

    def send(self, notice: Notice) -> Done:
        event = json_ascii(notice.as_json()).encode()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        output, status = self._run(event, {**inherited, **self._variables(notice)})
        text = wording.quoted(output.quoted, MAX_OUTPUT, is_cut=len(output.quoted) >= MAX_OUTPUT)
        outcome = f"{describe_status(status)}: {text}" if text else describe_status(status)
        if status == 0:
            return returned_json.printed(outcome, output.standard)
        if status == UNACCEPTABLE:
            raise PermanentFailure(outcome)
        if status < 0 or status in UNAVAILABLE:
            raise TemporaryFailure(outcome)
        raise ContentFailure(outcome)

    def preview(self, notice: Notice) -> Preview:
        """Return the command that `send` would run, the variables that it sets, and its input."""
        command = one_line(shlex.join(self._options["command"]))
        return Preview(command, self._variables(notice), json_ascii(notice.as_json()))

    def _variables(self, notice: Notice) -> dict[str, str]:
        """Return the environment variables that the command does not inherit."""
        file = next((file.url for file in map(notice.file_of, notice.media) if file), "")
        variables = {
            "CALLBACK_EVENT_ID": notice.id,
            "CALLBACK_EVENT_TYPE": f"task.{notice.status}",
            "CALLBACK_TASK_ID": notice.task.id,
            "CALLBACK_PROVIDER": notice.task.provider,
            "CALLBACK_STATUS": notice.status,
            "CALLBACK_REFERENCE": notice.task.reference or "",
            "CALLBACK_FILE": file,
        }
        # The reference comes from outside; variables contain neither NUL nor lone surrogates.
        clean = {name: encodable(text.replace("\0", "")) for name, text in variables.items()}
        return {**self._options["env"], **clean}

    def _run(self, event: bytes, environment: Mapping[str, str]) -> tuple[PrintedOutput, int]:
        """Return what the command printed, and its exit status. Raises TemporaryFailure."""
        end = time.monotonic() + self._options["deadline"]
        with tempfile.TemporaryFile() as stdin:  # not a pipe: the command may ignore its input
            stdin.write(event)
            stdin.seek(0)
            with self._start(stdin, environment) as child:
                try:
                    output = _read(child, end)
                    return output, child.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    limit = self._options["deadline"]
                    text = f"did not end within {limit:g} s, and was killed"
                    raise TimedOut(text) from None
                finally:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)  # also the processes that it started

    def _start(self, stdin: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self._options["command"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._options["cwd"],
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_worker,  # noqa: PLW1509 - calls one function of the loaded libc
            )
        except OSError as error:
            # The command may exist after the next deployment, so the failure is temporary.
            place = error.filename or self._options["command"][0]
            raise TemporaryFailure(f"{place}: {error.strerror}") from None


@dataclass(slots=True)
class PrintedOutput:
    """What a command printed."""

    quoted: bytes = b""  # the beginning of standard output and standard error together
    standard: bytes = b""  # standard output; if longer than MAX_PRINTED, only its beginning

    def add(self, piece: bytes, *, is_standard: bool) -> None:
        """Add bytes that were read from the command."""
        self.quoted += piece[: MAX_OUTPUT - len(self.quoted)]
        if is_standard:
            self.standard += piece[: MAX_PRINTED + 1 - len(self.standard)]


def _read(child: subprocess.Popen[bytes], end: float) -> PrintedOutput:
    """Return what the command prints until it ends, or until `end`.

    Processes that it started may keep its output open; they are not waited for.
    """
    output = PrintedOutput()
    with selectors.DefaultSelector() as selector:
        for stream in (child.stdout, child.stderr):
            assert stream is not None  # noqa: S101 - it is a pipe
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < end:
            has_ended = child.poll() is not None
            ready = selector.select(0 if has_ended else 0.1)
            for key, _ in ready:
                piece = os.read(key.fd, 64 * 1024)
                output.add(piece, is_standard=key.fileobj is child.stdout)
                if not piece:
                    selector.unregister(key.fileobj)
            if has_ended and not ready:
                break
    return output


def describe_status(status: int) -> str:
    """Return an exit status in words. A negative status is a signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_worker() -> None:
    """On Linux, let the kernel kill the command when the worker dies; the delivery is retried."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
