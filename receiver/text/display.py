"""Makes any text safe to log, store and show: without secrets, and displayable everywhere; pure.

Removing secrets here is a second safeguard. Every function takes time proportional to the
length of the text, for any text: see docs/adr/0015-linear-expressions.md.
"""

from __future__ import annotations

import base64
import html
import json
import re
import string
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from itertools import dropwhile
from typing import Any
from urllib.parse import quote, quote_plus, unquote

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Characters that control a terminal, although JSON allows them: C1 controls, and characters that
# change the direction of text.
CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# One day within the limits of `datetime`, so that a date in any time zone is still valid.
_EARLIEST, _LATEST = -62_135_510_400_000, 253_402_214_399_999  # ms UTC: years 1 and 9999
# In JSON: a pair of surrogates, an escaped backslash, or a surrogate without its other half.
_ESCAPES = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\\\|\\ud[89a-f][0-9a-f]{2}")

_TRACEBACK = "Traceback (most recent call last):\n"

HIDDEN = "…"
_SLASH = r"(?:\\*/|%(?:25)*2[fF])"  # also escaped, in JSON and in URLs
_B = r"[A-Za-z0-9_\-]"  # URL-safe base64
_SCHEME = "[Bb]earer|BEARER|[Bb]asic|BASIC"
_C = r"[A-Za-z0-9._~+/=\-]"  # credentials in a header
_PART = r"[^\s/\"'<>?#\\%]+"
_END = r"[^\s\"'<>\\\x00-\x1f]"  # a character that does not end a URL in a text
# At least up to the third slash; the provider, the task or both may be empty.
_UP_TO_THE_TOKEN = "|".join(
    (
        rf"{_SLASH}+{_PART}{_SLASH}+{_PART}{_SLASH}+",
        rf"{_SLASH}+{_PART}{_SLASH}{{2,}}",
        rf"{_SLASH}{{2,}}{_PART}{_SLASH}+",
        rf"{_SLASH}{{3,}}",
    )
)
# Each rule hides the matched text, except for its group.
_RULES = [
    rf"(callbacks(?:{_UP_TO_THE_TOKEN})){_END}+",  # a callback URL; `<token>` stays readable
    rf"(\?)[\w.\-%\[\]]+={_END}*",  # a query: signatures of result URLs
    rf"((?<=[\w/])\?){_END}{{6,}}",  # also without a name
    r"(://)[^\s/@\"'<>]+(?=@)",  # a user name and a password
    rf"(hooks\.slack\.com/\w+/)[\w/\-{HIDDEN}]+",  # a part may be hidden already
    rf"(whsec_)[A-Za-z0-9+/=_\-{HIDDEN}]+",
    rf"(\b(?:{_SCHEME})[ +]+)(?:{_C}{{8}}|{_C}{{0,7}}{HIDDEN})(?:{_C}|{HIDDEN})*",
]
_SECRET = re.compile("|".join(_RULES))
# Without one of these, no rule can match, so most lines are processed quickly.
_MARKS = ("?", "://", "slack", "whsec_", "earer", "EARER", "asic", "ASIC")
_PATH_HINT = re.compile(r"callbacks(?!/<)")
_DOTTED = re.compile(r"[A-Za-z0-9_\-.]+")
_WEB_TOKEN = re.compile(rf"\beyJ{_B}{{8}}")
# A callback token by itself: 43 characters of URL-safe base64, with every kind of character.
_TOKEN = re.compile(rf"(?<!{_B}){_B}{{43}}(?!{_B})")
# A capital in a token has 21 of its characters after it, or as many before. Capitals are rare.
_TOKEN_HINT = re.compile(rf"[A-Z](?:{_B}{{21}}|(?<={_B}{{22}}))")
_SHORTEST, _LONGEST = 8, 256  # characters of a secret
# Characters that some formats escape.
_NOT_PLAIN = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9_.~-]")
_HOST = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,9}(?::[0-9]{1,5})?")
_HOST_SCHEMES = ("amqp", "amqps", "http", "https", "redis", "rediss")  # a host always follows
_WORDS = re.compile(r"_?[a-z]{1,15}(?:[-_.][a-z]{1,15})*")
_SECRET_CHARACTERS = string.ascii_letters + string.digits + "!#$%&*+-./:=?@\\^_|~"
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_MOST_SEGMENTS = 6
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def encodable(text: str) -> str:
    """Return the text with lone surrogates replaced: they exist in JSON, but in no encoding."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def storable(text: str) -> str:
    """Return the text as every database stores it: also without NUL."""
    whole = text if text.isascii() else encodable(text)
    return whole.replace("\0", UNKNOWN) if "\0" in whole else whole


def plain(text: str | None) -> str:
    """Return the text with unprintable characters replaced, so that it controls no terminal.

    The result is a single line. Unlike `one_line`, it shows where characters were replaced.
    """
    shown = text or ""
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else UNKNOWN for char in shown)


def one_line(text: str, limit: int | None = None, *, is_cut: bool = False) -> str:
    """Return the text on one line, without unprintable characters and repeated spaces.

    The result cannot break a line, a header or an encoding. A text of more than `limit` characters
    is redacted and shortened; see `shortened`, also for `is_cut`.
    """
    line = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if limit is None else shortened(line, limit, is_cut=is_cut)


def without_traceback(text: str) -> str:
    """Return the text with only the error of a traceback, whose beginning may be missing.

    A line before the traceback stays, such as the exit status of a command.
    """
    lines = text.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return text
    error = "\n".join(dropwhile(lambda line: line.startswith(" "), lines[frames[-1] :]))
    before, has_beginning, _ = text.partition(_TRACEBACK)
    is_kept = has_beginning and "\n" not in before.strip()
    return f"{before}{error}" if is_kept and error else error or text


def plain_lines(text: str) -> str:
    """Return the text as `plain` does, but keep its line breaks."""
    return "\n".join(plain(line.expandtabs(4)) for line in text.split("\n"))


def json_ascii(document: Any, **how: Any) -> str:
    """Return the document as ASCII JSON that every parser accepts."""
    return without_lone_escapes(json.dumps(document, **{**how, "ensure_ascii": True}))


def without_lone_escapes(text: str) -> str:
    """Return ASCII JSON with each escape of a lone surrogate replaced."""
    return _ESCAPES.sub(_whole, text) if "\\ud" in text else text


def json_readable(document: Any, indent: int | None = 2) -> str:
    """Return the document as JSON that controls no terminal, with letters of all scripts."""
    text = encodable(json.dumps(document, indent=indent, ensure_ascii=False))
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def moment(instant: float, zone: tzinfo = UTC) -> datetime:
    """Return a time in milliseconds UTC as a date; the nearest one if there is no such date."""
    return datetime.fromtimestamp(min(max(instant, _EARLIEST), _LATEST) / 1000, zone)


def rfc3339(instant: float) -> str:
    """Return a time in milliseconds UTC as RFC 3339 with `Z`."""
    return moment(instant).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) != 6 else "\\ufffd"


MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds


def elapsed(ms: int) -> str:
    """Return a duration with the precision that it needs.

    Such as `0.250 s`, `12.3 s`, `1 min 5 s`, `3 h 12 min` or `2 d 4 h`. The sign is omitted.
    """
    seconds = abs(ms) / 1000
    if seconds < 9.9995:  # otherwise it is rounded to 10
        return f"{seconds:.3f} s"
    if seconds < MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 task", "2 tasks", "0 deliveries"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def cost_text(cost: str, unit: str | None) -> str:
    """Return a cost with its unit, such as "1 unit", "2.5 units" or "0.07 USD"."""
    name = "unit" if unit == "units" and cost == "1" else unit
    return f"{cost} {name}" if name else cost


def redacted(text: str) -> str:
    """Return the text with callback tokens, URL queries, passwords and keys replaced by `…`."""
    if "eyJ" in text:
        text = _DOTTED.sub(_hide_web_tokens, text)
    # Several searches are many times faster than a single expression.
    if any(map(text.__contains__, _MARKS)) or _PATH_HINT.search(text):
        text = _SECRET.sub(_hide_match, text)
    return _TOKEN.sub(_hide_token, text) if _TOKEN_HINT.search(text) else text


def _hide_web_tokens(run: re.Match[str]) -> str:
    """Hide each JSON Web Token: three parts, of which the last may be empty."""
    parts, shown, at = run[0].split("."), [], 0
    while at < len(parts):
        start = _WEB_TOKEN.search(parts[at]) if parts[at + 2 : at + 3] and parts[at + 1] else None
        shown.append(parts[at] if start is None else parts[at][: start.start()] + HIDDEN)
        at += 1 if start is None else 3
    return ".".join(shown)


def _hide_match(match: re.Match[str]) -> str:
    return (match[match.lastindex] if match.lastindex else "") + HIDDEN


def _hide_token(match: re.Match[str]) -> str:
    run = match[0]
    kinds = (str.isupper, str.islower, str.isdigit)
    return HIDDEN if all(any(map(kind, run)) for kind in kinds) else run


class SecretFilter:
    """A function that hides secrets in a text, and passes the result to `finish`. Thread-safe.

    The parts of a URL are hidden as well, because libraries report only a path, or only a token.
    Values are found as they are, and in the forms of JSON, HTML and URLs. Values of fewer than 8
    characters are not hidden, because they would also occur in ordinary words.
    """

    def __init__(self, secrets: Iterable[str], finish: Callable[[str], str]) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._finish = finish
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Also hide these values."""
        self._secrets = self._secrets.union(secrets)
        spellings = {
            part: sorted(_spellings(part), key=len, reverse=True)
            for secret in self._secrets
            for part in (secret, *_parts(secret))
            if len(part) >= _SHORTEST
        }
        # All spellings of a value contain its longest plain part.
        self._known = [
            (max(_NOT_PLAIN.split(part), key=len), spellings[part])
            for part in sorted(spellings, key=len, reverse=True)
        ]

    def __call__(self, text: str) -> str:
        for common, found in self._known:
            if common in text:
                for spelling in found:
                    text = text.replace(spelling, HIDDEN)
        return self._finish(text)


