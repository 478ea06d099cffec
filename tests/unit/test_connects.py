"""The audit hook that keeps libraries from internal addresses."""

import sys

import pytest

from receiver.outgoing import socket_guard
from receiver.outgoing.socket_guard import public_only


def test_it_is_silent_when_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with public_only():
        pass
    for name in ("EVENTS", "_here", "_is_allowed"):  # what Python does to a module at the end
        monkeypatch.setattr(socket_guard, name, None)
    sys.audit("open", "a file", "r", 0)
    sys.audit("socket.connect", None, ("10.0.0.1", 80))
