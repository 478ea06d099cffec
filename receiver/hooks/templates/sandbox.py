"""Compiles and renders templates in Jinja's sandbox; escapes and limits the values of the event."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from html import escape
from typing import Any
from urllib.parse import quote_plus

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined
from jinja2 import Template as JinjaTemplate
from jinja2.filters import do_format
from jinja2.runtime import Context as JinjaContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from receiver.hooks import wording
from receiver.hooks.templates.contexts import Context, TemplateError, at_line
from receiver.hooks.templates.syntax import prepare
from receiver.text.display import encodable, json_ascii, one_line, storable

MAX_FIELD = 4_000  # characters of a string in the event; a longer one is cut, and ends with `…`
MAX_ITEMS = 1_000  # items of a list in the event
MAX_PRODUCT = 1_000_000  # characters or items in a result of `*`, or bits in a result of `**`
SHOWN = 200  # characters of Jinja's error message
FILE_NAME = "<template>"  # in tracebacks of code that Jinja compiled
# Not available, because a large number in the event could make the results huge.
NO_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "zfill"})
NO_FILTERS = ("center", "pprint")
COUNTING = ("batch", "indent", "slice", "tojson")  # filters whose arguments are checked
# A width that is a further argument, or that has more than four digits.
_WIDE_PERCENT = re.compile(
    r"%(?:\([^)%]*\))?[-+ #0]*(?:\*|[1-9]\d{4,}|(?:[1-9]\d*)?\.(?:\*|\d{5,}))"
)
_WIDE_BRACES = re.compile(r"\{[^{}\d]*(?:\d{1,4}[^{}\d]+)*(?:\d{0,4}\{|\d{5})")


class Unchanged(str):
    """A string that is inserted without escaping, because the author used `| safe`."""

    __slots__ = ()


class JsonText(str):
    """A string of JSON, which is inserted unchanged unless it is within a JSON string."""

    __slots__ = ()


class _Fields(dict[str, Any]):
    """An object in the event that knows its path, for error messages."""

    __slots__ = ("_path",)

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._path = path


class _Items(list[Any]):
    """A list in the event that knows its path, for error messages."""

    __slots__ = ("_path",)

    def __init__(self, path: str, values: Sequence[Any]) -> None:
        super().__init__(values)
        self._path = path


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which members of the event take precedence over Python attributes."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self._explained(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._explained(obj, argument, super().getitem(obj, argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: JinjaContext, operator: str, left: Any, right: Any) -> Any:
        """Refuse a product, a power or a string that would need too much memory."""
        if operator == "%":
            _check_width(left, _WIDE_PERCENT)
            return super().call_binop(context, operator, left, right)
        sizes = [
            len(side) if isinstance(side, str | Sequence) else abs(side) for side in (left, right)
        ]
        is_power = operator == "**"
        if is_power and isinstance(left, int):
            sizes[0] = left.bit_length()
        repeats = any(isinstance(side, str | Sequence) for side in (left, right))
        if (is_power or repeats) and sizes[0] * sizes[1] > MAX_PRODUCT:
            raise TemplateError(f"the result of {operator} is too large")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return the sandboxed version of `str.format`, if the value is that method."""
        function = super().wrap_str_format(value)
        if function is not None:
            _check_width(value.__self__, _WIDE_BRACES)
        return function

    def _explained(self, obj: Any, name: object, value: Any) -> Any:
        """Return the value; if the event does not have it, an undefined value with its path."""
        is_missing = isinstance(value, Undefined) and isinstance(obj, _Fields | _Items)
        if not is_missing or hasattr(obj, str(name)):  # the sandbox refuses some attributes
            return value
        path = obj._path  # noqa: SLF001 - templates cannot read names with an underscore
        full = f"{path}[{name!r}]" if isinstance(obj, _Items) else f"{path}.{name}"
        problem = f"{full.lstrip('.')} is not in this event"
        if path == ".outputs":
            problem += f": the hook {name} has not returned an object for it"
        elif isinstance(obj, _Items) and not isinstance(name, int):
            listed = path.lstrip(".")
            problem = f"{listed} is a list, so use {listed}[0].{name} or a loop over {listed}"
        return self.undefined(problem, obj, str(name))


def _check_width(text: Any, wide: re.Pattern[str]) -> None:
    """Refuse a text for formatting that could make its result huge."""
    if isinstance(text, str) and wide.search(text.replace("%%", "").replace("{{", "")):
        raise TemplateError("a width or a precision is larger than 9999, or not constant")


def _counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter, which then refuses numbers that would make its result huge."""
    first = 2 if hasattr(function, "jinja_pass_arg") else 1  # after the value

    @wraps(function)
    def checked(*args: Any, **more: Any) -> Any:
        if any(isinstance(one, int) and one > MAX_ITEMS for one in (*args[first:], *more.values())):
            raise TemplateError(f"the number for {name} is larger than {MAX_ITEMS:,}")
        return function(*args, **more)

    return checked


def _format(text: Any, *args: Any, **names: Any) -> Any:
    _check_width(text, _WIDE_PERCENT)
    return do_format(text, *args, **names)


def as_text(value: Any) -> Any:
    """Return a value as a string: None is empty, and objects and lists are JSON.

    Raises TemplateError for values that cannot be inserted, and UndefinedError.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, Undefined | int | float) and not isinstance(value, bool):
        return str(value)
    return encodable(json.dumps(_serializable(value), ensure_ascii=False))


