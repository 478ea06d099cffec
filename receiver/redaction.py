"""Text without secrets: what may be logged, kept and shown. A second line of defence; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

HIDDEN = "…"
_SLASH = r"(?:\\*/|%(?:25)*2[fF])"  # also escaped, in JSON and in URLs
_B = r"[A-Za-z0-9_\-]"  # URL-safe base64
_PART = r"[^\s/\"'<>?#\\%]*"
_END = r"[^\s\"'<>\\\x00-\x1f]"  # where a URL in a text does not end yet
# Each rule keeps what its first group matched, and hides the rest.
_RULES = [
    # the token of a callback URL; a route's `<token>` stays readable
    rf"(callbacks{_SLASH}+{_PART}{_SLASH}+{_PART}{_SLASH}+){_END}+",
    rf"(\?)[\w.\-%\[\]]+={_END}*",  # a query: signatures of result URLs
    rf"((?<=[\w/])\?){_END}{{6,}}",  # also without a name
    r"(://)[^\s/@\"'<>]+(?=@)",  # a name and a password
    r"(hooks\.slack\.com/\w+/)[\w/\-]+",
    r"(whsec_)[A-Za-z0-9+/=_\-]+",
    r"(\b(?:[Bb]earer|BEARER|[Bb]asic|BASIC)[ +]+)[A-Za-z0-9._~+/=\-]{8,}",
    r"()\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",  # a JSON Web Token
    # a callback token by itself: 43 characters of URL-safe base64, of every kind
    rf"()(?<!{_B})(?={_B}*?[A-Z])(?={_B}*?[a-z])(?={_B}*?[0-9]){_B}{{43}}(?!{_B})",
]
_SECRET = re.compile("|".join(_RULES))
# Without one of these no rule can match, so that an ordinary line costs little.
_MARKS = ("?", "://", "slack", "whsec_", "earer", "EARER", "asic", "ASIC", "eyJ")
_PATH_HINT = re.compile(r"callbacks(?!/<)")
# A token's capital has 21 of its characters behind it, or as many before: capitals are found fast.
_TOKEN_HINT = re.compile(rf"[A-Z](?:{_B}{{21}}|(?<={_B}{{22}}))")
_SHORTEST = 8  # characters
_MOST_SEGMENTS = 6
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def redacted(text: str) -> str:
    """The text with tokens of callback URLs, queries, passwords and keys replaced by `…`."""
    return _SECRET.sub(_kept, text) if _is_suspect(text) else text


def _is_suspect(text: str) -> bool:
    """Could a rule match? Each search by itself is many times faster than all in one."""
    has_mark = any(map(text.__contains__, _MARKS))
    return has_mark or bool(_PATH_HINT.search(text) or _TOKEN_HINT.search(text))


def hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """`redacted`, which also hides these, and the paths and queries of those that are URLs.

    What has fewer than 8 characters is left: it would stand in ordinary words.
    """
    known: set[str] = set()
    for secret in secrets:
        known.add(secret)
        if "://" in secret:
            _, _, path = secret.partition("://")[2].partition("/")
            known.update(path.split("?", maxsplit=1))
    told = sorted((part for part in known if len(part) >= _SHORTEST), key=len, reverse=True)
    if not told:
        return redacted
    pattern = re.compile("|".join(map(re.escape, told)))
    return lambda text: redacted(pattern.sub(HIDDEN, text))


def redacted_path(path: str) -> str:
    """The path of a request, for people to see what was meant: its odd parts are `…`.

    What follows `callbacks`, a provider and a task is a token, or was meant as one.
    """
    parts = path.split("?", maxsplit=1)[0].split("/")[1 : _MOST_SEGMENTS + 2]
    at = parts.index("callbacks") if "callbacks" in parts else len(parts)
    return "".join("/" + _shown(part, place - at) for place, part in enumerate(parts))


def _shown(part: str, place: int) -> str:
    if place > 2:  # after provider and task
        return HIDDEN
    plain = _TASK if place == 2 else _PLAIN
    return part if not part or plain.fullmatch(part) else HIDDEN


def _kept(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None) + HIDDEN


def storable(text: str) -> str:
    """The text as every database takes it: without NUL, and without halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
