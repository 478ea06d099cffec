"""The contract of every option that is a template, whatever the type of the hook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import pytest

from receiver import hooks
from receiver.config import hook_secrets
from receiver.config.hooks_file import HookEntry
from receiver.deliveries import Subscription
from receiver.delivery.failures import endpoint_health
from receiver.errors import PermanentFailure, RenderFailed, SettingsError
from receiver.events import Media
from receiver.hooks.base import Hook, Previewing
from receiver.outgoing import connections
from tests.support.hook_servers import Mailbox, Page, Site, notice, smtp_server
from tests.support.queue_servers import QueueServer
from tests.support.templates import templates_of

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
MEDIA = (Media("image", "https://cdn.example/0.png"),)
HOSTILE = [
    "x\r\nBcc: evil@example.com\r\n\r\nbody",
    '","admin":true,"x":"',
    "1, 2",
    "<script>alert(1)</script>\"'><!channel>&amp;",
    "{{ task.id }} {% raw %} ${TOKEN}",
    "\ud800 \u202e \x1b[31m 🧥 é \0",
    "a" * 100_000,
]


@dataclass
class Endpoint:
    """An endpoint that accepts every message; `messages` are their texts."""

    options: dict[str, Any]
    messages: Callable[[], list[str]]


@contextmanager
def website(type_: str) -> Iterator[Endpoint]:
    with Site() as site:
        site.pages["/"] = Page(b"ok")
        options: dict[str, Any] = {"url": f"{site.url}/", "allow_private": True}
        if type_ == "webhook":
            options["secrets"] = [SECRET]

        def messages() -> list[str]:
            return [f"{dict(one.headers)}\n{one.body.decode()}" for one in site.requests]

        yield Endpoint(options, messages)


def texts(letter: EmailMessage) -> Iterator[str]:
    for part in letter.walk():
        if part.get_content_maintype() == "text":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            yield content.decode().replace("\r\n", "\n")


@contextmanager
def mail_server(_: str) -> Iterator[Endpoint]:
    box: Mailbox
    with smtp_server() as box:
        options = {
            "host": "127.0.0.1",
            "port": box.port,
            "from": "shop@shop.example",
            "to": "team@shop.example",
        }

        def messages() -> list[str]:
            return [
                "\n".join([str(letter["Subject"]), *texts(letter)]) for _, letter in box.letters
            ]

        yield Endpoint(options, messages)


@contextmanager
def queue(server: QueueServer) -> Iterator[Endpoint]:
    options = server.options()
    found: list[str] = []

    def messages() -> list[str]:
        found.extend(f"\n{message.body.decode()}" for message in server.received(options))
        return found

    yield Endpoint(options, messages)
    connections.close_idle()


@dataclass(frozen=True)
class Case:
    """An option that is a template, and the text around an expression in it."""

    type: str
    key: str
    around: str = "{}"  # the text around the expression
    server: Callable[[Any], Any] = website

    def options(self, expression: str) -> dict[str, Any]:
        text = self.around.replace("{}", f"{{{{ {expression} }}}}")
        first, _, rest = self.key.partition(".")
        return {
            **({"body": "text"} if self.key == "content_type" else {}),
            first: {rest: text} if rest else text,
        }


CASES = [
    Case("webhook", "body", '{"a": "{}", "b": [{}, "-{}-"]}'),
    Case("webhook", "headers.X-Order", "a {}"),
    Case("webhook", "content_type", "text/plain; order={}"),
    Case("queue", "body", '{"a": "{}", "b": [{}, "-{}-"]}', queue),
    Case("email", "subject", "a {}", mail_server),
    Case("email", "text", "a {}", mail_server),
    Case("email", "html", '<p title="{}">a {}</p>', mail_server),
    Case("slack", "text", "*{}*"),
    Case("slack", "blocks", '[{"text": "{}", "image_url": "{}"}, {}]'),
]
ONE_LINE = ("headers.X-Order", "content_type", "subject")


@pytest.fixture(params=CASES, ids=lambda case: f"{case.type}.{case.key}")
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def endpoint(case: Case, request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    given = case.type
    if case.type == "queue":
        given = request.getfixturevalue("queue_servers")("redis")
    with case.server(given) as endpoint:
        yield endpoint


def build(case: Case, endpoint: Endpoint, expression: str, **environ: str) -> Hook:
    options = {**endpoint.options, **case.options(expression)}
    subscription = Subscription("shop", frozenset({"succeeded"}))
    return hooks.build(HookEntry("shop", case.type, subscription, options), environ)


def test_every_template_is_tested_here() -> None:
    tested = {(case.type, case.key.partition(".")[0]) for case in CASES}
    assert tested == set(templates_of(hooks.TYPES))


def test_a_field_of_the_event_is_inserted(case: Case, endpoint: Endpoint) -> None:
    build(case, endpoint, "task.reference").send(notice(media=MEDIA))
    (message,) = endpoint.messages()
    assert "ORDER-7" in message
    assert "{{" not in message


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_nothing_else_in_the_message(
    case: Case, endpoint: Endpoint, text: str
) -> None:
    about = notice(media=MEDIA, reference=text)
    hook = build(case, endpoint, "task.reference")
    problem = None
    try:
        assert hook.send(about).answer
    except RenderFailed as failure:
        problem = str(failure)
    if problem is not None:
        assert case.key in ONE_LINE
        assert problem.startswith(f'hook "shop": {case.key}: contains ')
        assert endpoint.messages() == []
        return
    (message,) = endpoint.messages()
    head, _, body = message.partition("\n")
    assert not any(line.startswith("Bcc") for line in head.splitlines())
    if case.key == "body":
        document = json.loads(body)
        assert list(document) == ["a", "b"]
        assert len(document["b"]) == 2
    if case.key == "html":
        assert "<script>" not in body[body.index('<p title="') :]
    if case.type == "slack":
        payload = json.loads(body)
        assert payload.keys() <= {"text", "blocks"}
        assert "<!channel>" not in payload["text"]
        if case.key == "blocks":
            block, value = payload["blocks"]
            assert list(block) == ["text", "image_url"]
            assert "<!channel>" not in block["text"] + value


def test_a_message_with_a_line_break_is_not_sent(case: Case, endpoint: Endpoint) -> None:
    if case.key not in ONE_LINE:
        return
    with pytest.raises(RenderFailed, match="line break"):
        build(case, endpoint, "task.reference").send(notice(reference="a\nX-Admin: 1"))
    build(case, endpoint, "task.reference | one_line").send(notice(reference="a\nX-Admin: 1"))
    (message,) = endpoint.messages()
    assert "a X-Admin: 1" in message


@pytest.mark.parametrize(
    "expression", ["order", "task.refrence", "media[0].uri", "task.id | money"]
)
def test_an_unknown_name_is_reported_when_the_hook_is_built(
    case: Case, endpoint: Endpoint, expression: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        build(case, endpoint, expression)
    key = case.key.partition(".")[0]
    name = expression.replace("[0]", "[…]").rpartition(" ")[2]
    assert all(line.startswith(f'hooks.toml: hook "shop": {key}') for line in caught.value.problems)
    assert all(f"line 1: {name} is not a f" in line for line in caught.value.problems)


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("task.metadata.color", "task.metadata.color is not in this event"),
        ("media[3].url", "media[3] is not in this event"),
        ("task.reference * task.metadata.n", "too large"),
        ("1 / 0", "division by zero"),
        ("''.__class__.__mro__", "unsafe"),
    ],
)
def test_a_missing_value_is_a_permanent_failure_that_names_it(
    case: Case, endpoint: Endpoint, expression: str, named: str
) -> None:
    hook = build(case, endpoint, expression)
    about = notice(media=MEDIA, metadata={"n": 10**10})
    with pytest.raises(RenderFailed) as caught:
        hook.send(about)
    assert str(caught.value).startswith(f'hook "shop": {case.key}: ')
    assert named in str(caught.value)
    assert isinstance(caught.value, PermanentFailure)
    assert endpoint_health(caught.value) is None
    assert endpoint.messages() == []


def test_a_huge_text_is_refused(case: Case, endpoint: Endpoint) -> None:
    hook = build(case, endpoint, "'x' * 300000")
    with pytest.raises(RenderFailed, match="longer than 256 KB"):
        hook.send(notice())


def test_the_preview_shows_what_is_sent(case: Case, endpoint: Endpoint) -> None:
    hook = build(case, endpoint, "task.reference")
    assert isinstance(hook, Previewing)
    about = notice(media=MEDIA)
    preview = hook.preview(about)
    assert endpoint.messages() == []
    hook.send(about)
    (message,) = endpoint.messages()
    assert "ORDER-7" in f"{preview.headers}{preview.body}"
    if case.type == "webhook":
        assert message.endswith(f"\n{preview.body}")
        sent = [name for name in preview.headers if name.lower() in message.lower()]
        assert sent == list(preview.headers)
    elif case.type == "queue":
        assert message == f"\n{preview.body}"
    elif case.type == "slack":
        assert json.loads(preview.body) == json.loads(message.partition("\n")[2])
    else:
        assert preview.headers["Subject"] in message
        assert preview.body.rpartition("---\n")[2] in message


def test_a_secret_in_a_template_is_sent_but_shown_in_no_error(
    case: Case, endpoint: Endpoint
) -> None:
    value = "wrong_secret_1"
    options = {**endpoint.options, **case.options("task.reference ~ '${TOKEN}'")}
    entry = HookEntry("shop", case.type, Subscription("shop", frozenset()), options)
    hooks.build(entry, {"TOKEN": value}).send(notice())
    assert value in endpoint.messages()[0]
    assert value in hook_secrets.secrets([entry], {"TOKEN": value})
    with pytest.raises(SettingsError) as caught:
        build(case, endpoint, f"task.reference }}}} {{% {'${TOKEN}'} %}} {{{{ 1", TOKEN=value)
    assert value not in str(caught.value)


def test_a_string_without_jinja_syntax_is_sent_unchanged(case: Case, endpoint: Endpoint) -> None:
    options = {**endpoint.options, **case.options("x")}
    key = case.key.partition(".")[0]
    plain = {"body": "[1]", "blocks": "[1]", "headers": {"X": "{a}"}}.get(key, "a b")
    entry = HookEntry("shop", case.type, Subscription("shop", frozenset()), {**options, key: plain})
    hooks.build(entry, {}).send(notice())
    (message,) = endpoint.messages()
    assert (plain if isinstance(plain, str) else "{a}").replace("[1]", "1") in message
