"""The docs, proxy configurations and server settings state the limits that `limits` defines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from receiver.text import limits
from receiver.web import gunicorn
from receiver.web.server.connection_slots import RequestLimits
from submitter import api

ROOT = Path(__file__).parents[2]
UNITS = {"": 1, "k": 1024, "m": 1024**2, "KB": 1024, "KiB": 1024, "MiB": 1024**2, "kB/s": 1000}
BODY, API_BODY = limits.MAX_BODY, limits.MAX_API_BODY

# The groups of each pattern are a number and an optional unit.
STATED = [
    ("docs/callbacks.md", r"413 \|.*more than (\d+) (KB), as sent or after decompression", [BODY]),
    ("docs/operating.md", r"decompressed to at most (\d+) (KB)", [BODY]),
    ("docs/operating.md", r"slowly than ([\d.]+) (kB/s)", [limits.MIN_READ_RATE]),
    ("docs/operating.md", r"the client is disconnected after (\d+) s", [limits.WRITE_TIMEOUT]),
    ("docs/operating.md", r"after (\d+) wrong tokens or paths", [limits.MAX_REJECTED_AT_ONCE]),
    ("docs/performance.md", r"accepts (\d+) connections", [limits.MAX_CONNECTIONS]),
    ("deploy/nginx.conf", r"client_max_body_size (\d+)([a-z])", [BODY, API_BODY]),
    ("deploy/nginx.conf", r"client_body_timeout (\d+)s", [limits.REQUEST_TIMEOUT]),
    ("deploy/nginx.conf", r"proxy_read_timeout (\d+)s", [limits.WORKER_TIMEOUT]),
    ("deploy/Caddyfile", r"\bmax_size (\d+)([A-Za-z]+)", [API_BODY, BODY]),
    ("deploy/Caddyfile", r"\? (\d+) : \d+\)", [API_BODY]),
    ("deploy/Caddyfile", r"\? \d+ : (\d+)\)", [BODY]),
]


@pytest.mark.parametrize(("file", "pattern", "values"), STATED)
def test_a_file_states_the_limits_of_the_server(
    file: str, pattern: str, values: list[float]
) -> None:
    stated = re.findall(pattern, (ROOT / file).read_text())
    pairs = [found if isinstance(found, tuple) else (found, "") for found in stated]
    assert [float(number) * UNITS[unit] for number, unit in pairs] == values


def test_gunicorn_has_these_limits() -> None:
    names = {
        "limit_request_line": limits.MAX_REQUEST_LINE,
        "limit_request_fields": limits.MAX_HEADERS,
        "limit_request_field_size": limits.MAX_HEADER,
        "worker_connections": limits.MAX_CONNECTIONS,
        "threads": limits.MAX_THREADS,
        "timeout": limits.WORKER_TIMEOUT,
        "graceful_timeout": limits.SHUTDOWN_TIMEOUT,
        "keepalive": limits.KEEP_ALIVE,
    }
    assert {name: getattr(gunicorn, name) for name in names} == names


def test_the_server_has_these_limits() -> None:
    found = RequestLimits()
    assert (found.line, found.fields, found.field_size) == (
        limits.MAX_REQUEST_LINE,
        limits.MAX_HEADERS,
        limits.MAX_HEADER,
    )
    assert api.LONGEST_BODY == API_BODY


def test_no_other_module_of_the_server_defines_a_size() -> None:
    """A second definition would eventually differ; one once differed by a byte."""
    for module in (ROOT / "receiver/web").rglob("*.py"):
        assert not re.search(r"\b(256|32) \* 1024\b|\b262_?144\b", module.read_text()), module
