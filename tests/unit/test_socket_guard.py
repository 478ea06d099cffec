"""The audit hook that prevents libraries from connecting to internal addresses."""

import sys

import pytest

from receiver.outgoing import socket_guard
from receiver.outgoing.socket_guard import public_only


def test_the_hook_causes_no_error_when_the_interpreter_exits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with public_only():
        pass
    for name in ("EVENTS", "_here", "_is_allowed"):  # Python does this to a module at exit
        monkeypatch.setattr(socket_guard, name, None)
    sys.audit("open", "a file", "r", 0)
    sys.audit("socket.connect", None, ("10.0.0.1", 80))
