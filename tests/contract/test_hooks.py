"""The contract of every hook type, whatever it sends and to which endpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from receiver import hooks
from receiver.config.hooks_file import HookEntry
from receiver.deliveries import Subscription
from receiver.errors import DeliveryFailure, PermanentFailure, SettingsError, TemporaryFailure
from receiver.events import Media
from receiver.hooks import brokers
from receiver.hooks.base import Hook, Previewing
from receiver.hooks.download import Download
from receiver.outgoing import connections
from tests.support import hook_servers
from tests.support.hook_servers import Mailbox, Page, Site, notice, picture, smtp_server
from tests.support.ports import free_port
from tests.support.postgres_proxy import Between
from tests.support.queue_servers import SERVERS, QueueServer, set_credentials

HOSTILE = [
    "x\r\nBcc: evil@example.com\r\n\r\nbody",
    "=?utf-8?q?x=0D=0ABcc:_evil=40example.com?=",
    "<script>alert(1)</script>\"'><!channel>&amp;",
    "../../../../etc/passwd\0",
    "{task.__class__} %s ${HOME} `id` $(id)",
    "\ud800 \u202e \x1b[31m 🧥 é",
    "a" * 100_000,
    "",
    " ",
]


@dataclass
class Case:
    """A hook, and the endpoint to which it sends."""

    hook: Hook
    options: dict[str, Any]
    received: Callable[[], list[str]]  # the idempotency key of each message
    refuse: Callable[[], None]  # makes the endpoint refuse the next event
    break_down: Callable[[], None]  # makes the endpoint unavailable


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.pages["/0.png"] = Page(picture())
        site.pages["/slack"] = Page(b"ok")
        yield site


@pytest.fixture
def media(site: Site) -> tuple[Media, ...]:
    return (Media("image", f"{site.url}/0.png"),)


def build(type_: str, options: dict[str, Any]) -> Hook:
    subscription = Subscription("shop", frozenset({"succeeded", "failed"}))
    return hooks.build(HookEntry("shop", type_, subscription, options), {})


def download(site: Site, tmp_path: Path) -> Iterator[Case]:
    options = {"to": str(tmp_path / "files"), "allow_private": True}

    def received() -> list[str]:
        return [str(path) for path in (tmp_path / "files").rglob("*") if path.is_file()]

    def refuse() -> None:
        site.pages["/0.png"] = Page(b"gone", 404)

    def break_down() -> None:
        site.pages["/0.png"] = Page(b"busy", 503)

    yield Case(build("download", options), options, received, refuse, break_down)


def email(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    def received() -> list[str]:
        return [str(letter["Message-ID"]) for _, letter in box.letters]

    def refuse() -> None:
        box.refuse["DATA"] = "554 no"

    def break_down() -> None:
        box.refuse["MAIL"] = "421 busy"

    box: Mailbox
    with smtp_server() as box:
        options = {
            "host": "127.0.0.1",
            "port": box.port,
            "from": "shop@shop.example",
            "to": "team@shop.example",
            "subject": "{reference} {task} {status} {provider}",
        }
        yield Case(build("email", options), options, received, refuse, break_down)


def slack(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    options = {"url": f"{site.url}/slack", "allow_private": True}

    def received() -> list[str]:
        return [
            json.loads(request.body)["blocks"][1]["fields"][0]["text"] for request in site.requests
        ]

    def refuse() -> None:
        site.pages["/slack"] = Page(b"no_service", 404)

    def break_down() -> None:
        site.pages["/slack"] = Page(b"rollup_error", 500)

    yield Case(build("slack", options), options, received, refuse, break_down)


def webhook(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    site.pages["/hook"] = Page(b"thanks")
    options = {
        "url": f"{site.url}/hook",
        "secrets": ["whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="],
        "allow_private": True,
    }

    def received() -> list[str]:
        return [request.headers["webhook-id"] for request in site.requests]

    def refuse() -> None:
        site.pages["/hook"] = Page(b"no", 400)

    def break_down() -> None:
        site.pages["/hook"] = Page(b"busy", 503)

    yield Case(build("webhook", options), options, received, refuse, break_down)


NOTE_IT = """
import os, pathlib, sys
told = sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
if folder.joinpath("refuse").exists():
    sys.exit("no")
if folder.joinpath("break").exists():
    sys.exit(os.EX_TEMPFAIL)
with folder.joinpath("told").open("a") as file:
    print(os.environ["CALLBACK_EVENT_ID"], file=file)
