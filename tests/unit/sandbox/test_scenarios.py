"""Scenarios are played in the requested order; after them, tasks succeed."""

import gzip
import json
import zlib

import pytest

from sandbox.outgoing_callbacks import OutgoingCallback
from sandbox.providers.standard_webhooks import Signer
from sandbox.scenarios.scenario import SCENARIOS, Queue, UnknownScenarioError

NOTICE = OutgoingCallback("kling", "1", None, "submitted", "http://sink.example", {}, b"{}")


def test_each_provider_has_its_own_queue_which_ends_in_success() -> None:
    queue = Queue()
    queue.add("kling", "failed", 2)
    queue.add("kling", "silent")
    assert queue.take("other").name == "succeed"
    played = [queue.take("kling").name for _ in range(4)]
    assert played == ["failed", "failed", "silent", "succeed"]


def test_the_error_for_an_unknown_scenario_lists_the_known_ones() -> None:
    with pytest.raises(UnknownScenarioError, match="'nope'; the scenarios are: succeed"):
        Queue().add("kling", "nope")


def test_a_scenario_of_one_provider_is_refused_for_another() -> None:
    queue = Queue()
    queue.add("modellix", "plain-urls")
    with pytest.raises(UnknownScenarioError, match="'plain-urls' is available for modellix only"):
        queue.add("kling", "plain-urls")
    assert queue.take("kling").name == "succeed"


@pytest.mark.parametrize(
    ("name", "sent"), [("succeed", 1), ("failed", 1), ("silent", 0), ("duplicates", 2)]
)
def test_a_plan_contains_every_callback_that_is_sent(name: str, sent: int) -> None:
    assert SCENARIOS[name].plan(NOTICE) == (NOTICE,) * sent


# -- changes that the transport makes to a callback

URL = "http://sink.example/callbacks/kling/one/token"
SIGNER = Signer("whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u")


def planned(name: str, status: str) -> tuple[OutgoingCallback, ...]:
    """Return the requests into which the scenario turns the signed callback with this status."""
    body = json.dumps({"task_id": "1", "task_status": status}).encode()
    headers = {"Content-Type": "application/json"}
    notice = OutgoingCallback("kling", "1", None, status, URL, headers, body, sign=SIGNER.headers)
    return SCENARIOS[name].plan(notice.signed())


def is_signed(notice: OutgoingCallback) -> bool:
    """Whether the signature covers the bytes that are sent."""
    headers = {name.lower(): value for name, value in notice.headers.items()}
    at = int(headers["webhook-timestamp"])
    again = dict(SIGNER.headers(headers["webhook-id"], at, notice.body))
    return headers["webhook-signature"] in again.values()


STATUSES = ("submitted", "processing", "succeed")


@pytest.mark.parametrize("status", STATUSES)
def test_a_body_is_compressed_and_signed_as_it_is_sent(status: str) -> None:
    (sent,) = planned("compressed", status)
    coding, window = {
        "submitted": ("deflate", zlib.MAX_WBITS),
        "processing": ("deflate", -zlib.MAX_WBITS),
        "succeed": ("gzip", 16 + zlib.MAX_WBITS),
    }[status]
    assert sent.headers["Content-Encoding"] == coding
    assert json.loads(zlib.decompress(sent.body, window))["task_status"] == status
    assert is_signed(sent)


@pytest.mark.parametrize("status", STATUSES)
def test_a_body_has_a_byte_order_mark_and_an_unusual_type(status: str) -> None:
    (sent,) = planned("odd-encoding", status)
    assert sent.body[:2] in (b"\xef\xbb", b"\xff\xfe")
    assert json.loads(sent.body)["task_status"] == status
    kind = "application/x-www-form-urlencoded" if status == "succeed" else None
    assert sent.headers.get("Content-Type") == kind
    assert is_signed(sent)


def test_urls_are_altered_in_the_way_of_clients_and_proxies() -> None:
    urls = [sent.url for status in STATUSES for sent in planned("altered-url", status)]
    assert urls == [
        "http://sink.example//callbacks//kling//one//token/?source=sandbox",
        f"{URL}/?source=sandbox",
        f"{URL}%20?source=sandbox",
    ]


def test_a_url_is_probed_before_it_is_used() -> None:
    sent = planned("probed", "submitted")
    assert [one.method for one in sent] == ["HEAD", "GET", "POST"]
    assert [one.insisted for one in sent] == [False, False, True]
    assert [one.url for one in sent] == [URL] * 3
    assert sent[0].body == sent[1].body == b""


def test_a_console_tests_the_url_without_a_token() -> None:
    test, notice = planned("console-test", "submitted")
    assert test.url == "http://sink.example/callbacks/kling"
    assert "task_id" not in json.loads(test.body)
    assert is_signed(test)
    assert (test.insisted, notice.insisted, notice.url) == (False, True, URL)


def test_a_body_is_too_long_before_or_after_decompression() -> None:
    padded, packed, notice = planned("oversized", "submitted")
    assert len(padded.body) > 256 * 1024 > 2_000 > len(packed.body)
    assert gzip.decompress(packed.body) == padded.body
    assert is_signed(padded)
    assert is_signed(packed)
    assert (padded.insisted, packed.insisted, notice.insisted) == (False, False, True)
