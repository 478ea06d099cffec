"""Log lines are structured and contain no secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import structlog
from gunicorn.config import Config

from receiver.observability import logs
from receiver.signing.callback_urls import mint
from receiver.web.server.gunicornlog import RedactedLogger
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    token = "canary-" + "token"
    try:
        int(f"a mistake of {len(token)} letters")
    except ValueError:
        structlog.get_logger().exception("broke", task="task-1")
    line = capsys.readouterr().err
    document = json.loads(line)
    assert (document["event"], document["task"], document["level"]) == ("broke", "task-1", "error")
    assert "a mistake of 12 letters" in line
    assert "canary" not in line


def test_a_secret_in_a_line_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    token = mint(SECRET, "kling", "task-1")
    try:
        int(f"https://a.example/0.png?Signature={token}")
    except ValueError as error:
        structlog.get_logger().exception(
            "broke",
            url=f"https://shop.example/callbacks/kling/task-1/{token}",
            nested={"headers": [("X-Original-URI", f"/callbacks/kling/task-1/{token}")]},
            unusual=error,
            header="Bearer canarycanary",
        )
    line = capsys.readouterr().err
    assert json.loads(line)["url"] == "https://shop.example/callbacks/kling/task-1/…"
    assert token not in line
    assert "canary" not in line


def test_gunicorn_logs_no_token() -> None:
    token = mint(SECRET, "kling", "task-1")
    logger = RedactedLogger(Config())
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int(f"/callbacks/kling/task-1/{token}")
    fault = (caught.type, caught.value, caught.tb)
    words = ("GET", f"/callbacks/kling/task-1/{token}?signature=canary")
    for handler in logger.error_log.handlers:
        record = logging.LogRecord("g", logging.ERROR, "", 0, "Error handling %s %s", words, fault)
        line = handler.format(record)
        assert "Error handling GET /callbacks/kling/task-1/…" in line
        assert "ValueError" in line
        assert token not in line
        assert "canary" not in line
    assert logger.error_log.handlers


@pytest.mark.parametrize(
    ("form", "is_terminal", "is_json"),
    [
        ("auto", False, True),
        ("auto", True, False),
        ("json", True, True),
        ("console", False, False),
    ],
)
def test_the_format_is_json_unless_standard_error_is_a_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    is_terminal: bool,
    is_json: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    logs.configure(form=form)
    structlog.get_logger().info("something", task="task-1")
    line = capsys.readouterr().err
    assert line.startswith("{") is is_json
    assert ("\x1b[" in line) is (is_terminal and not is_json)
    assert "task-1" in line


def test_lines_of_libraries_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form="json")
    logger = logging.getLogger("a.library")
    logger.propagate = False  # pytest adds a handler to the root logger; our processes have none
    token = mint(SECRET, "kling", "task-1")
    with structlog.contextvars.bound_contextvars(delivery=7):
        logger.warning("retry %s", f"/callbacks/kling/task-1/{token}")
    document = json.loads(capsys.readouterr().err)
    timestamp = document.pop("timestamp")
    assert timestamp.endswith("Z")
    assert document == {
        "event": "retry /callbacks/kling/task-1/…",
        "level": "warning",
        "logger": "a.library",
        "delivery": 7,
    }


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("console", False)])
def test_gunicorns_lines_have_the_same_format(
    monkeypatch: pytest.MonkeyPatch, form: str, is_json: bool
) -> None:
    monkeypatch.setenv("LOG_FORMAT", form)
    record = logging.LogRecord("gunicorn.error", logging.INFO, "", 0, "Booting %d", (7,), None)
    handler = RedactedLogger(Config()).error_log.handlers[-1]
    assert handler.stream is logs.STDERR  # nor does it wait for a reader
    line = handler.format(record)
    assert "Booting 7" in line
    if is_json:
        assert json.loads(line)["logger"] == "gunicorn.error"
    assert line.startswith("{") is is_json


def test_a_logger_that_was_used_earlier_follows_a_later_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = structlog.get_logger()
    logs.configure(form="json")
    logger.info("before")
    logs.configure(lambda line: line.replace("canary", "…"), form="console")
    logger.info("after", key="canary")
    before, after = capsys.readouterr().err.splitlines()
    assert json.loads(before)["event"] == "before"
    assert not after.startswith("{")
    assert "canary" not in after


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (1_765_519_851_000_042_999, "2025-12-12T06:10:51.000042Z"),
        (1_765_519_851_999_999_999, "2025-12-12T06:10:51.999999Z"),
        (1_765_519_852_000_000_000, "2025-12-12T06:10:52.000000Z"),
        (951_782_400_500_000_000, "2000-02-29T00:00:00.500000Z"),
    ],
)
def test_a_line_contains_its_time_in_microseconds(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    nanoseconds: int,
    shown: str,
) -> None:
    logs.configure(form="json")
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)
    structlog.get_logger().info("something")
    assert json.loads(capsys.readouterr().err)["timestamp"] == shown


def test_a_value_that_is_not_json_is_shown_as_its_repr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(form="json")
    structlog.get_logger().info("something", where=Path("/a"), what=(1, None))
    document = json.loads(capsys.readouterr().err)
    assert document["where"] == repr(Path("/a"))
    assert document["what"] == [1, None]


def test_a_line_that_cannot_be_written_causes_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure(form="json")
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr(sys, "stderr", full)
    structlog.get_logger().info("something")
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        full.close()


@contextmanager
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[BinaryIO]:
    """Replace standard error with a full pipe, and yield its reading end."""
    logs.configure(form="json")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * select.PIPE_BUF)
    os.set_blocking(writing, True)  # as a blocking pipe; from here on, every writer waits
    with os.fdopen(writing, "w") as pipe, os.fdopen(reading, "rb") as reader:
        monkeypatch.setattr(sys, "stderr", pipe)
        yield reader


def log_in_thread(reader: BinaryIO, *events: str) -> None:
    """Log these lines in a thread, which must not block."""
    thread = threading.Thread(target=say, args=events, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    was_stopped = thread.is_alive()
    if was_stopped:
        os.read(reader.fileno(), 1 << 20)
        thread.join(PATIENCE)
    assert not was_stopped


def lines_of(reader: BinaryIO) -> list[bytes]:
    return os.read(reader.fileno(), 1 << 20).splitlines()


def events_of(lines: list[bytes]) -> list[tuple[str, int | None]]:
    documents = [json.loads(line) for line in lines]
    return [(document["event"], document.get("lines")) for document in documents]


def test_a_log_without_a_reader_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with unread(monkeypatch) as reader:
        log_in_thread(reader, "one", "two")
        lines_of(reader)
        log_in_thread(reader, "three", "four")
        assert events_of(lines_of(reader)) == [(logs.DROPPED, 2), ("three", None), ("four", None)]


def test_a_long_line_of_which_a_part_fits_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines after it are complete."""
    with unread(monkeypatch) as reader:
        os.read(reader.fileno(), select.PIPE_BUF)
        log_in_thread(reader, "long" * 10_000, "two")
        assert b"longlong" in lines_of(reader)[0]
        log_in_thread(reader, "three")
        end_of_the_long_one, *lines = lines_of(reader)
        assert end_of_the_long_one == b""
        assert events_of(lines) == [(logs.DROPPED, 2), ("three", None)]


