"""Every page, with a full record and an empty one: complete, safe, and without secrets."""

from __future__ import annotations

import gzip
import re
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner

from receiver.clock import now_ms
from receiver.deliveries import Attempt, File, State
from receiver.errors import RequestRefused
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.dashboard_visits import PASSWORD, FullSite, token
from tests.support.rich_record import (
    HOSTILE,
    MINUTE,
    SIGNATURE,
    TOKEN,
    Rich,
    picture,
    settle,
    tell,
)
from tests.support.samples import SECRET, body, callback, subscription

LISTS = [
    "",
    "tasks",
    "tasks?view=gallery",
    "tasks?status=open&provider=kling&within=24h",
    "deliveries",
    "deliveries?state=pending",
    "deliveries?hook=chat",
    "dead",
    "redeliver",
    "redeliver?state=dead&hook=mail&count=1",
    "redeliver?state=dead&count=1",
    "endpoints",
    "quarantine",
]
TASKS = [f"tasks/{name}" for name in Rich().tasks]
VOID = {"meta", "link", "input", "img", "path", "rect", "circle", "line"}


class Checker(HTMLParser):
    """Checks the tags as a browser parses them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.fields: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("href", "src", "action") if name in found]
        self.faults += [name for name in found if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.faults.append(f"<{tag}> is in the page")
        if tag == "img" and "alt" not in found:
            self.faults.append("a picture without a text alternative")
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if tag == "label" and found.get("for"):
            self.labelled.add(found["for"] or "")
        if tag in ("input", "select") and found.get("type") != "hidden":
            named = "label" in self.open or found.get("id") or found.get("aria-label")
            self.faults += [] if named else [f"a field without a label: {found}"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.faults == []
    assert sorted(set(checker.ids)) == sorted(checker.ids)
    return checker


@pytest.mark.parametrize("path", LISTS)
def test_an_empty_record_is_explained(browser: FlaskClient, path: str) -> None:
    answer = browser.get(f"/dashboard/{path}")
    assert answer.status_code == 200
    checked(answer.text)


@pytest.mark.parametrize("path", [*LISTS, *TASKS])
def test_a_full_record_is_shown_completely_and_safely(full: FullSite, path: str) -> None:
    answer = full.browser.get(f"/dashboard/{path}")
    assert answer.status_code == 200
    found = checked(answer.text)
    assert HOSTILE not in answer.text
    assert "<script>alert" not in answer.text
    assert "<img src=https" not in answer.text
    outside = [link for link in found.links if not re.match(r"/dashboard/|#|\?", link)]
    assert outside == []
    assert "http://" not in re.sub(r"<pre.*?</pre>", "", answer.text, flags=re.DOTALL)


@pytest.mark.parametrize("path", [*LISTS, *TASKS])
def test_no_page_shows_a_secret(full: FullSite, path: str) -> None:
    text = full.browser.get(f"/dashboard/{path}").text
    for secret in (TOKEN, SIGNATURE, SECRET, PASSWORD):
        assert secret not in text


def test_the_record_contains_the_secrets(full: FullSite) -> None:
    kept = repr(full.store.lists.callbacks(limit=99))
    assert TOKEN in kept
    assert SIGNATURE in kept


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"task_id": "p", "task_status": "failed", "task_status_msg": "so \ud83d \u0000 it is"}',
        b'{"task_id": "p", "task_status": "failed", "task_status_msg": "so \0\n\xe9 it is"}',
        rb'{"task_id": "p", "task_id": "\ud83d", "task_status_msg": "so \u0000 it is"}',
        rb'{"task_id": "p", "\ud83d": NaN, "task_status_msg": "so \u0000 it is"}',
        b"so \xff\0 it is",
        '{"task_id": "p", "task_status": "failed", "task_status_msg": "so it is"}'.encode("utf-16"),
    ],
)
def test_a_message_with_characters_that_no_page_can_show_is_shown(
    browser: FlaskClient, store: SqliteStore, raw: bytes
) -> None:
    ingest = Ingest(store)
    with suppress(RequestRefused):
        ingest.accept(callback(raw))
    (stored,) = store.lists.callbacks()
    where = ["quarantine"] if stored.outcome == "quarantined" else []
    for path in ("tasks/task-1", *where):
        answer = browser.get(f"/dashboard/{path}")
        page = answer.get_data(as_text=True)
        assert answer.status_code == 200
        assert "\0" not in page
        assert "it is" in page
        assert page.count("&#34;task_id&#34;:") >= raw.count(b'"task_id":')  # both, if repeated
    assert stored.callback.body == raw


def test_hostile_text_is_shown_as_text(full: FullSite) -> None:
    text = full.browser.get(f"/dashboard/tasks/{full.rich.hostile}").text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text


def test_nothing_of_a_forgotten_task_is_shown(full: FullSite) -> None:
    text = full.browser.get(f"/dashboard/tasks/{full.rich.forgotten}").text
    assert "Forgotten" in text
    assert "ORDER-5" not in text
    assert "Redeliver to" not in text


def test_a_task_shows_its_timeline_with_the_times_between(full: FullSite) -> None:
    text = re.sub(r"\s+", " ", full.browser.get(f"/dashboard/tasks/{full.rich.succeeded}").text)
    for words in ("Created", "Processing", "Succeeded", "pictures: attempt 1 delivered"):
        assert words in text
    assert "+0.900 s" in text
    assert "ab" * 32 in text
    assert "&#34;task_status&#34;: &#34;succeed&#34;" in text  # pretty JSON
    assert "user-agent" in text


def test_an_output_that_was_not_downloaded_shows_when_it_expires(
    browser: FlaskClient, rich: Rich
) -> None:
    for path in ("tasks", "tasks?view=gallery", f"tasks/{rich.not_downloaded}"):
        text = browser.get(f"/dashboard/{path}").text
        assert re.search(r"not downloaded, expires in (19|20) h", text), path


def test_one_missing_output_of_two_shows_its_number_and_when_it_expires(
    browser: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    ends = f"Expires={now_ms() // 1000 + 3600}"
    images = [{"index": n, "url": f"https://cdn.example/{n}.png?{ends}"} for n in (0, 1)]
    told = callback(body("succeed", task_result={"images": images}), received_at=now_ms())
    Ingest(store, (subscription("pictures"),)).accept(told)
    (delivery,) = store.outbox.claim("worker", now_ms(), 10_000, 10)
    settle(store, delivery, State.PENDING, now_ms(), "1 of 2 downloaded", picture(tmp_path))
    for path in ("tasks", "tasks?view=gallery", "tasks/task-1"):
        assert "not downloaded, expires in" in browser.get(f"/dashboard/{path}").text, path
    page = browser.get("/dashboard/tasks/task-1").text
    assert 'alt="Output 1 of task-1' in page
    assert "<dt>Output</dt><dd>2</dd>" in page  # as in the response of the attempt


def test_lists_mark_a_task_with_a_mismatch(browser: FlaskClient, store: SqliteStore) -> None:
    ingest = Ingest(store)
    ingest.accept(callback(body("processing", "one")))
    ingest.accept(callback(body("processing", "another")))
    for path in ("tasks", "tasks?view=gallery", "tasks/task-1"):
        assert re.search(
            r'class="badge[^>]*>.{0,60}mismatch', browser.get(f"/dashboard/{path}").text
        )


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "The body is empty."),
        (gzip.compress(bytes(300_000)), "The body is not text. Its"),
        (bytes(range(128, 256)), "The body is not text. Its 128 bytes are stored"),
    ],
)
def test_a_body_that_cannot_be_shown_says_why(
    browser: FlaskClient, store: SqliteStore, raw: bytes, says: str
) -> None:
    headers = {"Host": "shop.example", "Content-Encoding": "gzip" if raw[:1] == b"\x1f" else ""}
    with suppress(RequestRefused):
        Ingest(store).accept(callback(raw, headers=headers))
    page = browser.get("/dashboard/quarantine").text
    assert says in page
    assert "\ufffd" not in page
    assert "Its body was erased" not in page


@pytest.mark.usefixtures("rich")
def test_the_overview_shows_counts(browser: FlaskClient) -> None:
    text = re.sub(r"\s+", " ", browser.get("/dashboard/").text)
    for words in (
        "<strong>1</strong> <span>open</span>",
        "<strong>3</strong> <span>succeeded</span>",
        "<strong>2</strong> <span>failed</span>",
        "<strong>5</strong> <span>dead letters</span>",
    ):
        assert words in text
    assert "The hook chat keeps failing" in text
    assert "The hook mail is paused" in text
    assert "No worker is running" not in text


def test_the_overview_shows_deliveries_that_endpoints_hold(
    browser: FlaskClient, store: SqliteStore
) -> None:
    def figure() -> str:
        text = re.sub(
            r"<[^>]+>|\s+", " ", browser.get("/dashboard/").text.split("callbacks missed")[1]
        )
        return re.sub(r"\s+", " ", text)

    Ingest(store, [subscription("mail")]).accept(callback())
    assert " d backlog age 1 pending, 1 due " in figure()
    store.endpoints.pause("mail", now_ms())
    assert "1 delivery held back of 1 pending " in figure()
    store.endpoints.resume("mail", now_ms())
    assert len(store.outbox.claim("worker", now_ms(), now_ms() + 60_000, 1)) == 1
    assert "none backlog age 0 pending, 0 due " in figure()


def test_the_server_s_date_is_the_only_one(browser: FlaskClient) -> None:
    assert "Date" not in browser.get("/dashboard/").headers


def test_without_a_worker_the_overview_says_so(browser: FlaskClient) -> None:
    assert "No worker is running" in browser.get("/dashboard/").text


def test_deliveries_for_a_missing_hook_are_shown_as_waiting(
    browser: FlaskClient, store: SqliteStore
) -> None:
    Ingest(store, [subscription("gone")]).accept(callback())
    assert "1 delivery waits, because the hook gone is not" in browser.get("/dashboard/").text
    for page in ("deliveries", "deliveries?state=pending", "tasks/task-1"):
        text = browser.get(f"/dashboard/{page}").text
        assert "aits, because its hook is not in the hooks file" in text
    shown = browser.get("/dashboard/endpoints").text.partition('id="hook-gone"')[2]
    assert "receiver endpoints drop gone" in shown
    assert "healthy" not in shown.partition("</li>\n</ul>")[0]


def test_a_rejected_hooks_file_is_shown_while_its_process_runs(
    browser: FlaskClient, store: SqliteStore
) -> None:
    problem = f"hooks.toml: <b>is</b> not TOML {SECRET}"
    store.activity.report_problem("host:1", "worker", problem, now_ms())
    text = browser.get("/dashboard/").text
    assert (
        "The hooks file was rejected by the worker; the previous one is used: hooks.toml:" in text
    )
    assert "&lt;b&gt;is&lt;/b&gt; not TOML …" in text
    assert SECRET not in text
    store.activity.report_problem("host:2", "web", problem, now_ms())
    assert "rejected by the web process and the worker;" in browser.get("/dashboard/").text
    store.activity.report_problem("host:2", "web", None, now_ms())
    store.activity.report_problem("host:1", "worker", problem, now_ms() - 31_000)  # it is dead
    assert "The hooks file was rejected" not in browser.get("/dashboard/").text


@pytest.mark.usefixtures("rich")
def test_charts_have_a_text_alternative(browser: FlaskClient) -> None:
    text = browser.get("/dashboard/").text
    assert text.count('role="img"') == 3
    assert 'aria-label="Results per hour. In the last 24 hours: 3 succeeded, 2 failed."' in text
    assert "Show as a table" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"ORDER-0", "ORDER-1", "ORDER-2", "ORDER-3", "ORDER-6"}),
        ("status=open", {"ORDER-2", "ORDER-6"}),
        ("status=succeeded", {"ORDER-0", "ORDER-3"}),
        ("q=ORDER-1", {"ORDER-1"}),
        ("provider=modellix", set()),
        ("within=1h", {"ORDER-2", "ORDER-3", "ORDER-6"}),
        ("until=2020-01-01T00:00", set()),
    ],
)
def test_tasks_are_found_by_filters(full: FullSite, query: str, found: set[str]) -> None:
    text = full.browser.get(f"/dashboard/tasks?{query}").text
    assert set(re.findall(r">(ORDER-\d)<", text)) == found


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("status=nonsense", "Status"),
        ("provider=nobody", "Provider"),
        ("since=yesterday", "From"),
        ("before=x", "This page of the list"),
    ],
)
def test_an_invalid_filter_is_reported(full: FullSite, query: str, says: str) -> None:
    answer = full.browser.get(f"/dashboard/tasks?{query}")
    assert answer.status_code == 400
    assert says in answer.text
    checked(answer.text)


@pytest.mark.parametrize("name", [Rich().failed, f"at-provider-{Rich().failed}"])
def test_searching_for_an_id_leads_to_its_task(full: FullSite, name: str) -> None:
    found = full.browser.get(f"/dashboard/tasks?q={name}").location
    assert found == f"/dashboard/tasks/{full.rich.failed}"


def test_lists_are_paginated(browser: FlaskClient, store: SqliteStore) -> None:
    for number in range(60):
        store.inbox.create_task(Task(f"t{number}", "kling", Status.CREATED, number, number))
    first = browser.get("/dashboard/tasks?status=open").text
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following
    second = browser.get(following[1].replace("&amp;", "&")).text
    shown = [re.findall(r'href="/dashboard/tasks/(t\d+)"', text) for text in (first, second)]
    assert [len(page) for page in shown] == [50, 10]
    assert not set(shown[0]) & set(shown[1])
    assert 'rel="next"' not in second


# -- pictures


def test_thumbnails_and_pictures_are_served_from_our_host(
    browser: FlaskClient, rich: Rich, tmp_path: Path
) -> None:
    listed = browser.get("/dashboard/tasks").text
    thumbnail = re.search(r'src="(/dashboard/thumbnails/[^"]+)"', listed)
    text = browser.get(f"/dashboard/tasks/{rich.succeeded}").text
    whole = re.search(r'href="(/dashboard/files/[^"]+)"', text)
    assert thumbnail
    assert whole
    assert browser.get(thumbnail[1]).data[:3] == b"\xff\xd8\xff"
    answer = browser.get(whole[1])
    lies_at = tmp_path / "pictures" / rich.succeeded / "0.png"
    assert (answer.mimetype, answer.data) == ("image/png", lies_at.read_bytes())
    answer.close()
    shown = re.search(r'<img src="([^"]+)" alt="Output 1 of ORDER-0; opens the file"', text)
    assert shown
    assert shown[1] == whole[1]  # the whole picture, not its thumbnail
    lies_at.unlink()
    without_file = browser.get(f"/dashboard/tasks/{rich.succeeded}").text
    assert f'<img src="{thumbnail[1]}" alt="Output 1 of ORDER-0"' in without_file
    assert whole[1] not in without_file
    gone = browser.get(whole[1])
    assert gone.status_code == 404
    assert "is not on this machine" in gone.text


@pytest.mark.parametrize(
    "content_type", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml"]
)
def test_a_file_that_a_browser_could_run_is_an_attachment(
    browser: FlaskClient, store: SqliteStore, tmp_path: Path, content_type: str
) -> None:
    tell(store, "t", "succeed", MINUTE)
    delivery = store.outbox.claim("w", MINUTE, 2 * MINUTE, 1)[0]
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    file = File("0", str(page), "cd" * 32, page.stat().st_size, content_type)
    store.outbox.settle(delivery, Attempt(1, 0, 0, "delivered", ""), State.DELIVERED, None, [file])
    answer = browser.get(f"/dashboard/files/{delivery.id}/0")
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    answer.close()


@pytest.mark.parametrize("path", ["tasks/nobody", "thumbnails/9/0", "files/9/0", "no/such/page"])
def test_a_missing_page_says_so(full: FullSite, path: str) -> None:
    answer = full.browser.get(f"/dashboard/{path}")
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    checked(answer.text)


def test_an_unavailable_record_is_explained(browser: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "receiver.db").rename(tmp_path / "elsewhere")
    answer = browser.get("/dashboard/")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "cannot be read at the moment" in answer.text


# -- live


def test_an_unchanged_page_is_not_sent_again(
    browser: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = now_ms() - 90_000  # half a minute before the displayed age changes
    store.inbox.create_task(Task("t", "kling", Status.CREATED, at, at))
    first = browser.get("/dashboard/tasks/t", headers={"X-Live": "1"})
    assert "<nav" not in first.text  # only the live parts
    assert token(first.text)
    known = {"X-Live": "1", "If-None-Match": first.headers["ETag"]}
    later = int(time.time()) + 2  # the CSRF tokens in its forms change every second
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: later)
    whole = browser.get("/dashboard/tasks/t", headers={"X-Live": "1"})
    assert token(whole.text) != token(first.text)
    again = browser.get("/dashboard/tasks/t", headers=known)
    assert (again.status_code, again.data) == (304, b"")
    store.polling.query_at("t", at)
    changed = browser.get("/dashboard/tasks/t", headers=known)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_every_live_part_of_a_page_is_in_the_response_to_the_script(full: FullSite) -> None:
    browser = full.browser
    for path in ("", "tasks", f"tasks/{full.rich.failed}", "deliveries", "endpoints", "quarantine"):
        whole, live = (
            re.findall(r'data-live="(\w+)"', browser.get(f"/dashboard/{path}", headers=more).text)
            for more in ({}, {"X-Live": "1"})
        )
        assert len(whole) > 1
        assert sorted(whole) == sorted(live)


def test_stored_inputs_are_shown_beside_the_result(
    browser: FlaskClient, stranger: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    task, small = rich.succeeded, b"\xff\xd8 a small person"
    assert "was sent" not in browser.get(f"/dashboard/tasks/{task}").text
    store.inbox.keep_inputs(task, {"cloth": b"\xff\xd8 a shirt", "human": small})
    for page in (f"/dashboard/tasks/{task}", "/dashboard/tasks?view=gallery"):
        text = browser.get(page).text
        assert text.index("The human that was sent") < text.index("The cloth that was sent")
        assert f"/dashboard/tasks/{task}/inputs/human" in text
    answer = browser.get(f"/dashboard/tasks/{task}/inputs/human")
    assert (answer.data, answer.mimetype) == (small, "image/jpeg")
    assert browser.get(f"/dashboard/tasks/{task}/inputs/other").status_code == 404
    assert stranger.get(f"/dashboard/tasks/{task}/inputs/human").status_code == 302
