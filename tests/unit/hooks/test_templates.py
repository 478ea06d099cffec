"""Templates escape each value for its place, limit the event, and report every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.deliveries import Notice
from receiver.errors import RenderFailed
from receiver.events import Media
from receiver.hooks.templates import (
    MAX_OUTPUT,
    Context,
    Template,
    TemplateError,
    context_of,
    sandbox,
)
from receiver.hooks.templates.sandbox import MAX_FIELD, MAX_ITEMS
from tests.support.hook_servers import notice

URL = "https://cdn.example/0.png?a=1&b=2"
MEDIA = (Media("image", URL), Media("image", "https://cdn.example/1.png", "1"))
HOSTILE = [
    '","admin":true,"x":"',
    "\\",
    '\\"',
    "1,2",
    "]}",
    "\n\r\t\x00\x1b[31m",
    "</script><b>",
    "{{ task.id }}",
    "\ud800",
    "é🧥\u2028",
    "<!channel> @here",
]


def render(source: str, context: Context, about: Notice | None = None, **values: Any) -> str:
    template = Template(source, context, tuple(values))
    template.check()
    about = about or notice(media=MEDIA, metadata={"cart": 7, "tags": ["a", "b"]})
    return template.render(about, hook="shop", key="body", **values)


def problems(source: str, context: Context = Context.JSON) -> tuple[str, ...]:
    with pytest.raises(TemplateError) as caught:
        Template(source, context).check()
    return caught.value.problems


def failure(source: str, context: Context, about: Notice | None = None) -> str:
    with pytest.raises(RenderFailed) as caught:
        render(source, context, about)
    return str(caught.value)


def test_a_string_without_jinja_syntax_is_sent_unchanged() -> None:
    source = 'for {task} % }} <b> "é"\n'
    assert render(source, Context.TEXT) == source
    assert Template(source, Context.TEXT).is_constant


def test_only_a_template_loads_jinja() -> None:
    """Most hooks have no template, and commands that load hooks have to start quickly."""
    code = (
        "import sys; from receiver.hooks.templates import Template, Context; "
        "Template('[1]', Context.JSON).check(); print('jinja2' in sys.modules); "
        "Template('[{{ 1 }}]', Context.JSON).check(); print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_changes_the_structure_of_json(text: str) -> None:
    source = """{"in": "a {{ task.reference }} b", "out": {{ task.reference }},
        "{{ task.reference }}": [{{ task.reference }}, {{ task.metadata.x }}],
        "object": {{ task.metadata }}, "text": "{{ task.metadata | tojson }}"}"""
    about = notice(reference=text, metadata={"x": text})
    document = json.loads(render(source, Context.JSON, about))
    stored = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert list(document) == ["in", "out", stored, "object", "text"]
    assert document["in"] == f"a {stored} b"
    assert document["out"] == stored
    assert document[stored] == [stored, stored]
    assert document["object"] == json.loads(document["text"]) == {"x": stored}


@pytest.mark.parametrize(
    "source",
    [
        '{"cost": {{ task.cost }}}',
        '{"cost": {{ task.cost | e }}}',
        '{"cost": {{ task.cost ~ "" }}}',
        '{"cost": {{ [task.cost] | join }}}',
        '{"cost": {{ task.cost | tojson ~ "" }}}',
        '{% set cost = task.cost %}{"cost": {{ cost }}}',
        '{% set cost %}{{ task.cost }}{% endset %}{"cost": {{ cost }}}',
        '{% macro cost() %}{{ task.cost }}{% endmacro %}{"cost": {{ cost() }}}',
        '{% with cost = task.cost %}{"cost": {{ cost }}}{% endwith %}',
        '{% for cost in [task.cost] %}{"cost": {{ cost }}}{% endfor %}',
        '{% if task.cost %}{"cost": {{ task.cost }}}{% else %}{"cost": 0}{% endif %}',
        '{% block cost %}{"cost": {{ task.cost }}}{% endblock %}',
        '{"cost": {{ task.cost if task.cost else 0 }}}',
        '{{ "{" }}"cost": {{ task.cost }}{{ "}" if id else " }" }}',
    ],
)
def test_a_value_outside_a_string_is_always_one_json_value(source: str) -> None:
    document = json.loads(render(source, Context.JSON, notice(cost="1, 2")))
    (member,) = document.items()
    assert member[0] == "cost"
    assert isinstance(member[1], str)


def test_values_in_json_have_their_types() -> None:
    source = """{"null": {{ task.reason }}, "empty": "{{ task.reason }}", "number":
        {{ task.metadata.cart }}, "bool": {{ corrected }}, "text": "{{ corrected }}",
        "urls": {{ media | map(attribute="url") }}, "missing": {{ task.id if corrected }},
        "list": [{% for one in media %}"{{ one.index }}"{{ "," if not loop.last }}{% endfor %}]}"""
    assert json.loads(render(source, Context.JSON)) == {
        "missing": None,
        "null": None,
        "empty": "",
        "number": 7,
        "bool": False,
        "text": "false",
        "urls": [URL, "https://cdn.example/1.png"],
        "list": ["0", "1"],
    }


def test_safe_inserts_a_value_without_escaping() -> None:
    about = notice(cost="1, 2")
    assert render("[{{ task.cost | safe }}]", Context.JSON, about) == "[1, 2]"
    assert render("{{ task.reference | safe }}", Context.HTML, notice(reference="<b>")) == "<b>"


@pytest.mark.parametrize("text", HOSTILE)
def test_values_are_escaped_for_html_forms_and_slack(text: str) -> None:
    about = notice(reference=text)
    html = render('<a title="{{ task.reference }}">{{ task.reference }}</a>', Context.HTML, about)
    assert html.count("<") == html.count(">") == 2
    assert html.count('"') == 2
    form = render("a={{ task.reference }}&b={{ task.reference | e }}&c=1", Context.FORM, about)
    assert parse_qs(form, keep_blank_values=True).keys() == {"a", "b", "c"}
    slack = render("*{{ task.reference }}*", Context.SLACK, about)
    assert not {"<", ">"} & set(slack)
    assert "@here" not in slack


def test_a_url_stays_a_link_in_slack_and_a_picture_in_blocks() -> None:
    assert render("<{{ media[0].url }}|open>", Context.SLACK) == (
        "<https://cdn.example/0.png?a=1&amp;b=2|open>"
    )
    blocks = '[{"image_url": "{{ media[0].url }}", "text": "<{{ media[0].url }}|open> {{ id }}"}]'
    (block,) = json.loads(render(blocks, Context.SLACK_JSON))
    assert block["image_url"] == URL
    assert block["text"].startswith("<https://cdn.example/0.png?a=1&amp;b=2|open>")


def test_values_in_blocks_cannot_mention_anyone() -> None:
    about = notice(reference='<!channel> "x"')
    source = '[{"text": "{{ task.reference }}"}, {{ task.reference }}, {{ task.metadata }}]'
    block, text, metadata = json.loads(render(source, Context.SLACK_JSON, about))
    assert block["text"] == text == '&lt;!channel&gt; "x"'
    assert metadata == {}


def test_a_key_that_depends_on_the_event_is_not_treated_as_a_url() -> None:
    source = '[{ {% if id %}"image_url"{% else %}"text"{% endif %}: "{{ task.reference }}"}]'
    (block,) = json.loads(render(source, Context.SLACK_JSON, notice(reference="<!here>")))
    assert block == {"image_url": "&lt;!here&gt;"}


def test_the_context_of_a_body_depends_on_its_content_type() -> None:
    for content_type, context in {
        "application/json; charset=utf-8": Context.JSON,
        "application/vnd.api+JSON": Context.JSON,
        "text/html": Context.HTML,
        "application/soap+xml": Context.HTML,
        "application/x-www-form-urlencoded": Context.FORM,
        "text/plain": Context.TEXT,
        "": Context.TEXT,
    }.items():
        assert context_of(content_type) is context, content_type


@pytest.mark.parametrize("character", ["\n", "\r", "\x0b", "\x0c", "\x1d", "\x85", "\u2028"])
@pytest.mark.parametrize("context", [Context.LINE, Context.HEADER])
def test_a_line_break_in_a_header_is_refused(context: Context, character: str) -> None:
    about = notice(reference=f"x{character}Bcc: evil@example.com")
    assert "line break; use | one_line" in failure("a {{ task.reference }}", context, about)
    assert render("a {{ task.reference | one_line }}", context, about) == (
        "a x Bcc: evil@example.com"
    )


def test_a_header_is_printable_ascii() -> None:
    about = notice(reference="é")
    assert "U+00E9" in failure("{{ task.reference }}", Context.HEADER, about)
    assert render("{{ task.reference | urlencode }}", Context.HEADER, about) == "%C3%A9"
    assert "U+0000" in problems("a\0b", Context.HEADER)[0]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ order }}", "line 1: order is not a field of the event; use corrected, id, media"),
        ("\n\n{{ task.refrence }}", "line 3: task.refrence is not a field of the event; use acc"),
        ('{{ task["refrence"] }}', "task.refrence is not a field"),
        ("{% if task.paid %}1{% endif %}", "task.paid is not a field"),
        ("{{ media[0].uri }}", "media[…].uri is not a field of the event; use expires_at"),
        ("{{ (media | first).uri }}", ".uri is not a field"),
        ("{{ media[1:][0].uri }}", ".uri is not a field"),
        ("{% for m in media %}{{ m.uri }}{% endfor %}", "m.uri is not a field"),
        ("{{ task.cost | money }}", "money is not a filter"),
        ("{% if task is odd_one %}{% endif %}", "odd_one is not a test"),
        ("{{ task.cost | slack }}", "slack is not a filter"),
        ("{% include 'a' %}", "a template cannot include, import or extend another one"),
        ("{{ task.id", "line 1: "),
        ("{% if %}", "line 1: "),
        ("{{ pictures }}", "pictures is not a field"),
    ],
)
def test_a_mistake_is_reported_when_the_file_is_loaded(source: str, named: str) -> None:
    (problem,) = problems(source, Context.TEXT)
    assert named in problem


def test_all_mistakes_are_reported_together() -> None:
    assert len(problems("{{ a }} {{ task.b }} {{ media[0].c }}", Context.TEXT)) == 3


@pytest.mark.parametrize(
    "source",
    [
        "{{ task.metadata.a.b.c if task.metadata.a }}",
        "{% for key, value in task.items() %}{{ key }}{% endfor %}",
        "{% for key in task.metadata %}{{ key }}{% endfor %}",
        "{% set task = media %}{{ task[0].url }}",
        "{% for media in [1] %}{{ media.bit_length() }}{% endfor %}",
        "{% for m in media %}{% for m in task.metadata.tags %}{{ m.x }}{% endfor %}{% endfor %}",
        "{% if test %}TEST{% endif %}",
        "{{ task.metadata.get('x', 'y') }} {{ range(3) | list }} {{ namespace(a=1).a }}",
    ],
)
def test_members_that_may_exist_are_accepted(source: str) -> None:
    Template(source, Context.TEXT).check()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ task.metadata.color }}", 'hook "shop": body: line 1: task.metadata.color is not in'),
        ("\n{{ task.metadata.a.b }}", "line 2: task.metadata.a is not in this event"),
        ("{{ task.metadata.tags[7] }}", "task.metadata.tags[7] is not in this event"),
        ("{{ media[7].url }}", "media[7] is not in this event"),
        ("{{ outputs.cut.file }}", "outputs.cut is not in this event: the hook cut has not return"),
        ("{{ media.url }}", "media is a list, so use media[0].url or a loop over media"),
        ("{{ (media | last).url }}", "No last item, sequence was empty"),
        ("{{ task.cost + 1 }}", "unsupported operand"),
        ("{{ task.metadata.items }}", "cannot be inserted"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ task.metadata.update(a=1) }}", "unsafe"),
        ("{{ '%s' | format(task.metadata.color) }}", "task.metadata.color"),
    ],
)
def test_a_value_that_an_event_lacks_is_a_failure_that_names_it(source: str, named: str) -> None:
    about = notice() if "last" in source else None
    assert named in failure(source, Context.TEXT, about)


def test_a_member_of_the_metadata_takes_precedence_over_python_methods() -> None:
    about = notice(metadata={"items": 1, "keys": "k"})
    source = "{{ task.metadata.items }} {{ task.metadata['keys'] }}"
    assert render(source, Context.TEXT, about) == "1 k"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('{"a": "{{ id }}', "a string has no closing quote"),
        ('{"a": {% if test %}"x{% endif %}"}', "whether a JSON string ends here"),
        ('{"a": "{% for m in media %}"{% endfor %}}', "whether a JSON string ends here"),
        ("[{{ '\"' if test }}]", "whether a JSON string ends here"),
        ("[{{ '\"' }}{{ id }}]", "no closing quote"),
        ('{"a": "\\{{ id }}"}', "backslash"),
        (
            "[{% autoescape true %}{{ id }}{% endautoescape %}]",
            "{% autoescape %} is allowed only in HTML",
        ),
        ("[{% filter upper %}{{ id }}{% endfilter %}]", "{% filter %} are not allowed"),
        ("[1", "is not JSON: Expecting ',' delimiter at line 1, column 3"),
        ("[NaN]", "is not JSON: it contains NaN"),
        ("", "is not JSON"),
    ],
)
def test_json_that_can_never_be_valid_is_refused(source: str, problem: str) -> None:
    assert problem in problems(source)[0]


def test_json_that_is_invalid_for_an_event_is_a_failure() -> None:
    assert "is not JSON: Expecting value at line 1" in failure("[{{ '' }}, {{ id }}]", Context.JSON)
    assert "is not a list of blocks" in failure("{{ task.metadata }}", Context.SLACK_JSON)


def test_long_texts_and_lists_of_the_event_are_cut() -> None:
    about = notice(
        reference="x" * 1_000_000, media=tuple(Media("image", URL, str(n)) for n in range(1_500))
    )
    assert render("{{ task.reference }}", Context.TEXT, about) == "x" * (MAX_FIELD - 1) + "…"
    assert render("{{ media | length }}", Context.TEXT, about) == str(MAX_ITEMS)


def test_the_size_is_limited_while_the_text_is_rendered() -> None:
    """Otherwise, the nested loops would run for many minutes."""
    about = notice(reference="x" * 4_000)
    nested = "{% for i in range(100000) %}{% for j in range(100000) %}é{% endfor %}{% endfor %}"
    assert "body: the text is longer than 256 KB" in failure(nested, Context.TEXT, about)
    accepted, refused = (
        f"{{% for i in range({number}) %}}{{{{ task.reference }}}}{{% endfor %}}"
        for number in (65, 66)
    )
    assert len(render(accepted, Context.TEXT, about)) == 65 * 4_000 <= MAX_OUTPUT
    assert "longer than 256 KB" in failure(refused, Context.TEXT, about)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ 'x' * task.metadata.n }}", "the result of * is too large"),
        ("{{ task.metadata.n * 'x' }}", "the result of * is too large"),
        ("{{ [1] * task.metadata.n }}", "the result of * is too large"),
        ("{{ 2 ** task.metadata.n }}", "the result of ** is too large"),
        ("{{ 'x'.ljust(task.metadata.n) }}", "unsafe"),
        ("{{ range(task.metadata.n) | list }}", "Range too big"),
        ("{{ task.id | indent(task.metadata.n, first=true) }}", "for indent is larger than 1,000"),
        ("{{ task.id | indent(width=task.metadata.n) }}", "for indent is larger than 1,000"),
        ("{{ [1] | batch(task.metadata.n, 0) | list }}", "for batch is larger than 1,000"),
        ("{{ [1] | slice(task.metadata.n) | list }}", "for slice is larger than 1,000"),
        ("{{ (1).to_bytes(task.metadata.n, 'big') | length }}", "unsafe"),
        *[
            (source, "a width or a precision is larger than 9999, or not constant")
            for source in (
                "{{ '%*d' | format(task.metadata.n, 1) }}",
                "{{ '%-.*f' % (task.metadata.n, 1) }}",
                "{{ task.metadata.percent | format(1) }}",
                "{{ task.metadata.percent % {'a': 1} }}",
                "{{ '{:>{}}'.format(1, task.metadata.n) }}",
                "{{ task.metadata.braces.format_map({'a': 1}) }}",
            )
        ],
    ],
)
def test_a_huge_number_in_the_metadata_creates_no_huge_text(source: str, problem: str) -> None:
    metadata = {"n": 10**12, "percent": "%(a)0999999999999d", "braces": "{a:>999999999999}"}
    assert problem in failure(source, Context.TEXT, notice(metadata=metadata))


def test_a_huge_number_makes_no_huge_json_in_html() -> None:
    source = "{{ task | tojson(indent=task.metadata.n) }}"
    assert "for tojson is larger" in failure(source, Context.HTML, notice(metadata={"n": 10**12}))
    assert render("{{ task.metadata.n | tojson }}", Context.HTML, notice(metadata={"n": 5000}))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ '%05.1f|%-4s|%d%%' | format(2.5, 'a', 100000) }}", "002.5|a   |100000%"),
        ("{{ '100%% * %s' % 12345 }}", "100% * 12345"),
        ("{{ '{{}} {:>5} {a}'.format(123456, a='{b}') }}", "{} 123456 {b}"),
        ("{{ 'a\nb' | indent(4) }}", "a\n    b"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }}", "[[1, 2], [3, 0]]"),
    ],
)
def test_usual_widths_and_counts_are_accepted(source: str, text: str) -> None:
    assert render(source, Context.TEXT) == text


def test_an_error_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setitem(sandbox.ENVIRONMENTS[False].filters, "upper", fail)
    assert failure("{{ task.id | upper }}", Context.TEXT).endswith("body: line 1: MemoryError")


def test_deeply_nested_metadata_is_a_failure() -> None:
    metadata: dict[str, Any] = {}
    for _ in range(2_000):
        metadata = {"a": metadata}
    assert "nested too deeply" in failure("{{ task.id }}", Context.TEXT, notice(metadata=metadata))


def test_a_deeply_nested_template_is_refused() -> None:
    assert problems("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", Context.TEXT)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
EVERYTHING = {
    Context.JSON: """{"a": "{{ task.reference }}", "b": {{ task.reason }}, "c": {{ task.metadata }},
        "d": [{% for one in media %}{"u": "{{ one.url }}"}{{ "," if not loop.last }}{% endfor %}],
        "{{ task.reference }}!": "{{ task.metadata }}"}""",
    Context.SLACK_JSON: '[{"text": "{{ task.reference }}", "url": "{{ media[0].url }}"},'
    " {{ task.reason }}, {{ task.metadata }}]",
    Context.SLACK: "{{ task.reference }} <{{ media[0].url }}|x> {{ task.metadata }}",
    Context.HTML: "<p title='{{ task.reference }}'>{{ task.reason }} {{ task.metadata }}</p>",
    Context.FORM: "a={{ task.reference }}&b={{ task.reason }}&c={{ task.metadata }}",
    Context.TEXT: "{{ task.reference }} {{ task.reason }} {{ task.metadata }} {{ media }}",
}


@given(
    text=st.text(max_size=60),
    reason=st.text(max_size=60),
    url=st.text(max_size=60),
    data=JSON_VALUES,
)
def test_any_event_is_rendered_with_the_structure_of_the_template(
    text: str, reason: str, url: str, data: Any
) -> None:
    about = notice(
        "failed", (Media("image", url),), reference=text, reason=reason, metadata={"x": data}
    )
    rendered = {context: render(source, context, about) for context, source in EVERYTHING.items()}
    document = json.loads(rendered[Context.JSON])
    assert {key.rstrip("!") for key in document} <= {"a", "b", "c", "d", *_stored(text)}
    assert document["c"] == json.loads(json.dumps({"x": data}).replace("\\u0000", "\\ufffd"))
    assert [list(one) for one in document["d"]] == [["u"]]
    block, second, _ = json.loads(rendered[Context.SLACK_JSON])
    assert list(block) == ["text", "url"]
    assert isinstance(second, str)
    assert rendered[Context.SLACK].count("<") == 1
    assert rendered[Context.HTML].count("<") == 2
    assert parse_qs(rendered[Context.FORM], keep_blank_values=True).keys() == {"a", "b", "c"}


def _stored(text: str) -> set[str]:
    return {text.replace("\0", "\ufffd").rstrip("!")}


@pytest.mark.parametrize(
    ("value", "is_link"),
    [
        (URL, True),
        ("http://a.example", True),
        ("javascript:alert(1)", False),
        ("x", False),
        (7, False),
    ],
)
def test_only_a_url_is_a_link(value: object, is_link: bool) -> None:
    source = "{{ 'yes' if task.metadata.it is link else 'no' }}"
    about = notice(metadata={"it": value})
    assert render(source, Context.HTML, about) == ("yes" if is_link else "no")


def test_a_url_cannot_end_its_link_in_slack() -> None:
    about = notice(media=(Media("image", "https://cdn.example/a|b>c"),))
    text = render("<{{ media[0].url }}|result>", Context.SLACK, about)
    assert text == "<https://cdn.example/a%7Cb&gt;c|result>"