def hiding(secrets: Iterable[str]) -> SecretFilter:
    """Return a function like `redacted` that also hides these values."""
    return SecretFilter(secrets, redacted)


def hiding_values(secrets: Iterable[str]) -> SecretFilter:
    """Return a function that hides these values in a text, and nothing else."""
    return SecretFilter(secrets, str)


def _parts(secret: str) -> Iterator[str]:
    """Yield the parts of a URL that are secrets by themselves."""
    scheme, is_url, rest = secret.partition("://")
    if not is_url:
        return
    is_host = scheme.lower() in _HOST_SCHEMES
    rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    account, _, host = authority.rpartition("@")
    if account:
        yield from (account, *account.split(":"))
        yield base64.b64encode(unquote(account).encode()).decode()  # HTTP's basic authentication
    yield from (f"{path}?{query}", path, query)
    yield from (pair.partition("=")[2] or pair for pair in query.split("&"))
    # A part that is more than words, such as `orders` or `new-results`, may be a token.
    yield from (part for part in path.split("/") if not _WORDS.fullmatch(part))
    # In apprise's URLs, such as discord://id/token, the first part is a secret or a host name.
    if not is_host and not _HOST.fullmatch(host):
        yield from (host, *host.split(":"))


def _spellings(value: str) -> set[str]:
    """Return the forms in which a text may contain this value."""
    found = {value, unquote(value)}
    found |= {one.replace("/", "\\/") for one in found}
    found |= {json.dumps(one)[1:-1] for one in found} | {html.escape(one) for one in found}
    for one in (value, unquote(value)):
        for quoted in {quote(one, safe=""), quote(one), quote_plus(one)}:
            found |= {
                quoted,
                quote(quoted, safe=""),
                _PERCENT.sub(lambda match: match[0].lower(), quoted),
            }
    return {one for one in found if len(one) >= _SHORTEST}


