"""The values of secrets are redacted in every spelling in which a text repeats them."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

import pytest

from receiver.config.hook_secrets import secrets
from receiver.config.hooks_file import HookEntry
from receiver.config.settings import Settings
from receiver.deliveries import Subscription
from receiver.processes.current_hooks import known_secrets
from receiver.text.display import hiding, hiding_values

ID, TOKEN = "123456789012345678", "Canary-abc_DEF.canary"
URLS = [
    f"https://discord.com/api/webhooks/{ID}/{TOKEN}",
    f"discord://{ID}/{TOKEN}",
    f"discord://robot@{ID}/{TOKEN}?format=markdown",
    f"tgram://{ID}:{TOKEN}/12345/",
    f"https://api.telegram.org/bot{ID}:{TOKEN}/sendMessage",
    f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN}/#general",
    f"https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/{TOKEN}",
    f"https://shop.example/hook?token={TOKEN}&x=1",
    f"https://shop.example/hook?{TOKEN}",
    f"https://user:{TOKEN}@shop.example/hook",
    f"https://shop.example/prefix/{TOKEN}/",
    f"mailto://user:{TOKEN}@example.com",
    f"json://host.example/{TOKEN}",
    f"ntfys://{TOKEN}/",
    f"matrix://user:{TOKEN}@host.example/#room",
    f"amqps://user:{TOKEN}@rabbitmq:5671/vhost",
    f"rediss://:{TOKEN}@localhost/0",
]
ECHOES: list[Callable[[str], str]] = [
    lambda text: text,
    json.dumps,
    lambda text: json.dumps(text).replace("/", "\\/"),
    lambda text: quote(text, safe=""),
    quote,
    quote_plus,
    lambda text: quote(quote(text, safe=""), safe=""),
    lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    unquote,
    html.escape,
    repr,
    lambda text: f"Max retries exceeded with url: /{text.split('/', 3)[-1]} (Caused by x)",
    lambda text: f"no such resource: {text.rstrip('/').split('/')[-1]}",
    lambda text: f"line\n{text}\nline",
]


def entry(kind: str, **options: object) -> HookEntry:
    return HookEntry("x", kind, Subscription("x", frozenset({"succeeded"})), options)


@pytest.mark.parametrize("echo", range(len(ECHOES)))
@pytest.mark.parametrize("url", URLS)
def test_the_url_of_a_hook_is_redacted_in_every_spelling_and_part(url: str, echo: int) -> None:
    for hide in (hiding([url]), hiding_values([url])):
        shown = hide(ECHOES[echo](url))
        assert "anary" not in shown
        assert TOKEN not in unquote(shown)


@pytest.mark.parametrize(
    "secret", ["s+cr/t=v&lue", 'quo"te<d>value', "pässwörd-value", "a b c d e"]
)
@pytest.mark.parametrize("echo", range(10))
def test_a_value_is_redacted_in_every_spelling(secret: str, echo: int) -> None:
    assert hiding_values([secret])(f"<{ECHOES[echo](secret)}>").strip('<">') == "…"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:p%40ssword-of-mail@shop.example/hook",
        "https://shop.example/hook?sig=a%2Bssword-of-mail",
        "https://shop.example/a%2fssword-of-mail",
        "https://user:%70ssword-of-mail@shop.example/hook",
    ],
)
def test_an_escaped_value_of_a_url_is_also_redacted_without_escapes(url: str) -> None:
    """Libraries report a password in the form in which they send it, not in the form of the URL."""
    hide = hiding_values([url])
    for value in ("p@ssword-of-mail", "a+ssword-of-mail", "a/ssword-of-mail", "pssword-of-mail"):
        for spelling in (value, quote(value, safe=""), quote(value, safe="").lower()):
            expected = "…" if quote(unquote(url)).count(quote(value)) else spelling
            assert hide(f"<{spelling}>") == f"<{expected}>"


def test_only_the_token_is_redacted_and_words_remain() -> None:
    hide = hiding_values([f"https://shop.example/webhooks/notifications/{TOKEN}"])
    assert hide(f"the token {TOKEN}") == "the token …"
    words = "the webhooks of shop.example send notifications over https"
    assert hide(words) == words


@pytest.mark.parametrize("host", ["localhost:5672", "rabbitmq", "redis-server:6379"])
@pytest.mark.parametrize("scheme", ["amqp", "amqps", "redis", "rediss"])
def test_the_host_of_a_broker_is_not_redacted(scheme: str, host: str) -> None:
    hide = hiding_values([f"{scheme}://user:{TOKEN}@{host}/0"])
    assert hide(f"{host} is down") == f"{host} is down"


def test_a_routing_key_is_not_a_secret() -> None:
    found = secrets([entry("queue", url="${BROKER}", routing_key="${QUEUE}")], {"QUEUE": "orders"})
    assert found == set()


def test_the_username_and_password_of_a_url_are_redacted_as_an_authorization_header() -> None:
    hide = hiding_values([f"https://user:{TOKEN}@shop.example/hook"])
    header = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    assert header not in hide(f"Authorization: {header}")


def test_passwords_and_keys_are_secrets_even_if_the_file_contains_them() -> None:
    found = secrets(
        [
            entry("email", host="mail.example", password="in-the-file", username="shop"),
            entry("webhook", url="https://a.example/hook", secrets=["whsec_one", "whsec_two"]),
            entry("python", options={"api_key": "key-in-a-table", "name": "visible"}),
        ],
        {},
    )
    assert {"in-the-file", "whsec_one", "whsec_two", "key-in-a-table"} <= found
    assert not {"shop", "visible", "mail.example"} & found


def test_a_template_is_no_secret_but_the_variables_in_it_are() -> None:
    """Otherwise the whole text of a template with a URL would be hidden in all logs."""
    body = '{"see": "https://shop.example/orders/{{ task.reference }}", "key": "${ERP_TOKEN}"}'
    headers = {"Authorization": "Bearer in-the-file", "X-Order": "{{ task.id }}"}
    found = secrets([entry("webhook", body=body, headers=headers)], {"ERP_TOKEN": "of-the-erp"})
    assert found == {"of-the-erp", "Bearer in-the-file"}
    for key in ("text", "html", "subject", "blocks"):
        assert secrets([entry("x", **{key: "see https://shop.example/a/page"})], {}) == frozenset()


def test_a_variable_that_only_the_worker_has_causes_no_error_elsewhere() -> None:
    found = secrets(
        [entry("slack", url="${SLACK_URL}"), entry("slack", url="https://b.example")], {}
    )
    assert found == {"https://b.example"}


def test_the_address_of_a_mail_server_is_not_a_secret() -> None:
    mail = entry("email", host="${HOST}", port="${PORT}", password="${PASSWORD}")
    environ = {"HOST": "127.0.0.1", "PORT": "8925", "PASSWORD": TOKEN}
    assert secrets([mail], environ) == {TOKEN}
    command = entry("command", env={"host": "${HOST}"})  # whose meaning is unknown
    assert secrets([mail, command], environ) == {TOKEN, "127.0.0.1"}


def test_the_keys_of_the_object_storage_are_secrets() -> None:
    assert secrets([], {"AWS_SECRET_ACCESS_KEY": "of-the-bucket"}) == {"of-the-bucket"}


def test_all_processes_know_the_secrets_of_settings_and_hooks(tmp_path: Path) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text(f'[[hook]]\nname = "a"\ntype = "apprise"\nurl = "discord://{ID}/{TOKEN}"\n')
    settings = Settings(
        database_url="postgresql://user:password-of-the-database@db.example/receiver",
        callback_secrets=("c" * 40,),
        hooks_file=file,
        api_token="t" * 40,
        dashboard_password="p" * 40,
        secret_key="k" * 40,
        webhook_secrets={"kling": ("w" * 40,)},
    )
    found = known_secrets(settings, environ={})
    assert found >= {letter * 40 for letter in "ctpkw"}
    assert f"discord://{ID}/{TOKEN}" in found
    assert "password-of-the-database" in found
    assert "receiver" not in found


def test_an_unreadable_hooks_file_does_not_prevent_redacting_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text("[[hook]")
    settings = Settings(database_url="sqlite:///x", callback_secrets=("c" * 40,), hooks_file=file)
    assert known_secrets(settings, environ={}) == {"c" * 40}


def test_a_url_that_shares_ordinary_words_with_the_url_of_a_hook_is_shown() -> None:
    hide = hiding_values(["http://127.0.0.1:8900/_sandbox/slack/incoming-webhooks"])
    result = "http://127.0.0.1:8900/_sandbox/results/1.png"
    assert hide(result) == result
