"""Imports marshmallow without the slowest part of its import."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

_MANY_LETTERS = "\u00a1-\uffff"  # a range that is slow to compile; the expression has it five times


# marshmallow compiles an expression for the domains of e-mail addresses, which takes a tenth of the
# CPU time of a short command, and which no command uses.
def import_marshmallow() -> None:
    """Import marshmallow. The slow expression is compiled only when it is used."""
    compile_: Any = re.compile

    def choose(pattern: Any, flags: Any = 0) -> Any:
        if str(pattern).count(_MANY_LETTERS) < 2:
            return compile_(pattern, flags)
        return SimpleNamespace(match=lambda text: compile_(pattern, flags).match(text))

    re.compile = choose
    try:
        import marshmallow  # noqa: F401, PLC0415
    finally:
        re.compile = compile_