def shortened(text: str, most: int, *, is_cut: bool = False) -> str:
    """Return the text, or if it is too long, redact it, cut it to `most` characters and append `…`.

    The result never ends within a word that could be a secret, because a part of a secret would not
    be recognised. Such a word is removed, but at most as many characters as the longest secret has.
    `is_cut` states that the text was cut before.
    """
    if len(text) <= most and not is_cut:
        return text
    text = redacted(text)
    end = min(len(text), most - 1)
    if end == len(text) and not is_cut:
        return text
    least = max(0, end - _LONGEST)
    while (
        end > least
        and text[end - 1] in _SECRET_CHARACTERS
        and text[end : end + 1] in _SECRET_CHARACTERS
    ):
        end -= 1
    return text[:end] + HIDDEN


def redacted_path(path: str) -> str:
    """Return the path of a request without secrets, so that people can see its purpose.

    Unusual parts are replaced by `…`, and so is everything after `callbacks`, a provider and a
    task, because it is probably a token.
    """
    parts = path.split("?", maxsplit=1)[0].split("/")[1 : _MOST_SEGMENTS + 2]
    at = parts.index("callbacks") if "callbacks" in parts else len(parts)
    return "".join("/" + _shown(part, place - at) for place, part in enumerate(parts))


def _shown(part: str, place: int) -> str:
    if place > 2:  # after provider and task
        return HIDDEN
    plain = _TASK if place == 2 else _PLAIN
    return part if not part or plain.fullmatch(part) else HIDDEN
