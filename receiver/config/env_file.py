"""Reads a file of settings, usually `.env`, into the environment of this process."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.errors import SettingsError

if TYPE_CHECKING:
    from dotenv.parser import Original

DEFAULT = Path(".env")  # in the working directory; its parents are not searched
# Names another file. A program sets it to the null device once it has read a file, so that the
# processes it starts do not read one again.
VARIABLE = "RECEIVER_ENV_FILE"
OTHERS_MAY_WRITE = 0o022
LONGEST = 1_000_000  # bytes


def load(path: Path | None = None) -> None:
    """Add the variables of the file to the environment; variables that are already set stay.

    The file is `path`, or the one that RECEIVER_ENV_FILE names, or `.env`, which may be missing.
    Raises SettingsError with a line for each problem, without the text of the file.
    """
    named = path or os.environ.get(VARIABLE)
    file = DEFAULT if named is None else Path(named)
    if str(file) != os.devnull and (named is not None or os.path.lexists(file)):
        _add(file, _text(file))
    os.environ[VARIABLE] = os.devnull


def _text(file: Path) -> str:
    """Return the text of the file. Raises SettingsError, also if other users control the file."""
    try:
        link = file.lstat()
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            if problems := list(_problems(file, link, os.fstat(descriptor))):
                raise SettingsError(problems)
            return opened.read(LONGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{file}: it is not UTF-8 ({error.reason} at byte {error.start})"
    except (OSError, ValueError) as error:  # a path that no file can have is a ValueError
        problem = f"{file}: it cannot be read: {getattr(error, 'strerror', None) or error}"
    raise SettingsError([problem])


def _problems(file: Path, link: os.stat_result, found: os.stat_result) -> Iterator[str]:
    """Yield reasons not to trust the file. `link` is the status of a symbolic link to it."""
    user = os.geteuid()
    if not stat.S_ISREG(found.st_mode):
        yield f"{file}: it is not a regular file"
    for owner in {link.st_uid, found.st_uid} - {user}:
        yield (
            f"{file}: it belongs to another user (uid {owner}), who could change the settings; "
            f"check its contents, then run: chown {user} {file}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & OTHERS_MAY_WRITE:
        yield f"{file}: other users can write to it (mode {mode:04o}); run: chmod 600 {file}"


def _add(file: Path, text: str) -> None:
    from dotenv.parser import parse_stream  # noqa: PLC0415 - slow, and only needed with a file
    from environs import Env  # noqa: PLC0415 - the same

    bindings = list(parse_stream(StringIO(text)))
    wrong = [
        f"{file}: line {_line(binding.original)} is not NAME=value"
        for binding in bindings
        if binding.error
        or (binding.key is not None and binding.value is None)
        or "\0" in binding.original.string
    ]
    if wrong:
        raise SettingsError(wrong)
    values = Env()
    values.read_env(file, recurse=False)
    before = frozenset(os.environ)
    for name in (binding.key for binding in bindings):
        if name and name not in before and not _is_replaced(name, before):
            os.environ[name] = values.str(name)


def _line(original: Original) -> int:
    """Return the number of the line; the parser includes blank lines before it."""
    blank = original.string[: -len(original.string.lstrip()) or None]
    return original.line + blank.count("\n")


def _is_replaced(name: str, before: frozenset[str]) -> bool:
    """Return whether the environment sets NAME for a `NAME_FILE`, which would outrank it."""
    return name.endswith("_FILE") and name.removesuffix("_FILE") in before and name != "HOOKS_FILE"
