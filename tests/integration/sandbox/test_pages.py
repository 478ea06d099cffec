"""The inboxes and pages show received messages, and run no scripts in them."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import pytest
import requests

from sandbox.server import Sandbox
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from tests.support.sandbox_client import Kling

HOSTILE = '<script>alert("x")</script>'


def send_mail(sandbox: Sandbox) -> None:
    message = EmailMessage()
    message["Subject"] = f"DEMO-1 {HOSTILE}"
    message["From"], message["To"] = "shop@shop.example", "orders@shop.example"
    message.set_content("plain")
    message.add_alternative(f'{HOSTILE}<img src="cid:pic">', subtype="html")
    html = message.get_body(("html",))
    assert html is not None
    html.add_related(b"PNG", "image", "png", cid="<pic>", disposition="inline")
    message.add_attachment("<b>page</b>", subtype="html", filename="page.html")
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=PATIENCE) as client:
        client.send_message(message)


def get(sandbox: Sandbox, session: requests.Session, path: str) -> requests.Response:
    return session.get(sandbox.url + path, timeout=PATIENCE)


def test_a_mail_is_stored_and_listed(sandbox: Sandbox, session: requests.Session) -> None:
    send_mail(sandbox)
    (mail,) = get(sandbox, session, "/_sandbox/mail.json").json()
    assert mail["envelope_to"] == ["orders@shop.example"]
    assert [part["content_type"] for part in mail["attachments"]] == ["image/png", "text/html"]
    assert sandbox.mails()[0].as_json() == mail


def test_a_mail_is_shown_in_a_sandboxed_frame(sandbox: Sandbox, session: requests.Session) -> None:
    send_mail(sandbox)
    page = get(sandbox, session, "/_sandbox/mail/1")
    assert HOSTILE not in page.text
    assert "<iframe sandbox " in page.text
    body = get(sandbox, session, "/_sandbox/mail/1/body")
    assert '<img src="/_sandbox/mail/1/parts/0">' in body.text
    policy = body.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy
    picture, attached = (get(sandbox, session, f"/_sandbox/mail/1/parts/{n}") for n in (0, 1))
    assert (picture.content, picture.headers["Content-Type"]) == (b"PNG", "image/png")
    assert attached.headers["Content-Type"] == "application/octet-stream"
    assert attached.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["2", "2/body", "2/raw", "1/parts/9", "x"])
def test_a_missing_message_is_404(sandbox: Sandbox, session: requests.Session, path: str) -> None:
    send_mail(sandbox)
    assert get(sandbox, session, f"/_sandbox/mail/{path}").status_code == 404


def test_slack_responds_and_stores_the_message(sandbox: Sandbox, session: requests.Session) -> None:
    hook = f"{sandbox.url}/_sandbox/slack/T0/B0/x"
    blocks = [{"type": "header", "text": {"type": "plain_text", "text": HOSTILE}}]
    taken = session.post(hook, json={"text": "done", "blocks": blocks}, timeout=PATIENCE)
    assert (taken.status_code, taken.text) == (200, "ok")
    assert taken.headers["Content-Type"].startswith("text/plain")
    for body, answer in ((b"{", "invalid_payload"), (b"{}", "no_text")):
        refused = session.post(hook, data=body, timeout=PATIENCE)
        assert (refused.status_code, refused.text) == (400, answer)
    (message,) = get(sandbox, session, "/_sandbox/slack.json").json()
    assert (message["webhook"], message["payload"]["text"]) == ("T0/B0/x", "done")
    assert sandbox.slack_messages()[0].as_json() == message
    page = get(sandbox, session, "/_sandbox/slack").text
    assert HOSTILE not in page
    assert "<h2>&lt;script&gt;" in page


ODD_BLOCKS: list[dict[str, Any]] = [
    {"type": "context", "elements": [1, None, {"type": "image"}, {"type": "mrkdwn"}]},
    {"type": "actions", "elements": [{"type": "button", "url": "javascript:alert(1)"}, "x"]},
    {"type": "section", "text": {"type": "mrkdwn", "text": "a"}, "accessory": {"type": "button"}},
    {"type": "image", "slack_file": {}, "alt_text": "a"},
]


@pytest.mark.parametrize("block", ODD_BLOCKS)
def test_an_unusual_block_does_not_break_the_page(
    sandbox: Sandbox, session: requests.Session, block: dict[str, Any]
) -> None:
    session.post(f"{sandbox.url}/_sandbox/slack/x", json={"blocks": [block]}, timeout=PATIENCE)
    page = get(sandbox, session, "/_sandbox/slack")
    assert page.status_code == 200
    assert 'href="javascript:' not in page.text


def test_the_home_page_shows_tasks_with_their_pictures(
    sandbox: Sandbox, session: requests.Session, kling: Kling
) -> None:
    assert "KLING_ACCESS_KEY=" in get(sandbox, session, "/").text
    done = kling.ended(kling.created(external_task_id=HOSTILE)["task_id"])
    page = get(sandbox, session, "/").text
    assert done["task_result"]["images"][0]["url"] in page
    assert HOSTILE not in page
    (task,) = get(sandbox, session, "/_sandbox/tasks").json()
    assert (task["status"], task["scenario"]) == ("succeeded", "succeed")


@pytest.mark.parametrize("path", ["/", "/_sandbox/mail", "/_sandbox/slack"])
def test_an_empty_page_says_how_to_fill_it(
    sandbox: Sandbox, session: requests.Session, path: str
) -> None:
    page = get(sandbox, session, path)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        ({"provider": "kling", "scenario": "failed"}, 200, "failed"),
        ({"provider": "kling", "scenario": "failed", "count": 3}, 200, "3"),
        ({"provider": "kling", "scenario": "nope"}, 400, "the scenarios are: succeed"),
        ({"provider": "acme", "scenario": "failed"}, 400, "provider must be one of: kling"),
        ({"provider": ["kling"], "scenario": "failed"}, 400, "provider must be"),
        ({"provider": "kling", "scenario": "failed", "count": 0}, 400, "count must be"),
        ({"provider": "kling", "scenario": "failed", "count": True}, 400, "count must be"),
        ([], 400, "JSON object"),
    ],
)
def test_the_next_scenario_is_selected_by_name(
    sandbox: Sandbox, session: requests.Session, wanted: Any, status: int, said: str
) -> None:
    answer = session.post(f"{sandbox.url}/_sandbox/next", json=wanted, timeout=PATIENCE)
    assert answer.status_code == status
    assert said in answer.text