def test_a_long_line_is_written_completely_if_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with unread(monkeypatch) as reader:
        lines_of(reader)
        log_in_thread(reader, "long" * 5_000, "ü" * 5_000)
        assert events_of(lines_of(reader)) == [("long" * 5_000, None), ("ü" * 5_000, None)]


def test_dropped_lines_are_counted_until_the_count_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that reads small amounts must not cause the loss of the count."""
    with unread(monkeypatch) as reader:
        log_in_thread(reader, "one", "two")
        os.read(reader.fileno(), select.PIPE_BUF)
        # a part of this line fits, and of the line before it with the count
        log_in_thread(reader, "long" * 10_000)
        lines_of(reader)
        log_in_thread(reader, "four")
        assert events_of(lines_of(reader)[1:]) == [(logs.DROPPED, 3), ("four", None)]


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_long_line_is_one_write_to_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, letter: str
) -> None:
    """Lines of other processes must not be written between its parts."""
    logs.configure(form="console")
    sizes: list[int] = []

    class Counted(io.FileIO):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    with io.TextIOWrapper(io.BufferedWriter(Counted(tmp_path / "web.log", "w")), "utf-8") as file:
        monkeypatch.setattr(sys, "stderr", file)
        say(letter * 4000)
    assert letter * 4000 in (tmp_path / "web.log").read_text("utf-8")
    assert len(sizes) == 1


def say(*events: str) -> None:
    for event in events:
        structlog.get_logger().info(event)
