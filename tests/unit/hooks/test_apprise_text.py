"""Text from outside is plain text for every service: it contains no mention, markup or link."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from receiver.endpoints import Alert, AlertKind
from receiver.events import Media
from receiver.hooks.apprise import Apprise
from tests.support.hook_servers import notice

BREAK = "\u200b"
TOKEN = "t" * 60
SERVICES = {
    "discord": f"discord://1234567890123/{TOKEN}",
    "discord, embeds": f"discord://1234567890123/{TOKEN}?format=markdown",
    "fluxer": f"fluxer://1234567890123/{TOKEN}",
    "guilded": f"guilded://1234567890123/{TOKEN}",
    "telegram": "tgram://123456789:abcdefg_hijklmnop/12345/",
    "telegram, MarkdownV2": "tgram://123456789:abcdefg_hijklmnop/12345/?format=markdown&mdv=v2",
    "slack": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c",
    "slack, blocks": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c?blocks=yes",
    "slack, markdown": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c?format=markdown",
    "matrix": "matrixs://token12345@host.example/?mode=slack",
    "mattermost": "mmost://host.example/3ccdd113474722377935511fc85d3dd4",
    "google chat": "gchat://workspace/key1234/token1234",
    "webex": f"wxteams://{'a' * 80}",
    "teams": f"workflows://host.example:443/{'a' * 32}/{'b' * 43}/",
    "zulip": "zulip://bot@org/abcdefghijklmnopqrstuvwxyz012345/stream",
    "ntfy": "ntfy://host.example/topic",
    "gotify": "gotify://host.example/token12345",
    "revolt": "revolt://bottoken/01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "ryver": "ryver://org/abcdefghijklmno",
    "nextcloud talk": "nctalk://user:pass@host.example/roomid",
    "pushover": f"pover://{'u' * 30}@{'t' * 30}",
    "feishu": "feishu://abcdefghijklmno",
    "dingtalk": "dingtalk://abcdefgh",
    "wecom": "wecombot://abcdefghij-abcdefghij",
    "misskey": "misskey://token@host.example/",
    "kook": "kook://abc/123",
    "line": "line://tok=/U1",
    "mastodon": f"mastodons://{TOKEN}@host.example/",
}
# Texts that a service would interpret, in all fields that outsiders choose: reference, reason, kind
# of output.
HOSTILE = [
    "@everyone",
    "x@here",
    "<@1234567890>",
    "<@!1234567890>",
    "<@&4567890123>",
    "<#1234567890>",
    "<!channel>",
    "<!subteam^S123|all>",
    "<users/all>",
    '<at user_id="all">all</at>',
    "<b>bold</b>",
    "<a href='https://evil.example'>click</a>",
    "[text](https://evil.example/x)",
    "<https://evil.example|click>",
    "https://evil.example/x",
    "www.evil.example",
    "@**all**",
    "@room",
    "tom & jerry &lt;",
]
RAW = ["@everyone", "@here", "@1234", "@!1234", "@&4567", "<#1234", "<!channel", "<!subteam"]
RAW += ["<users", "<at ", "<b>bold", "<a href", "://evil", "www.evil", "@**", "@room"]
RENDERING_MARKDOWN = ["discord", "discord, embeds", "fluxer", "guilded", "mattermost", "webex"]
RENDERING_MARKDOWN += ["teams", "revolt", "ryver", "nextcloud talk", "kook", "telegram, MarkdownV2"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All requests, captured instead of being sent to real services."""
    found: list[Any] = []

    def answer(*_: Any, **given: Any) -> requests.Response:
        content = given.get("data") or given.get("json")
        if isinstance(content, (str, bytes)):
            content = json.loads(content)
        found.append(content)
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(b'{"ok": true, "result": []}')
        return response

    monkeypatch.setattr(requests, "post", answer)
    monkeypatch.setattr(requests, "put", answer)
    monkeypatch.setattr(requests.Session, "request", lambda _, *args, **more: answer(*args, **more))
    return found