def _serializable(value: Any) -> Any:
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, bool | int | float | str | Mapping | Sequence | None):
        return value
    raise TemplateError(
        f"a {type(value).__name__} cannot be inserted; insert a field or another value"
    )


def _tojson(value: Any) -> JsonText:
    """Return a value as ASCII JSON."""
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError
    return JsonText(json_ascii(_serializable(value), allow_nan=False))


def _json_value(value: Any) -> str:
    """Return what is inserted outside the strings of a JSON text."""
    return value if isinstance(value, Unchanged | JsonText) else _tojson(value)


def _json_string(value: Any) -> str:
    """Return what is inserted within a string of a JSON text."""
    text = as_text(value)
    return text if isinstance(text, Unchanged) else json_ascii(text)[1:-1]


def _slack_text(value: Any) -> str:
    """Escape for mrkdwn: nothing is a mention, and only a value that is a URL becomes a link."""
    text = as_text(value)
    if isinstance(text, Unchanged):
        return text
    text = text.replace("|", "%7C") if wording.is_link(text) else wording.inert(text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_json_value(value: Any) -> str:
    is_plain = isinstance(value, str) and not isinstance(value, Unchanged | JsonText)
    return _json_value(_slack_text(value) if is_plain else value)


def _slack_json_string(value: Any) -> str:
    text = _slack_text(value)
    return text if isinstance(value, Unchanged) else json_ascii(text)[1:-1]


def _form_value(value: Any) -> str:
    text = as_text(value)
    return text if isinstance(text, Unchanged) else quote_plus(text, errors="replace")


# The filters that escape values. A template cannot use these names, because they contain spaces.
ESCAPES: Mapping[str, Callable[[Any], str]] = {
    "json value": _json_value,
    "json string": _json_string,
    "slack value": _slack_text,
    "slack_json value": _slack_json_value,
    "slack_json string": _slack_json_string,
    "form value": _form_value,
}


def _environment(*, is_html: bool) -> Environment:
    environment = _Sandbox(autoescape=is_html, undefined=StrictUndefined, finalize=as_text)
    for name in NO_FILTERS:
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.filters["format"] = _format
    for name in COUNTING:
        environment.filters[name] = _counting(name, environment.filters[name])
    environment.filters["one_line"] = lambda value: one_line(as_text(value))
    environment.tests["link"] = lambda value: isinstance(value, str) and wording.is_link(value)
    if not is_html:  # Jinja's own filters return `Markup`, which is exempt from escaping
        for name in ("e", "escape", "forceescape"):
            environment.filters[name] = lambda value: escape(as_text(value))
        environment.filters["safe"] = lambda value: Unchanged(as_text(value))
        environment.filters["tojson"] = _tojson
        environment.filters.update(ESCAPES)
    return environment


ENVIRONMENTS = {is_html: _environment(is_html=is_html) for is_html in (True, False)}


@lru_cache(maxsize=256)
def compiled(source: str, context: Context, names: tuple[str, ...]) -> JinjaTemplate:
    """Return the compiled template. Raises TemplateError with all problems."""
    environment = ENVIRONMENTS[context is Context.HTML]
    try:
        tree = environment.parse(source)
        prepare(tree, context, names)
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise TemplateError(at_line(error.lineno, str(error.message))) from None
    except RecursionError:
        raise TemplateError("is nested too deeply") from None


def render(
    template: JinjaTemplate, event: Mapping[str, Any], values: Mapping[str, Any], limit: int
) -> str:
    """Render the template. Raises TemplateError, also if the text exceeds `limit` bytes."""
    try:
        known = {"test": False, **_limited(event, ""), **values}
        return encodable("".join(_bounded(template.generate(known), limit)))
    except TemplateError:
        raise
    except Exception as error:  # noqa: BLE001 - operations on values raise anything
        text = str(error) or type(error).__name__  # such as MemoryError
        if isinstance(error, RecursionError):
            text = "is nested too deeply"
        raise TemplateError(at_line(_line(error), one_line(text, SHOWN))) from None


def _bounded(pieces: Iterable[str], limit: int) -> Iterator[str]:
    """Yield the pieces. Raises TemplateError as soon as they exceed `limit` bytes."""
    size = 0
    for piece in pieces:
        size += len(piece.encode("utf-8", "replace"))
        if size > limit:
            raise TemplateError(f"the text is longer than {limit // 1024} KB")
        yield piece


def _line(error: Exception) -> int | None:
    """Return the line of the template at which the error occurred."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == FILE_NAME]
    return lines[-1] if lines else None


def _limited(value: Any, path: str) -> Any:
    """Return a value of the event in which every string and list is cut to its maximum length."""
    if isinstance(value, str):
        text = storable(str(value))
        return text if len(text) <= MAX_FIELD else f"{text[: MAX_FIELD - 1]}…"
    if isinstance(value, Mapping):
        names = [(_limited(str(key), path), member) for key, member in value.items()]
        members = {name: _limited(member, f"{path}.{name}") for name, member in names}
        return _Fields(path, members)
    if isinstance(value, list | tuple):
        items = [_limited(item, f"{path}[{n}]") for n, item in enumerate(value[:MAX_ITEMS])]
        return _Items(path, items)
    return value
