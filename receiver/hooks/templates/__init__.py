"""The templates in a hook's options: strings with Jinja expressions, rendered for each event.

Operators write the templates and are trusted. The event is not trusted: each of its values is
escaped for the place where it is inserted. Jinja is imported only if a string contains its syntax.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from marshmallow import ValidationError, fields

from receiver.deliveries import Notice
from receiver.errors import RenderFailed
from receiver.hooks.templates.contexts import Context, TemplateError, check_result, context_of

__all__ = [
    "Context",
    "Template",
    "TemplateError",
    "TemplateField",
    "checked_template",
    "context_of",
    "is_jinja",
]

MAX_OUTPUT = 256 * 1024  # bytes of a rendered text in UTF-8
MARKS = ("{{", "{%", "{#")  # which begin an expression, a statement and a comment in Jinja


@dataclass(frozen=True, slots=True)
class Template:
    """A string that is rendered for each event.

    `names` are variables that exist in addition to the members of the event.
    """

    source: str
    context: Context
    names: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether the string contains no Jinja syntax, so that it is sent unchanged."""
        return not is_jinja(self.source)

    def with_context(self, context: Context) -> Template:
        """Return the same template for another context."""
        return replace(self, context=context)

    def check(self) -> None:
        """Compile the template. Raises TemplateError with all problems found without an event."""
        if self.is_constant:
            check_result(self.source, self.context)
        else:
            from receiver.hooks.templates import sandbox  # noqa: PLC0415 - loads Jinja

            sandbox.compiled(self.source, self.context, self.names)

    def render(self, notice: Notice, *, hook: str, key: str, **values: Any) -> str:
        """Render the template for this event. `values` are the values of `names`.

        Raises RenderFailed, which names `hook` and `key`.
        """
        if self.is_constant:
            return self.source
        from receiver.hooks.templates import sandbox  # noqa: PLC0415 - loads Jinja

        try:
            template = sandbox.compiled(self.source, self.context, self.names)
            event = {"outputs": {}, **notice.as_json()}  # `outputs` always exists
            text = sandbox.render(template, event, values, MAX_OUTPUT)
            check_result(text, self.context)
        except TemplateError as error:
            raise RenderFailed(f'hook "{hook}": {key}: {error}') from None
        return text


class TemplateField(fields.Field[Template]):
    """A marshmallow field for a template with this context and these additional names."""

    def __init__(
        self, context: Context, names: tuple[str, ...] = (), load_default: Any = None
    ) -> None:
        super().__init__(load_default=load_default)
        self._context, self._names = context, names

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Template:  # noqa: ARG002
        if not isinstance(value, str):
            raise ValidationError("is not a string; write it in quotes")
        return checked_template(Template(value, self._context, self._names))


def checked_template(template: Template, key: str | None = None) -> Template:
    """Check a template and return it. Raises ValidationError, for the field `key` if given."""
    try:
        template.check()
    except TemplateError as error:
        problems = list(error.problems)
        raise (ValidationError(problems, key) if key else ValidationError(problems)) from None
    return template


def is_jinja(text: str) -> bool:
    """Return whether the string contains Jinja syntax; any other string is sent unchanged."""
    return any(mark in text for mark in MARKS)
