"""Scenarios play in the order asked for, then all is well again."""

import pytest

from sandbox.notices import Notice
from sandbox.scenarios import SCENARIOS, Queue, UnknownScenarioError

NOTICE = Notice("kling", "1", None, "submitted", "http://sink.example", {}, b"{}")


def test_the_queue_is_per_provider_and_ends_in_success() -> None:
    queue = Queue()
    queue.add("kling", "failed", 2)
    queue.add("kling", "silent")
    assert queue.take("other").name == "succeed"
    played = [queue.take("kling").name for _ in range(4)]
    assert played == ["failed", "failed", "silent", "succeed"]


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownScenarioError, match=r"'nope' is unknown; known are: succeed"):
        Queue().add("kling", "nope")


def test_a_scenario_of_one_provider_is_refused_to_another() -> None:
    queue = Queue()
    queue.add("modellix", "plain-urls")
    with pytest.raises(UnknownScenarioError, match="'plain-urls' is of modellix only"):
        queue.add("kling", "plain-urls")
    assert queue.take("kling").name == "succeed"


@pytest.mark.parametrize(
    ("name", "sent"), [("succeed", 1), ("failed", 1), ("silent", 0), ("duplicates", 2)]
)
def test_a_plan_says_what_is_really_sent(name: str, sent: int) -> None:
    assert SCENARIOS[name].plan(NOTICE) == (NOTICE,) * sent
