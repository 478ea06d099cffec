"""The templates in a hook's options: texts with Jinja expressions about the event.

Operators write the templates and are trusted. The event is not trusted: each of its values is
escaped for the place where it is inserted. Jinja is loaded only if a text has an expression.
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
MARKS = ("{{", "{%", "{#")  # the beginnings of Jinja's expressions, statements and comments


@dataclass(frozen=True, slots=True)
class Template:
    """A text that is rendered for each event. `names` exist in addition to the event's fields."""

    source: str
    context: Context
    names: tuple[str, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether the text contains nothing that Jinja evaluates."""
        return not is_jinja(self.source)

    def with_context(self, context: Context) -> Template:
        """Return the same text for another context."""
        return replace(self, context=context)

    def check(self) -> None:
        """Compile the template. Raises TemplateError with every problem that can be known now."""
        if self.is_constant:
            check_result(self.source, self.context)
        else:
            from receiver.hooks.templates import sandbox  # noqa: PLC0415 - loads Jinja

            sandbox.compiled(self.source, self.context, self.names)

    def render(self, notice: Notice, *, hook: str, key: str, **values: Any) -> str:
        """Return the text for this event. `values` are those of `names`.

        Raises RenderFailed, which names the hook and the key of the template.
        """
        if self.is_constant:
            return self.source
        from receiver.hooks.templates import sandbox  # noqa: PLC0415 - loads Jinja

        try:
            template = sandbox.compiled(self.source, self.context, self.names)
            event = {"outputs": {}, **notice.as_json()}  # even if no hook returned an object
            text = sandbox.render(template, event, values, MAX_OUTPUT)
            check_result(text, self.context)
        except TemplateError as error:
            raise RenderFailed(f'hook "{hook}": {key}: {error}') from None
        return text


class TemplateField(fields.Field[Template]):
    """The field of a marshmallow schema for a template of this kind."""

    def __init__(
        self, context: Context, names: tuple[str, ...] = (), load_default: Any = None
    ) -> None:
        super().__init__(load_default=load_default)
        self._context, self._names = context, names

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Template:  # noqa: ARG002
        if not isinstance(value, str):
            raise ValidationError("is not a text; write it in quotes")
        return checked_template(Template(value, self._context, self._names))


def checked_template(template: Template, key: str | None = None) -> Template:
    """Return the template. Raises marshmallow's ValidationError, for the field `key` if given."""
    try:
        template.check()
    except TemplateError as error:
        problems = list(error.problems)
        raise (ValidationError(problems, key) if key else ValidationError(problems)) from None
    return template


def is_jinja(text: str) -> bool:
    """Return whether the text is a template of Jinja; any other text is sent unchanged."""
    return any(mark in text for mark in MARKS)