def hook(url: str) -> Apprise:
    return Apprise("phones", {"url": url, "allow_private": True})


def sent_by(url: str, sent: list[Any], **task: Any) -> str:
    """Return every text in the requests, as the service receives it."""
    sent.clear()
    media = (Media("image", "https://cdn.example/a_b.png?x=1"),)
    try:
        hook(url).send(notice("failed", media=media, **task))
    except Exception:  # noqa: BLE001 - some expect another response; only the request counts
        assert sent
    return "\n".join(texts(sent))


def texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for one in content.values():
            yield from texts(one)
    elif isinstance(content, list):
        for one in content:
            yield from texts(one)


def visible(text: str) -> str:
    return html.unescape(text.replace(BREAK, "").replace("\\", "").replace("&nbsp;", " "))


@pytest.mark.parametrize("name", SERVICES)
def test_no_text_from_outside_is_interpreted(name: str, sent: list[Any]) -> None:
    for text in HOSTILE:
        found = sent_by(SERVICES[name], sent, reference=text, reason=f"because of {text}")
        assert [raw for raw in RAW if raw in found] == [], (text, found)


@pytest.mark.parametrize("name", SERVICES)
def test_text_from_outside_is_shown_unchanged(name: str, sent: list[Any]) -> None:
    for text in ("ORDER_7*x*", "[text](https://evil.example/x)", "<b>bold</b>", "@everyone"):
        found = sent_by(SERVICES[name], sent, reference=text, reason=f"because of {text}")
        assert f"because of {text}" in visible(visible(found)), found


@pytest.mark.parametrize("name", RENDERING_MARKDOWN)
def test_markdown_is_escaped(name: str, sent: list[Any]) -> None:
    found = sent_by(SERVICES[name], sent, reason="a *b* _c_ `d` ~~e~~ ||f|| [g](h) > # \\ !")
    for character in "*_`~|[]()>#":
        reason = found.partition("Reason")[2].partition("Image")[0]
        assert character not in reason.replace(f"\\{character}", ""), found


@pytest.mark.parametrize("name", SERVICES)
def test_the_link_to_a_result_is_not_escaped(name: str, sent: list[Any]) -> None:
    found = sent_by(SERVICES[name], sent)
    escaped = found.replace("\\", "") if "MarkdownV2" in name else found
    assert "https://cdn.example/a_b.png?x=1" in escaped


@pytest.mark.parametrize("url", [SERVICES["discord"], SERVICES["discord, embeds"]])
def test_a_mention_in_a_text_notifies_nobody_on_discord(url: str, sent: list[Any]) -> None:
    sent_by(url, sent, reason="@everyone <@1234567890> bob@shop.example")
    assert sent[-1]["allowed_mentions"] == {"parse": []}
    assert "👉" not in sent[-1].get("content", "")


def test_a_mention_that_the_hook_configures_is_sent(sent: list[Any]) -> None:
    url = f"{SERVICES['discord']}?ping=<@1234567890>"
    sent_by(url, sent, reason="@everyone <@9999999999>")
    assert sent[-1]["allowed_mentions"]["users"] == ["1234567890"]
    assert sent[-1]["allowed_mentions"]["parse"] == []


@pytest.mark.parametrize("name", SERVICES)
def test_the_text_of_an_alert_is_escaped_too(name: str, sent: list[Any]) -> None:
    reason = "@everyone <!channel> https://evil.example <b>bold"
    try:
        hook(SERVICES[name]).alert(Alert(1, "mail", AlertKind.PAUSED, 1_765_519_850_000, reason))
    except Exception:  # noqa: BLE001 - as above
        assert sent
    found = "\n".join(texts(sent))
    assert [raw for raw in RAW if raw in found] == []


@pytest.mark.parametrize("scheme", ["json", "form"])
def test_a_program_receives_the_text_unchanged(scheme: str, sent: list[Any]) -> None:
    found = sent_by(f"{scheme}://host.example/path", sent, reason="@everyone <b> https://a.example")
    assert "@everyone <b> https://a.example" in found