print("noted")
"""


def command(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    folder = tmp_path / "files"
    folder.mkdir()
    options = {"command": [sys.executable, "-c", NOTE_IT, str(folder)]}

    def received() -> list[str]:
        return (folder / "told").read_text().splitlines()

    refuse, break_down = (folder / "refuse").touch, (folder / "break").touch
    yield Case(build("command", options), options, received, refuse, break_down)


def python(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    options = {"call": "tests.support.hook_servers:on_event"}
    hook_servers.events.clear()
    hook_servers.refusals.clear()

    def refuse() -> None:
        hook_servers.refusals.append(PermanentFailure("no"))

    def break_down() -> None:
        hook_servers.refusals.append(TemporaryFailure("busy"))

    def received() -> list[str]:
        return [event["id"] for event in hook_servers.events]

    yield Case(build("python", options), options, received, refuse, break_down)
    hook_servers.refusals.clear()


def apprise(site: Site, tmp_path: Path) -> Iterator[Case]:  # noqa: ARG001
    site.pages["/apprise"] = Page(b"ok")
    address = site.url.removeprefix("http://")
    options = {"url": f"json://{address}/apprise", "allow_private": True}

    def received() -> list[str]:
        bodies = [json.loads(request.body) for request in site.requests]
        return [body["message"].splitlines()[0] for body in bodies]

    def refuse() -> None:
        site.pages["/apprise"] = Page(b"no", 422)

    def break_down() -> None:
        site.pages["/apprise"] = Page(b"busy", 503)

    yield Case(build("apprise", options), options, received, refuse, break_down)


def queue(broker: str, server: QueueServer, site: Site) -> Iterator[Case]:
    """The target has the provider in its name, so its absence concerns only some events."""
    port = free_port()
    proxy = Between(server.port, port)
    direct = server.options(by_provider=True)
    options = {**direct, "url": direct["url"].replace(str(server.port), str(port))}
    found: list[str] = []

    def received() -> list[str]:
        found.extend(message.id for message in server.received(direct))
        return found

    def refuse() -> None:
        server.spoil(direct)
        if broker == "sqs":
            refusal = {"__type": "com.amazonaws.sqs#InvalidMessageContents"}
            site.pages["/"] = Page(json.dumps(refusal).encode(), 400)
            proxy.server_port = site.server.server_port

    yield Case(build("queue", options), options, received, refuse, proxy.close)
    connections.close_idle()


CASES = {
    "apprise": apprise,
    "command": command,
    "download": download,
    "email": email,
    "python": python,
    "slack": slack,
    "webhook": webhook,
}


@pytest.fixture(params=[*CASES, *(f"queue {broker}" for broker in brokers.BROKERS)])
def case(
    request: pytest.FixtureRequest, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    type_, _, broker = request.param.partition(" ")
    if type_ == "queue":
        set_credentials(monkeypatch)
        yield from queue(broker, request.getfixturevalue("queue_servers")(broker), site)
    else:
        yield from CASES[type_](site, tmp_path)


def test_every_hook_type_is_tested_here() -> None:
    assert {*CASES, "queue"} == set(hooks.TYPES)
    assert set(SERVERS) == set(brokers.BROKERS)


def test_a_hook_has_the_name_of_its_entry(case: Case) -> None:
    assert case.hook.name == "shop"


def test_a_second_send_has_the_same_idempotency_key(case: Case, media: tuple[Media, ...]) -> None:
    case.hook.send(notice(media=media))
    case.hook.send(notice(media=media))
    assert len(set(case.received())) == 1


def test_different_tasks_have_different_idempotency_keys(
    case: Case, media: tuple[Media, ...]
) -> None:
    case.hook.send(notice(media=media, id="task-1"))
    case.hook.send(notice(media=media, id="task-2"))
    assert len(set(case.received())) == 2


def test_the_returned_text_is_one_printable_line(case: Case, media: tuple[Media, ...]) -> None:
    answer = case.hook.send(notice(media=media)).answer
    assert answer
    assert answer.isprintable()


@pytest.mark.parametrize("status", ["failed", "given_up", "processing"])
def test_a_task_without_a_result_is_sent(case: Case, status: str) -> None:
    assert case.hook.send(notice(status, reason="risk control")).answer


def test_a_success_without_a_result_is_sent(case: Case) -> None:
    assert case.hook.send(notice()).answer


@pytest.mark.parametrize("status", ["succeeded", "failed", "given_up"])
def test_a_preview_sends_nothing_and_names_the_event(
    case: Case, site: Site, media: tuple[Media, ...], status: str
) -> None:
    if not isinstance(case.hook, Previewing):
        assert isinstance(case.hook, Download)
        return
    before = len(site.requests)
    preview = case.hook.preview(notice(status, media, reason="risk control"))
    assert "ORDER-7" in f"{preview.headers}{preview.body}"
    assert preview.destination.isprintable()
    assert len(site.requests) == before


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless(case: Case, site: Site, tmp_path: Path, text: str) -> None:
    media = Media("image", f"{site.url}/0.png", index=text, duration=text)
    hostile = notice(
        "failed",
        (media, Media("image", f"{site.url}/0.png", index=text + "2")),
        reference=text,
        reason=text,
        provider_task_id=text,
        cost=text,
    )
    case.hook.send(hostile)
    assert len(set(case.received())) in (1, 2)  # messages, or files
    assert {path.name for path in tmp_path.iterdir()} <= {"files"}


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip()])
def test_a_hostile_kind_or_url_causes_at_most_a_failure(case: Case, site: Site, text: str) -> None:
    for media in (
        Media(text, f"{site.url}/0.png"),
        Media("image", text),
        Media("video", f"{site.url}/{text}"),
    ):
        answer = ""
        try:
            answer = case.hook.send(notice(media=(media,))).answer
        except DeliveryFailure as failure:
            answer = str(failure)
        assert answer.isprintable()


def test_a_refusal_is_a_delivery_failure(case: Case, media: tuple[Media, ...]) -> None:
    case.refuse()
    with pytest.raises(DeliveryFailure) as caught:
        case.hook.send(notice(media=media))
    assert str(caught.value)


def test_a_refused_event_does_not_count_against_the_endpoint(
    case: Case, media: tuple[Media, ...]
) -> None:
    case.refuse()
    with pytest.raises(DeliveryFailure) as caught:
        case.hook.send(notice(media=media))
    assert not isinstance(caught.value, TemporaryFailure)


def test_an_endpoint_that_is_down_is_a_temporary_failure(
    case: Case, media: tuple[Media, ...]
) -> None:
    case.break_down()
    with pytest.raises(TemporaryFailure):
        case.hook.send(notice(media=media))


def test_an_unknown_option_is_refused_by_name(case: Case, request: pytest.FixtureRequest) -> None:
    type_ = request.node.callspec.params["case"].partition(" ")[0]
    problem = r'^hooks\.toml: hook "shop": colour: is not an option of this type'
    with pytest.raises(SettingsError, match=problem):
        build(type_, {**case.options, "colour": "red"})
