"""Checks the syntax tree of a template, and adds the filters that escape its values.

In HTML, Jinja escapes the values itself. In every other context that requires it, each expression
is passed through a filter that escapes its value, so a value that comes from a macro or from
`{% set %}` is escaped as well. In JSON, the filter depends on whether the expression is within a
string.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, meta, nodes

from receiver.config.hooks_file import either
from receiver.deliveries import Notice, Transition
from receiver.events import Media
from receiver.hooks.templates.contexts import Context, TemplateError, at_line
from receiver.tasks import Status, Task, Trust

NO_STATEMENTS = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
JSON_CONTEXTS = (Context.JSON, Context.SLACK_JSON)
ESCAPED_CONTEXTS = (Context.FORM, Context.SLACK)
ANY = object()  # stands for a value whose members are not known


def prepare(tree: nodes.Template, context: Context, names: tuple[str, ...]) -> None:
    """Check the tree, and add the filters to it. Raises TemplateError with all problems."""
    assert tree.environment is not None  # noqa: S101 - the parser sets it
    problems = [*_forbidden(tree, context), *_unknown(tree, tree.environment, names)]
    if problems:
        raise TemplateError(*problems)
    for choice in tree.find_all(nodes.CondExpr):  # without `else`, Jinja's value is undefined
        choice.expr2 = choice.expr2 or nodes.Const(None, lineno=choice.lineno)
    if context in JSON_CONTEXTS:
        if _escape_json(tree.body, _JsonPlace(), context).in_string:
            raise TemplateError("is not JSON: a string has no closing quote")
    elif context in ESCAPED_CONTEXTS:
        _escape_all(tree.body, f"{context.value} value")
    tree.set_environment(tree.environment)


def _forbidden(tree: nodes.Template, context: Context) -> Iterator[str]:
    """Yield a problem for each statement that has no effect here, or would not be escaped."""
    for node in tree.find_all(NO_STATEMENTS):
        yield at_line(node.lineno, "a template cannot include, import or extend another one")
    if context in JSON_CONTEXTS + ESCAPED_CONTEXTS:
        for node in tree.find_all((nodes.CallBlock, nodes.FilterBlock)):
            yield at_line(node.lineno, "{% call %} and {% filter %} are not allowed; use {% set %}")
    if context is not Context.HTML:
        for node in tree.find_all(nodes.ScopedEvalContextModifier):
            yield at_line(node.lineno, "{% autoescape %} is allowed only in HTML; remove it")


def _unknown(
    tree: nodes.Template, environment: Environment, names: tuple[str, ...]
) -> Iterator[str]:
    """Yield a problem for each unknown filter, test, name and field of the event."""
    problems = [
        at_line(node.lineno, f"{node.name} is not a {kind}")
        for kind, type_, known in (
            ("filter", nodes.Filter, environment.filters),
            ("test", nodes.Test, environment.tests),
        )
        for node in tree.find_all(type_)
        if node.name not in known
    ]
    yield from problems
    if not problems:  # Jinja can find names only if all filters and tests exist
        fields = {**_known_fields(), **dict.fromkeys(names, ANY)}
        undeclared = meta.find_undeclared_variables(tree) - fields.keys()
        for node in tree.find_all(nodes.Name):
            if node.name in undeclared:
                yield at_line(node.lineno, _not_a_field(node.name, fields))
        yield from _FieldPaths(tree, fields).problems()


def _not_a_field(path: str, known: Collection[str]) -> str:
    return f"{path} is not a field of the event; use {either(sorted(known))}"


@cache
def _known_fields() -> Mapping[str, Any]:
    """Return the members of an event, except for those of `task.metadata`, which can be any."""
    task = Task("", "", Status.SUCCEEDED, 0, 0)
    transition = Transition(Status.SUCCEEDED, 0, 0, Trust.TOKEN)
    event = Notice(task, transition, (Media("", ""),), is_test=True).as_json()
    return {
        **dict.fromkeys((*event, "outputs"), ANY),
        "task": dict.fromkeys(event["task"], ANY),
        "media": [dict.fromkeys(event["media"][0], ANY)],
    }


class _FieldPaths:
    """Finds fields that no event has, such as `task.refrence`, or `m.uri` in a loop over media."""

    def __init__(self, tree: nodes.Template, known: Mapping[str, Any]) -> None:
        self._tree = tree
        names = [node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"]
        self._values = {**known, **dict.fromkeys(names, ANY)}
        for loop in tree.find_all(nodes.For):
            if isinstance(loop.target, nodes.Name) and names.count(loop.target.name) == 1:
                self._values[loop.target.name] = _member(self._value(loop.iter), 0)

    def problems(self) -> Iterator[str]:
        """Yield a problem for each such field."""
        for node in self._tree.find_all(nodes.Expr):
            if not isinstance(node, nodes.Getattr | nodes.Getitem):
                continue
            known, key = self._value(node.node), _key(node)
            if not isinstance(known, Mapping) or not isinstance(key, str) or key in known:
                continue
            if isinstance(node, nodes.Getitem) or not hasattr(known, key):  # such as `.items()`
                yield at_line(node.lineno, _not_a_field(f"{_path(node.node)}.{key}", known))

    def _value(self, node: nodes.Node) -> Any:
        """Return the members of the value of an expression, as far as they are known."""
        if isinstance(node, nodes.Name):
            return self._values.get(node.name, ANY)
        if isinstance(node, nodes.Getattr | nodes.Getitem):
            value = self._value(node.node)
            return value if isinstance(_key(node), slice) else _member(value, _key(node))
        if isinstance(node, nodes.Filter) and node.name in ("first", "last") and node.node:
            return _member(self._value(node.node), 0)
        return ANY


def _member(value: Any, key: object) -> Any:
    if isinstance(value, Mapping):
        return value.get(key, ANY)
    return value[0] if isinstance(value, list) and isinstance(key, int) else ANY


def _key(node: nodes.Getattr | nodes.Getitem) -> object:
    """Return the constant key of an attribute or a subscript; None if it is not constant."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node.arg, nodes.Slice):
        return slice(None)
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _path(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        key = _key(node)
        return _path(node.node) + (f".{key}" if isinstance(key, str) else "[…]")
    return "…"


def _escape_all(body: Sequence[nodes.Node], name: str) -> None:
    """Apply this filter to each expression that the statements insert into the text."""
    for node in body:
        if isinstance(node, nodes.Output):
            node.nodes = [
                child if isinstance(child, nodes.TemplateData) else _filtered(child, name)
                for child in node.nodes
            ]
        for part in _parts(node):
            _escape_all(part, name)


def _filtered(expression: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(expression, name, [], [], None, None, lineno=expression.lineno)


def _literals(node: nodes.Expr | None) -> list[str] | None:
    """Return the strings that the expression may insert; None unless all of them are literals."""
    if isinstance(node, nodes.CondExpr):
        branches = _literals(node.expr1), _literals(node.expr2)
        return None if None in branches else [text for one in branches for text in one or ()]
    if isinstance(node, nodes.Const):
        return ["" if node.value is None else str(node.value)]
    return None


def _parts(node: nodes.Node) -> list[list[nodes.Node]]:
    """Return the bodies of a statement whose text is inserted at the place of the statement.

    The body of a macro or of a `{% set %}` block is not included: its text is a value, which is
    escaped where it is inserted.
    """
    if isinstance(node, nodes.If):
        return [node.body, *(branch.body for branch in node.elif_), node.else_]
    if isinstance(node, nodes.For):
        return [node.body, node.else_]
    if isinstance(node, nodes.With | nodes.Scope | nodes.Block):
        return [node.body]
    return []


@dataclass(frozen=True, slots=True)
class _JsonPlace:
    """A place in a JSON text: whether it is in a string, and the key to whose value it belongs."""

    in_string: bool = False
    string: str = ""  # the current or the latest string
    key: str = ""

    def after(self, text: str, line: int) -> _JsonPlace:
        """Return the place at the end of this text. Raises TemplateError."""
        in_string, string, key, is_escaped = self.in_string, self.string, self.key, False
        for character in text:
            if in_string and (is_escaped or character not in '\\"'):
                string, is_escaped = string + character, False
            elif in_string:
                is_escaped, in_string = character == "\\", character == "\\"
            elif character == '"':
                in_string, string = True, ""
            elif character in ":,{}[]":
                key = string if character == ":" else ""
        if is_escaped:
            raise TemplateError(
                at_line(line, "there is a backslash before an expression; remove it")
            )
        return _JsonPlace(in_string, string, key)

    def filter(self, context: Context) -> str:
        """Return the name of the filter that escapes a value at this place."""
        if self.in_string and self.key.lower().endswith("url"):
            return "json string"
        return f"{context.value} {'string' if self.in_string else 'value'}"


def _escape_json(body: Sequence[nodes.Node], place: _JsonPlace, context: Context) -> _JsonPlace:
    """Escape each expression for its place in the JSON text; return the place after the body.

    Raises TemplateError if the place after a statement depends on the event.
    """
    for node in body:
        if isinstance(node, nodes.Output):
            node.nodes, place = _escaped_output(node, place, context)
        ends = [_escape_json(part, place, context) for part in _parts(node)]
        if isinstance(node, nodes.For):
            ends.append(place)  # if there is no iteration
        place = _only(ends, node) if ends else place
    return place


def _escaped_output(
    output: nodes.Output, place: _JsonPlace, context: Context
) -> tuple[list[nodes.Expr], _JsonPlace]:
    """Return the text and the escaped expressions of the output, and the place after them."""
    children: list[nodes.Expr] = []
    for child in output.nodes:
        texts = [child.data] if isinstance(child, nodes.TemplateData) else _literals(child)
        if texts is None or (place.in_string and not isinstance(child, nodes.TemplateData)):
            children.append(_filtered(child, place.filter(context)))
        else:  # literals, such as the comma in `{{ "," if not loop.last }}`
            children.append(child)
            place = _only([place.after(text, child.lineno) for text in texts], child)
    return children, place


def _only(ends: Sequence[_JsonPlace], node: nodes.Node) -> _JsonPlace:
    """Return the place after all branches. Raises TemplateError if it depends on the branch."""
    if len({end.in_string for end in ends}) > 1:
        problem = "whether a JSON string ends here depends on the event"
        raise TemplateError(at_line(node.lineno, problem))
    keys, strings = ({end.key for end in ends}, {end.string for end in ends})
    return _JsonPlace(
        ends[0].in_string,
        string=strings.pop() if len(strings) == 1 else "",
        key=keys.pop() if len(keys) == 1 else "",
    )
